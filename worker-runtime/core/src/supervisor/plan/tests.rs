//! Cases of the plan: what counts as a change, who waits for whom, what is shown.

use super::*;
use vumi_api::manifest::{Target, load};

fn set(text: &str) -> Vec<Resource> {
    // A set without workers is one without files.
    let file = Some(("set.yaml", text)).filter(|_| !text.is_empty());
    let manifests = load(file.as_slice(), Target::Local);
    assert!(!manifests.has_errors(), "{:?}", manifests.findings);
    manifests
        .resources
        .into_iter()
        .map(|loaded| loaded.resource)
        .collect()
}

fn telnet(name: &str, host: &str, port: u16) -> String {
    document(
        "Transport",
        name,
        &format!("{{telnet: {{host: '{host}', port: {port}}}}}"),
    )
}

fn http(name: &str, port: u16, more: &str) -> String {
    document(
        "Transport",
        name,
        &format!("{{httpApi: {{replyExpected: true}}, http: {{port: {port}}}{more}}}"),
    )
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn planned(old: &str, new: &str) -> Plan {
    plan(&set(old), &set(new))
}

fn waits(plan: &Plan, key: &str) -> Vec<(String, Until)> {
    let step = plan.step(key).expect("a step");
    step.after
        .iter()
        .map(|wait| (wait.key.clone(), wait.until))
        .collect()
}

#[test]
fn equal_sets_change_nothing_whatever_their_order_and_spelling() {
    let old = telnet("a", "0.0.0.0", 9010)
        + &document(
            "Application",
            "e",
            "{echo: {}, transportName: a, holdLimit: 1m}",
        );
    let new = document(
        "Application",
        "e",
        "{transportName: a, holdLimit: 60s, echo: {}}",
    ) + &telnet("a", "0.0.0.0", 9010);
    let plan = planned(&old, &new);
    assert!(plan.is_empty(), "{plan}");
    assert!(
        plan.to_string()
            .ends_with("0 to start, 0 to replace, 0 to stop, 2 unchanged\n")
    );
}

#[test]
fn new_ones_start_and_missing_ones_stop() {
    let plan = planned(&telnet("a", "::", 9010), &telnet("b", "::", 9011));
    assert_eq!(plan.step("transport/b").expect("new").action, Action::Start);
    assert_eq!(plan.step("transport/a").expect("old").action, Action::Stop);
    assert!(waits(&plan, "transport/b").is_empty());
}

#[test]
fn a_replaced_worker_waits_for_itself_and_keeps_its_port() {
    let old = telnet("a", "0.0.0.0", 9010);
    let new = document("Transport", "a", "{telnet: {port: 9010, maxClients: 5}}");
    let plan = planned(&old, &new);
    assert_eq!(
        waits(&plan, "transport/a"),
        [("transport/a".to_owned(), Until::IntakeClosed)]
    );
    let text = plan.to_string();
    assert!(text.contains("keeps 0.0.0.0:9010 open"), "{text}");
    assert!(text.contains("spec.telnet.maxClients: set to 5"), "{text}");
    assert!(
        text.contains("spec.telnet.host: removed, was \"0.0.0.0\""),
        "{text}"
    );
}

#[test]
fn a_transport_that_holds_requests_or_sessions_only_waits_for_the_intake() {
    let plan = planned(&http("h", 9011, ""), &http("h", 9011, ", holdLimit: 5s"));
    assert_eq!(
        waits(&plan, "transport/h"),
        [("transport/h".to_owned(), Until::IntakeClosed)]
    );
    // One that answers at once shares its queue with nobody.
    let plain = |hold: &str| {
        let spec = format!("{{httpApi: {{}}, http: {{port: 9011}}, holdLimit: {hold}}}");
        document("Transport", "p", &spec)
    };
    let plan = planned(&plain("5s"), &plain("6s"));
    assert_eq!(
        waits(&plan, "transport/p"),
        [("transport/p".to_owned(), Until::Stopped)]
    );
}

#[test]
fn a_port_that_moves_is_waited_for() {
    let old = telnet("a", "::", 9010) + &telnet("b", "::", 9011);
    let new = telnet("a", "::", 9011) + &telnet("b", "::", 9010);
    let plan = planned(&old, &new);
    assert!(waits(&plan, "transport/a").contains(&("transport/b".into(), Until::IntakeClosed)));
    assert!(waits(&plan, "transport/b").contains(&("transport/a".into(), Until::IntakeClosed)));
    assert!(
        plan.to_string()
            .contains("takes [::]:9010 over from transport/a"),
        "{plan}"
    );
}

#[test]
fn one_port_on_two_addresses_needs_the_old_socket_closed() {
    let plan = planned(
        &telnet("a", "0.0.0.0", 9010),
        &telnet("b", "127.0.0.1", 9010),
    );
    assert_eq!(
        waits(&plan, "transport/b"),
        [("transport/a".to_owned(), Until::Stopped)]
    );
}

#[test]
fn a_queue_that_passes_to_another_name_is_waited_for() {
    let old = document("Application", "a", "{echo: {}, transportName: x}");
    let new = document("Application", "b", "{echo: {}, transportName: x}");
    let plan = planned(&old, &new);
    assert_eq!(
        waits(&plan, "application/b"),
        [("application/a".to_owned(), Until::Stopped)]
    );
}

#[test]
fn what_answers_held_requests_leaves_after_the_transport() {
    let old = http("h", 9011, "") + &document("Application", "e", "{echo: {}, transportName: h}");
    let plan = planned(&old, "");
    assert_eq!(
        plan.step("application/e").expect("stops").outlives,
        ["transport/h"]
    );
    assert!(plan.step("transport/h").expect("stops").outlives.is_empty());
}

#[test]
fn another_broker_address_replaces_although_the_manifest_is_the_same() {
    let set = set(&document(
        "Application",
        "e",
        "{echo: {}, transportName: h}",
    ));
    let at = |broker| {
        [Entry {
            broker: Some(broker),
            ..Entry::from(&set[0])
        }]
    };
    assert!(plan(at("rabbit-a:5672/"), at("rabbit-a:5672/")).is_empty());
    let moved = plan(at("rabbit-a:5672/"), at("rabbit-b:5672/"));
    assert!(
        waits(&moved, "application/e").is_empty(),
        "no queue is shared between two brokers"
    );
    let text = moved.to_string();
    assert!(
        text.contains("broker: rabbit-a:5672/ → rabbit-b:5672/"),
        "{text}"
    );
}

#[test]
fn another_state_store_replaces_and_the_old_worker_goes_first() {
    let set = set(&document(
        "Application",
        "e",
        "{echo: {}, transportName: h}",
    ));
    let at = |state| {
        [Entry {
            broker: Some("rabbit:5672/"),
            state,
            ..Entry::from(&set[0])
        }]
    };
    assert!(plan(at(Some("none")), at(Some("none"))).is_empty());
    assert!(
        plan(at(Some("redis://a:6379/0")), at(None)).is_empty(),
        "not known now"
    );
    let moved = plan(at(Some("none")), at(Some("redis://a:6379/0")));
    let waited = waits(&moved, "application/e");
    assert_eq!(waited, [("application/e".to_owned(), Until::Stopped)]);
    let text = moved.to_string();
    assert!(text.contains("state: none → redis://a:6379/0"), "{text}");
}

#[test]
fn a_plain_secret_is_never_shown() {
    let with = |password: &str| {
        document(
            "Transport",
            "h",
            &format!(
                "{{httpApi: {{}}, http: {{port: 9011, auth: {{username: u, password: {{value: {password}}}}}}}}}"
            ),
        )
    };
    let text = planned(&with("hunter2"), &with("hunter3")).to_string();
    assert!(
        text.contains("spec.http.auth.password.value: changed (not shown)"),
        "{text}"
    );
    let added = planned(&http("h", 9011, ""), &with("hunter2")).to_string();
    for text in [text, added] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

#[test]
fn who_waits_for_a_stuck_worker_is_held_too() {
    // a gives 9010 to b, b gives 9011 to c: if a's new version does not build, b and c cannot move.
    let old = telnet("a", "::", 9010)
        + &telnet("b", "::", 9011)
        + &telnet("c", "::", 9012)
        + &telnet("d", "::", 9020);
    let new = telnet("a", "::", 9013)
        + &telnet("b", "::", 9010)
        + &telnet("c", "::", 9011)
        + &telnet("d", "::", 9021);
    let plan = planned(&old, &new);
    let held = plan.held_by(&BTreeSet::from(["transport/a".to_owned()]));
    assert_eq!(
        held,
        BTreeMap::from([
            ("transport/b".to_owned(), "transport/a".to_owned()),
            ("transport/c".to_owned(), "transport/b".to_owned()),
        ])
    );
}

#[test]
fn colours_only_when_asked_for() {
    let plan = planned("", &telnet("a", "::", 9010));
    assert!(!plan.render(false).contains('\x1b'));
    assert!(
        plan.render(true)
            .contains("\x1b[32m+ transport/a (telnet): start\x1b[0m")
    );
}
