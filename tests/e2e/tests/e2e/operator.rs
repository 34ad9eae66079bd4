//! What a user sees who applies a campaign to a cluster with the operator.

use serde_json::{Value, json};
use vumi_e2e::{Conversation, Namespace, Operator, RabbitMq, alone, root};

pub const TELNET: &str = "transport/telnet";
pub const ECHO: &str = "application/echo";
/// What the echo says to who calls.
pub const GREETING: &str = "Enter text to echo:";

/// Applies the shipped example, a transport `telnet` and an application `echo`, as a user does.
pub fn campaign(here: &Namespace) {
    let example = root().join("examples/telnet-echo");
    here.succeed(&["apply", "-f", &example.to_string_lossy()], "");
}

/// Applies an application `echo` that reads what [`Namespace::load`] sends as `load`, with more in its specification; who writes to it
/// and reads its replies is the test.
pub fn echo_of_load(here: &Namespace, more: &Value) {
    let mut echo = json!({
        "apiVersion": "vumi.dev/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "echo"},
        "spec": {"echo": {}, "transportName": "load"},
    });
    for (field, value) in more.as_object().unwrap() {
        echo["spec"][field] = value.clone();
    }
    here.succeed(&["apply", "-f", "-"], &echo.to_string());
}

/// Calls the address that the status of the transport names, and hears its first line.
pub fn call(here: &Namespace, transport: &str) -> (Conversation, String) {
    let status = here.get(transport).unwrap()["status"].clone();
    let address = status["address"].as_str().and_then(|a| a.rsplit_once(':'));
    let (host, port) = address.unwrap_or_else(|| panic!("no address: {status}"));
    let mut caller = here.connect(host, port.parse().unwrap());
    let said = caller
        .hear(30)
        .unwrap_or_else(|| panic!("{host}:{port} hung up"));
    (caller, said)
}

/// The shipped example becomes pods that answer on a Service through RabbitMQ; an edit replaces the pods of that worker, and
/// nobody else notices.
#[test]
fn an_applied_campaign_is_ready_answers_and_rolls_what_is_edited() {
    let here = Namespace::create("campaign");
    let _operator = Operator::start(&[&here]);
    here.client();
    // The Secret and a broker that is still starting.
    here.rabbitmq(RabbitMq::V4_0);
    campaign(&here);
    let why = here.condition(ECHO, "Reconciling", "True", 60);
    assert!(!why.starts_with(": ") && !why.ends_with(": "), "{why}");
    here.settled(&[TELNET, ECHO], 180);
    for resource in [TELNET, ECHO] {
        // The workers may have found the broker before the operator does.
        let status = here.wait_for(&format!("{resource} says no why"), 60, || {
            let status = here.get(resource)?["status"].clone();
            match status.get("why") {
                None => Ok(status),
                Some(why) => Err(why.to_string()),
            }
        });
        assert_eq!(status["replicas"], json!(1), "{status}");
        assert_eq!(status["readyReplicas"], json!(1), "{status}");
        assert_eq!(status["appliedGeneration"], json!(1), "{status}");
    }
    let (mut ann, said) = call(&here, TELNET);
    assert_eq!(said, GREETING);
    ann.send("grüße ☎");
    assert_eq!(ann.hear(30).as_deref(), Some("grüße ☎"));
    // The table that answers the first question.
    let table = here.succeed(&["get", "vumi"], "");
    let mut lines = table.lines().filter(|line| !line.is_empty());
    assert!(
        lines.next().is_some_and(|line| line.contains("READY")),
        "{table}"
    );
    let row = lines.find(|line| line.starts_with("transport.vumi.dev/telnet"));
    let words: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        words.get(1..3),
        Some(["telnet", "True"].as_slice()),
        "{table}"
    );

    // What the operator writes is no difference to what was applied.
    let example = root().join("examples/telnet-echo");
    let example = example.to_string_lossy();
    here.succeed(&["diff", "-f", &example], "");
    here.succeed(&["apply", "--server-side", "-f", &example], "");
    here.succeed(&["diff", "--server-side", "-f", &example], "");
    // A listener that keeps its sessions to itself cannot be two.
    let two = here.kubectl(&["scale", TELNET, "--replicas=2"], "");
    let told = String::from_utf8_lossy(&two.stderr);
    assert!(
        !two.status.success() && told.contains("ordering.standby: true"),
        "{told}"
    );

    let before = (here.pods(TELNET), here.pods(ECHO));
    let edit = json!({"spec": {"telnet": {"maxLine": "2Ki"}}}).to_string();
    here.succeed(&["patch", TELNET, "--type=merge", "--patch", &edit], "");
    here.wait_for("the edited worker has new pods only", 120, || {
        let now = here.pods(TELNET);
        let kept = now
            .iter()
            .any(|pod| before.0.iter().any(|old| old.uid == pod.uid));
        (!now.is_empty() && !kept)
            .then_some(())
            .ok_or(format!("{now:?}"))
    });
    here.settled(&[TELNET, ECHO], 120);
    assert_eq!(here.pods(ECHO), before.1);
    let events = here.succeed(&["get", "events.events.k8s.io"], "");
    assert!(events.contains("ConfigChanged"), "{events}");
    let (mut bob, _) = call(&here, TELNET);
    bob.send("after the edit");
    assert_eq!(bob.hear(30).as_deref(), Some("after the edit"));
}

/// As it is shipped, one operator serves every namespace, those that come later as well.
#[test]
fn an_operator_for_the_whole_cluster_serves_every_namespace() {
    let alone = alone();
    let here = Namespace::create("campaign");
    here.rabbitmq(RabbitMq::V4_0);
    let _operator = Operator::everywhere(&alone);
    campaign(&here);
    here.settled(&[TELNET, ECHO], 240);
    let later = Namespace::create("campaign");
    campaign(&later);
    let why = later.condition(TELNET, "Ready", "False", 60);
    assert!(why.contains("vumi-broker"), "{why}");
}
