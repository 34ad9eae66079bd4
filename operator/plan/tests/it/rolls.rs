//! When pods are replaced, and when they are not (K8, K9, K12, K25).

use crate::{built, context, resource};
use serde_json::{Value, json};
use vumi_api::Resource;
use vumi_plan::{Context, Desired, Live, Settings, build, own_template, secret, validate};

const ECHO: &str = "echo: {}, transportName: t";

/// A workload that runs what was built.
pub(crate) fn live(desired: &Desired) -> Live {
    let mut object = desired.workload().unwrap().object.clone();
    let replicas = object["spec"]["replicas"].clone();
    object["status"] = json!({"replicas": replicas, "updatedReplicas": replicas});
    Live::of(&object).unwrap()
}

/// What is built of `resource` where `before` runs, by an operator with another image.
fn updated(resource: &Resource, before: &Desired, image: &str) -> Desired {
    restarted(resource, before, image, None)
}

fn template(desired: &Desired) -> &Value {
    &desired.workload().unwrap().object["spec"]["template"]
}

fn first(spec: &str) -> (Resource, Desired) {
    let resource = resource("Application", spec);
    let desired = built(&resource, &context(&resource));
    (resource, desired)
}

#[test]
fn a_new_operator_replaces_no_pod_and_says_that_an_update_waits() {
    let (resource, before) = first(ECHO);
    let image = before.image.clone();
    let after = updated(&resource, &before, "vumi:next");
    assert_eq!(template(&after), template(&before));
    assert_eq!((&after.image, after.update_available), (&image, true));
    // And it has nothing to write.
    assert_eq!(
        after.workload().unwrap().hash,
        before.workload().unwrap().hash
    );
    assert!(!updated(&resource, &before, &image).update_available);
}

#[test]
fn an_edit_takes_the_new_image_along() {
    let (_, before) = first(ECHO);
    let (edited, _) = first(&format!("{ECHO}, holdLimit: 20s"));
    let after = updated(&edited, &before, "vumi:next");
    assert_eq!(after.image, "vumi:next");
    assert!(!after.update_available);
}

#[test]
fn an_immediate_update_needs_no_edit() {
    let (resource, before) = first(&format!("{ECHO}, updatePolicy: Immediate"));
    let after = updated(&resource, &before, "vumi:next");
    assert_eq!(after.image, "vumi:next");
}

#[test]
fn a_manual_update_keeps_the_image_through_edits() {
    let manual = format!("{ECHO}, updatePolicy: Manual");
    let (resource, before) = first(&manual);
    let image = before.image.clone();
    assert_eq!(updated(&resource, &before, "vumi:next").image, image);
    let (edited, _) = first(&format!("{manual}, holdLimit: 20s"));
    let after = updated(&edited, &before, "vumi:next");
    assert_eq!((&after.image, after.update_available), (&image, true));
    assert_ne!(template(&after), template(&before));
    // Until the policy says otherwise, and the next edit comes.
    let (edited, _) = first(&format!("{ECHO}, holdLimit: 25s"));
    assert_eq!(updated(&edited, &after, "vumi:next").image, "vumi:next");
}

#[test]
fn what_is_not_of_the_pods_replaces_none() {
    let ordering = "ordering: {mode: perUser, partitions: 8}";
    let (_, before) = first(&format!("{ECHO}, {ordering}"));
    for more in [
        "replicas: 3",
        "autoscaling: {maxReplicas: 8}",
        "suspend: true",
        "updatePolicy: Manual",
        "networkPolicy: {}",
    ] {
        let (changed, _) = first(&format!("{ECHO}, {ordering}, {more}"));
        let after = updated(&changed, &before, "vumi:next");
        assert_eq!(after.input_hash, before.input_hash, "{more}");
        assert_eq!(template(&after), template(&before), "{more}");
    }
    for more in [
        "resources: {limits: {memory: 1Gi}}",
        "overrides: {spec: {priorityClassName: high}}",
        "backlogLimit: 5",
    ] {
        let (changed, _) = first(&format!("{ECHO}, {ordering}, {more}"));
        let after = updated(&changed, &before, "vumi:next");
        assert_ne!(template(&after), template(&before), "{more}");
    }
}

#[test]
fn scaling_and_suspending_are_seen_in_the_number_alone() {
    let number = |spec: &str| {
        let (_, desired) = first(&format!("{ECHO}, ordering: {{mode: none}}{spec}"));
        desired.workload().unwrap().object["spec"]["replicas"].clone()
    };
    for (spec, expected) in [
        ("", 1),
        (", replicas: 0", 0),
        (", replicas: 4", 4),
        (", replicas: 4, suspend: true", 0),
        // Until the scaler has decided, what there is, within the bounds.
        (", autoscaling: {maxReplicas: 9}", 1),
        (", replicas: 4, autoscaling: {maxReplicas: 9}", 4),
        (", replicas: 4, autoscaling: {maxReplicas: 2}", 2),
        (", autoscaling: {minReplicas: 3, maxReplicas: 9}", 3),
        (", autoscaling: {minReplicas: 0, maxReplicas: 9}", 1),
    ] {
        assert_eq!(number(spec), expected, "{spec}");
    }
}

#[test]
fn what_was_decided_elsewhere_goes_before_what_is_written_but_not_before_suspend() {
    for (spec, decided, expected) in [
        ("autoscaling: {maxReplicas: 9}", 7, 7),
        // Who has lost a clash has no pods, whatever its bounds.
        ("autoscaling: {minReplicas: 2, maxReplicas: 9}", 0, 0),
        ("replicas: 3", 0, 0),
        ("autoscaling: {maxReplicas: 9}, suspend: true", 7, 0),
    ] {
        let resource = resource("Transport", &format!("devNull: {{}}, {spec}"));
        let around = Context {
            replicas: Some(decided),
            ..context(&resource)
        };
        let desired = built(&resource, &around);
        let replicas = &desired.workload().unwrap().object["spec"]["replicas"];
        assert_eq!(*replicas, expected, "{spec}");
    }
}

#[test]
fn another_type_stops_the_old_worker_first() {
    let (_, before) = first(ECHO);
    let (other, _) = first("reverse: {}, transportName: t");
    let strategy = |desired: &Desired| {
        let strategy = &desired.workload().unwrap().object["spec"]["strategy"]["type"];
        strategy.as_str().unwrap().to_owned()
    };
    let during = updated(&other, &before, "vumi:next");
    assert_eq!(strategy(&during), "Recreate");
    // Going back to the usual way in the midst of it would start the new pod beside the old one.
    let mut unfinished = during.workload().unwrap().object.clone();
    unfinished["status"] = json!({"replicas": 1, "updatedReplicas": 0});
    let context = Context {
        live: Live::of(&unfinished),
        ..context(&other)
    };
    assert_eq!(strategy(&built(&other, &context)), "Recreate");
    assert_eq!(
        strategy(&updated(&other, &during, "vumi:next")),
        "RollingUpdate"
    );
}

/// The API server fills in what is left out; what comes back is no change.
#[test]
fn defaults_that_come_back_are_no_change() {
    let (resource, before) = first(&format!("{ECHO}, state: {{volume: {{}}}}"));
    let mut running = live(&before);
    running.template["spec"]["dnsPolicy"] = "ClusterFirst".into();
    running.template["spec"]["aFieldOfNextYear"] = true.into();
    running.claims[0]["spec"]["volumeMode"] = "Filesystem".into();
    running.claims[0]["status"] = json!({"phase": "Pending"});
    let context = Context {
        live: Some(running),
        ..context(&resource)
    };
    let after = built(&resource, &context);
    assert_eq!(
        after.workload().unwrap().hash,
        before.workload().unwrap().hash
    );
    assert!(!after.update_available);
    assert_eq!(template(&after)["spec"]["aFieldOfNextYear"], true);
}

#[test]
fn a_claim_that_is_there_stays_as_it_is() {
    let (_, before) = first(&format!("{ECHO}, state: {{volume: {{size: 1Gi}}}}"));
    let (larger, _) = first(&format!("{ECHO}, state: {{volume: {{size: 5Gi}}}}"));
    let claims = |desired: &Desired| {
        desired.workload().unwrap().object["spec"]["volumeClaimTemplates"].clone()
    };
    let after = updated(&larger, &before, "vumi:next");
    assert_eq!(claims(&after), claims(&before));
}

/// A program that reads its Secrets only when it starts is started anew when one changes; ours, and others that read files
/// again, are not.
#[test]
fn a_rotated_secret_replaces_only_pods_that_cannot_reload() {
    for (spec, rolls) in [
        (ECHO, false),
        ("custom: {image: a}, transportName: t", true),
        ("custom: {image: a, reload: files}, transportName: t", false),
    ] {
        let (resource, before) = first(spec);
        let mut rotated = Context {
            live: Some(live(&before)),
            ..context(&resource)
        };
        let broker = rotated.secrets.get_mut("vumi-broker").unwrap();
        broker.revision = "2".into();
        let after = built(&resource, &rotated);
        assert_eq!(template(&after) != template(&before), rolls, "{spec}");
        // That it is another one stands at the ServiceAccount, and is no reason to write the workload.
        let revision = |desired: &Desired| {
            let mut children = desired.children.iter();
            let account = children.find(|child| child.kind == "ServiceAccount");
            let object = &account.unwrap().object;
            object["metadata"]["annotations"]["vumi.dev/secret-revision"].clone()
        };
        assert!(revision(&before).is_string(), "{spec}");
        assert_ne!(revision(&after), revision(&before), "{spec}");
        let metadata = |desired: &Desired| desired.workload().unwrap().object["metadata"].clone();
        assert_eq!(metadata(&after) != metadata(&before), rolls, "{spec}");
        let hash = |desired: &Desired| desired.workload().unwrap().hash.clone();
        assert_eq!(hash(&after) != hash(&before), rolls, "{spec}");
        // Nobody knows now: what was told last stays.
        let secrets = rotated.secrets.values_mut();
        secrets.for_each(|facts| facts.revision.clear());
        rotated.secret_revision = before.secret_revision().map(str::to_owned);
        assert_eq!(revision(&built(&resource, &rotated)), revision(&before));
    }
}

/// Offline, and for whoever may not read it: what runs tells what its pods have of it, and which keys it has.
#[test]
fn a_secret_that_cannot_be_read_replaces_no_pod() {
    let (resource, _) = first("custom: {image: a}, transportName: t");
    let mut around = context(&resource);
    let broker = around.secrets.get_mut("vumi-broker").unwrap();
    broker.keys = ["connection_string".to_owned()].into();
    let before = built(&resource, &around);
    let used = resource.secrets().remove("vumi-broker").unwrap();
    let live = live(&before);
    let unread = secret::unread("vumi-broker", used.clone(), Some(&live));
    assert_eq!(unread.keys, around.secrets["vumi-broker"].keys);
    around.secrets.insert("vumi-broker".into(), unread);
    around.live = Some(live);
    let after = built(&resource, &around);
    assert_eq!(after.workload(), before.workload());
    assert!(!after.update_available);
    // What others do to its template is still seen.
    let settings = Settings::default();
    let validated = validate(&resource, &around, &settings).unwrap();
    let own = own_template(&validated, &around, &settings, after.workload().unwrap());
    assert_eq!(own.as_ref(), Some(template(&before)));
    // Where nothing runs, it has all that is read of it.
    let unread = secret::unread("vumi-broker", used.clone(), None);
    assert_eq!(unread.keys, used.keys);
}

/// Its content is what counts: who labels a Secret changes nothing for its readers.
#[test]
fn a_label_of_a_secret_replaces_no_pod_and_touches_none() {
    let facts = |version: &str, written: &str, label: &str| {
        secret::facts(&json!({
            "metadata": {
                "uid": "u",
                "resourceVersion": version,
                "labels": {"vumi.dev/watch": label},
                "managedFields": [
                    {"manager": "helm", "operation": "Update", "time": written, "fieldsV1": {"f:data": {}}},
                    {"manager": "kubectl-label", "operation": "Update", "time": version, "fieldsV1": {"f:metadata": {}}},
                ],
            },
            "data": {"connection_string": "YW1xcDovL2E="},
        }))
    };
    let (resource, _) = first("custom: {image: a}, transportName: t");
    let around = |facts, before: Option<&Desired>| {
        let mut context = context(&resource);
        context.live = before.map(live);
        context.secrets.insert("vumi-broker".into(), facts);
        context
    };
    let before = built(&resource, &around(facts("1", "noon", "false"), None));
    let labelled = around(facts("2", "noon", "true"), Some(&before));
    let after = built(&resource, &labelled);
    assert_eq!(after.children, before.children);
    let rotated = around(facts("3", "one o'clock", "true"), Some(&before));
    assert_ne!(template(&built(&resource, &rotated)), template(&before));
}

/// What is built where somebody has asked for new pods.
fn restarted(resource: &Resource, before: &Desired, image: &str, at: Option<&str>) -> Desired {
    let context = Context {
        live: Some(live(before)),
        restarted: at.map(str::to_owned),
        ..context(resource)
    };
    let settings = Settings {
        image: image.into(),
        ..Settings::default()
    };
    let validated = validate(resource, &context, &settings).unwrap();
    build(&validated, &context, &settings)
}

#[test]
fn who_asks_for_new_pods_gets_them_once() {
    let (resource, before) = first(ECHO);
    let image = before.image.clone();
    let after = restarted(&resource, &before, &image, Some("noon"));
    assert_ne!(template(&after), template(&before));
    let annotations = &template(&after)["metadata"]["annotations"];
    assert_eq!(annotations["vumi.dev/restarted-at"], "noon");
    assert!(!after.update_available);
    for at in [Some("noon"), None] {
        let again = restarted(&resource, &after, &image, at);
        assert_eq!(template(&again), template(&after), "{at:?}");
        assert_eq!(
            again.workload().unwrap().object["metadata"],
            after.workload().unwrap().object["metadata"]
        );
        assert!(!again.update_available);
    }
    let later = restarted(&resource, &after, &image, Some("one o'clock"));
    assert_ne!(template(&later), template(&after));
}

#[test]
fn new_pods_that_somebody_asked_for_keep_their_runtime() {
    let (resource, before) = first(ECHO);
    let image = before.image.clone();
    let after = restarted(&resource, &before, "vumi:next", Some("noon"));
    assert_ne!(template(&after), template(&before));
    assert_eq!((&after.image, after.update_available), (&image, true));
    let again = restarted(&resource, &after, "vumi:next", Some("noon"));
    assert_eq!(template(&again), template(&after));
    assert!(again.update_available);
    // The next edit takes the waiting one along, and what was asked for is not asked for again.
    let (edited, _) = first(&format!("{ECHO}, holdLimit: 20s"));
    let next = restarted(&edited, &after, "vumi:next", Some("noon"));
    assert_eq!(
        (next.image.as_str(), next.update_available),
        ("vumi:next", false)
    );
    let again = restarted(&edited, &next, "vumi:next", Some("noon"));
    assert_eq!(template(&again), template(&next));
}
