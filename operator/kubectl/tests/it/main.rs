//! `kubectl vumi` before a real API server and a real RabbitMQ, with an operator that works there. What needs a kubelet is
//! tested on a whole cluster, in `tests/e2e`.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod doctor;
mod live;
mod man;
mod people;
mod place;
mod purge;
mod unread;

use place::{Place, TELNET, deployment};
use serde_json::{Value, json};
use vumi_testkit::kubernetes::{ApiServer, KubernetesError};
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_ask_of_a_cluster() {
    let server = match ApiServer::start() {
        Ok(server) => server,
        Err(missing @ KubernetesError::Missing(_)) => {
            return vumi_testkit::skip(&missing.to_string());
        }
        Err(error) => panic!("{error}"),
    };
    let Some(rabbit) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
        return;
    };
    let place = Place::new(server);
    doctor::before_anything_is_installed(&place);
    place.install();
    people::have_the_rights_of_their_roles(&place);
    place.campaign(&rabbit.url("/"));
    diff_before_the_operator(&place);
    diff_takes_nothing_from_others(&place);
    let operator = place.operator().await;
    diff_is_clean(&place);
    status_says_what_is_wrong(&place);
    doctor::knows_the_operator(&place);
    doctor::says_which_broker_is_away(&place);
    operator.end().await;
    doctor::tells_statuses_that_nobody_writes(&place);
    diff_sees_what_others_changed(&place);
    nothing_is_written_under_older_definitions(&place);
    let operator = place.operator().await;
    restart_is_the_operators(&place).await;
    there_is_nothing_to_look_at_without_pods(&place);
    drain_waits_and_says_what_remains(&place).await;
    purge::takes_what_nobody_needs(&place, &rabbit).await;
    purge::leaves_what_others_are_to_read(&place, &rabbit).await;
    purge::is_refused_by_the_broker_once_somebody_uses_a_queue(&rabbit).await;
    unread::diff_goes_by_what_runs(&place);
    live::figures_come_through_the_api_server(&place).await;
    operator.end().await;
}

fn diff_before_the_operator(place: &Place) {
    let asked = place.vumi(&["diff", "-f", &place.example()]);
    assert_eq!(asked.code, 1, "{asked:?}");
    asked.says(&[
        "+++ wanted campaign/Deployment transport-telnet",
        "+++ wanted campaign/Deployment application-echo",
        "+kind: ServiceAccount",
        "vumi.dev/name: telnet",
    ]);
    let taken = |line: &str| line.starts_with('-') && !line.starts_with("--- live");
    assert!(!asked.out.lines().any(taken), "{}", asked.out);
    let said = place.vumi(&["diff", "transprot/telnet"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("did you mean transport?"), "{said:?}");
    let said = place.vumi(&["diff", "transport/absent"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.err.contains("there is no transport/absent"),
        "{said:?}"
    );
    let file = place.file("bad.yaml", "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: bad}\nspec: {telnett: {}}\n");
    let said = place.vumi(&["diff", "-f", &file]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("telnett"), "{said:?}");
    let missing = place.file("none.yaml", "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: none}\nspec: {echo: {}, transportName: t, broker: {secretRef: {name: absent}}}\n");
    let said = place.vumi(&["diff", "-f", &missing]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("[SecretMissing]"), "{said:?}");
}

/// As the operator does: what somebody else made under the name of a child is not taken over, and what is on its way out is waited
/// for.
fn diff_takes_nothing_from_others(place: &Place) {
    let service = "/api/v1/namespaces/campaign/services/transport-telnet";
    let example = place.example();
    place.put(&json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "transport-telnet", "namespace": "campaign"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "name": "other"}]},
    }));
    let asked = place.vumi(&["diff", "-f", &example]);
    assert_eq!(asked.code, 2, "{asked:?}");
    let refused = "Service transport-telnet exists already and is not the operator's";
    assert!(asked.err.contains(refused), "{asked:?}");
    let labels = json!({"vumi.dev/kind": "Transport", "vumi.dev/name": "telnet"});
    let held = json!({"labels": labels, "finalizers": ["example.net/held"]});
    place.merge(service, &json!({"metadata": held}));
    place.delete(service);
    let asked = place.vumi(&["diff", "-f", &example]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(
        asked
            .err
            .contains("Service transport-telnet is being deleted"),
        "{asked:?}"
    );
    assert!(!asked.out.contains("Service transport-telnet"), "{asked:?}");
    place.merge(service, &json!({"metadata": {"finalizers": null}}));
}

/// What the operator has done is no difference, of what is applied and of the manifests.
fn diff_is_clean(place: &Place) {
    let example = place.example();
    for arguments in [vec!["diff"], vec!["diff", "-f", &example]] {
        let asked = place.vumi(&arguments);
        assert_eq!((asked.code, asked.out.as_str()), (0, ""), "{asked:?}");
    }
}

/// There are no pods, since there is no kubelet.
fn status_says_what_is_wrong(place: &Place) {
    let asked = place.vumi(&["status"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.out.starts_with("NAME "), "{}", asked.out);
    assert!(
        asked.out.contains("transport/telnet  telnet"),
        "{}",
        asked.out
    );
    assert!(
        asked.out.contains("\ntransport/telnet: not Ready for "),
        "{}",
        asked.out
    );
    let asked = place.vumi(&["status", "-A", "--format", "json"]);
    let all: Value = serde_json::from_str(&asked.out).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");
    assert!(all.as_array().unwrap().iter().all(|r| r["ready"] == false));
    assert_eq!(place.vumi(&["status", "-n", "default"]).code, 0);
}

/// An operator that is not there takes back nothing, and the plugin sees what one would.
fn diff_sees_what_others_changed(place: &Place) {
    place.merge(&deployment(), &json!({"spec": {"replicas": 5}}));
    let asked = place.vumi(&["diff", "transport/telnet"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(
        asked.out.contains("\n-  replicas: 5\n+  replicas: 1\n"),
        "{}",
        asked.out
    );
    assert!(!asked.out.contains("ServiceAccount"), "{}", asked.out);
    // As `kubectl set image` does.
    let mut containers = place.get(&deployment())["spec"]["template"]["spec"]["containers"].take();
    let image = containers[0]["image"].as_str().unwrap().to_owned();
    containers[0]["image"] = "elsewhere/other:1".into();
    let template = json!({"spec": {"containers": containers}});
    place.merge(&deployment(), &json!({"spec": {"template": template}}));
    let asked = place.vumi(&["diff", "transport/telnet"]);
    let has = |sign: &str, image: &str| {
        let mut lines = asked.out.lines();
        lines.any(|line| line.starts_with(sign) && line.ends_with(&format!("image: {image}")))
    };
    assert!(
        has("-", "elsewhere/other:1") && has("+", &image),
        "{}",
        asked.out
    );
    assert_eq!(place.vumi(&["diff", "application/echo"]).code, 0);
    // An edit that takes an object away.
    let edited = place.edited("networkPolicy: {}");
    let asked = place.vumi(&["diff", "-f", &edited]);
    assert!(asked.out.contains("+kind: NetworkPolicy"), "{}", asked.out);
}

/// The API server leaves out what older definitions do not know, and a write makes that last.
fn nothing_is_written_under_older_definitions(place: &Place) {
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/transports.vumi.dev";
    let mut versions = place.get(crd)["spec"]["versions"].take();
    let whole = versions.clone();
    let spec = &mut versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let gone = spec["properties"]
        .as_object_mut()
        .unwrap()
        .remove("updatePolicy");
    assert!(gone.is_some());
    place.merge(crd, &json!({"spec": {"versions": versions}}));
    // The API server publishes them a moment later.
    place.until("the older definitions", |place| {
        place
            .vumi(&["doctor"])
            .out
            .contains("they lack Transport.spec.updatePolicy")
    });
    let before = place.get(TELNET);
    for command in ["restart", "drain"] {
        let asked = place.vumi(&[command, "transport/telnet"]);
        assert_eq!(asked.code, 2, "{asked:?}");
        assert!(
            asked.err.contains("they lack Transport.spec.updatePolicy"),
            "{asked:?}"
        );
    }
    assert_eq!(place.get(TELNET), before);
    place.merge(crd, &json!({"spec": {"versions": whole}}));
    place.until("the definitions", |place| {
        place.vumi(&["doctor"]).out.contains("have all of version")
    });
}

async fn restart_is_the_operators(place: &Place) {
    place.until("the drift to be corrected", |place| {
        place.get(&deployment())["spec"]["replicas"] == 1
    });
    let asked = place.vumi(&["restart", "transport/telnet"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    let at = |object: &Value, path: &str| object.pointer(path).cloned().unwrap_or_default();
    let asked_for = at(
        &place.get(TELNET),
        "/metadata/annotations/vumi.dev~1restarted-at",
    );
    assert!(asked_for.is_string());
    let path = "/spec/template/metadata/annotations/vumi.dev~1restarted-at";
    place.until("the operator to pass it on", |place| {
        at(&place.get(&deployment()), path) == asked_for
    });
    // Nobody takes it back.
    diff_is_clean(place);
    assert_eq!(at(&place.get(&deployment()), path), asked_for);
    // There is no controller that makes pods: it waits, and says for what.
    let asked = place.vumi(&["restart", "transport/telnet", "--wait", "--timeout", "2s"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(
        asked.err.contains("not within 2s: transport/telnet"),
        "{asked:?}"
    );
    place.merge(
        TELNET,
        &json!({"metadata": {"annotations": {"vumi.dev/pause-reconciliation": "true"}}}),
    );
    for command in ["restart", "drain"] {
        let asked = place.vumi(&[command, "transport/telnet"]);
        assert_eq!(asked.code, 2, "{asked:?}");
        assert!(
            asked.err.contains("leaves transport/telnet alone"),
            "{asked:?}"
        );
    }
    place.merge(
        TELNET,
        &json!({"metadata": {"annotations": {"vumi.dev/pause-reconciliation": null}}}),
    );
}

fn there_is_nothing_to_look_at_without_pods(place: &Place) {
    for command in ["logs", "tap"] {
        let asked = place.vumi(&[command, "transport/telnet"]);
        assert_eq!(asked.code, 3, "{asked:?}");
        assert!(
            asked.err.contains("transport/telnet has no pod"),
            "{asked:?}"
        );
        let asked = place.vumi(&[command, "transport/absent"]);
        assert!(
            asked.err.contains("there is no transport/absent"),
            "{asked:?}"
        );
    }
}

async fn drain_waits_and_says_what_remains(place: &Place) {
    let asked = place.vumi(&["drain", "transport/telnet", "--timeout", "60s"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(
        asked.out.contains("transport/telnet: no pod is left; "),
        "{asked:?}"
    );
    assert_eq!(place.get(TELNET)["spec"]["suspend"], true);
    assert_eq!(place.get(&deployment())["spec"]["replicas"], 0);
}
