//! A new password, while the campaign runs.

use crate::operator::{ECHO, GREETING, TELNET, call, campaign};
use std::collections::BTreeSet;
use std::time::Instant;
use vumi_e2e::{Namespace, Operator, Pod, RabbitMq, kill_containers, own_cluster, secret_file};

/// The broker's password is changed: within a minute the pods of exactly those that read its Secret are told and have it seconds
/// later, no pod at all is replaced or restarted, and who loses a connection comes back with the new one.
#[test]
fn a_new_password_reaches_exactly_those_who_use_it_without_a_restart() {
    let here = Namespace::create("secrets");
    let operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    here.ready("deployment/rabbitmq", 180);
    user(&here, "before-rotation");
    here.apply(SECRET);
    campaign(&here);
    let own = r#"{"spec": {"broker": {"secretRef": {"name": "echo-broker"}}}}"#;
    here.succeed(&["patch", ECHO, "--type=merge", "--patch", own], "");
    here.settled(&[TELNET, ECHO], 240);
    let before = (here.pods(TELNET), here.pods(ECHO));
    let told = |pod: &str| {
        let pod = here.get(&format!("pod/{pod}"))?;
        let revision = &pod["metadata"]["annotations"]["vumi.dev/secret-revision"];
        Ok::<_, String>(revision.as_str().unwrap_or_default().to_owned())
    };
    let telnet = told(&before.0[0].name);
    let echo = told(&before.1[0].name);

    let (mut ann, _) = call(&here, TELNET);
    let others = (here.pods_by("app=rabbitmq"), operator.pods());

    user(&here, "after-rotation");
    let new = r#"{"stringData": {"password": "after-rotation"}}"#;
    here.succeed(&["patch", "secret/echo-broker", "--patch", new], "");
    let changed = Instant::now();
    // A minute until it is noticed, and a moment to do it.
    here.wait_for("its reader is told", 65, || {
        let now = told(&before.1[0].name)?;
        (Ok(&now) != echo.as_ref()).then_some(()).ok_or(now)
    });
    println!("told after {:.1} s", changed.elapsed().as_secs_f32());
    if own_cluster() {
        here.wait_for("its reader has it", 10, || {
            let read = secret_file(&before.1[0], "echo-broker", "password")?;
            (read == "after-rotation").then_some(()).ok_or(read)
        });
        println!("there after {:.1} s", changed.elapsed().as_secs_f32());
    }
    let only = BTreeSet::from(["Application/echo".to_owned()]);
    assert_eq!(told_of_a_change(&here), only);
    // Without its connection it comes back, which needs the new one.
    disconnect(&here, "echo");
    ann.send("with the new one");
    assert_eq!(ann.hear(60).as_deref(), Some("with the new one"));
    are_again(&here, &before);
    assert_eq!((here.pods_by("app=rabbitmq"), operator.pods()), others);
    // A broker that starts anew lets nobody in with the old one.
    if own_cluster() {
        let broker = here.pods_by("app=rabbitmq");
        kill_containers(&broker);
        here.wait_for("RabbitMQ runs again", 120, || {
            let now = here.pods_by("app=rabbitmq");
            let again = now
                .iter()
                .all(|pod| pod.ready && pod.restarts > broker[0].restarts);
            again.then_some(()).ok_or(format!("{now:?}"))
        });
    }
    // While the broker is away, callers are told so.
    let mut ann = here.wait_for("a caller is answered", 60, || {
        let (caller, said) = call(&here, TELNET);
        (said == GREETING).then_some(caller).ok_or(said)
    });
    ann.send("hello");
    assert_eq!(ann.hear(60).as_deref(), Some("hello"));
    are_again(&here, &before);
    assert_eq!(told(&before.0[0].name), telnet);
    // Neither is to be read anywhere.
    let all = "vumi,deployments,pods,configmaps,services,serviceaccounts,events.events.k8s.io";
    let mut shown = here.succeed(&["get", all, "--output", "yaml"], "");
    for pod in before.0.iter().chain(&before.1) {
        shown += &here.succeed(&["logs", &pod.name], "");
    }
    for pod in operator.pods() {
        shown += &operator.place.succeed(&["logs", &pod.name], "");
    }
    for password in ["not-guest", "before-rotation", "after-rotation"] {
        assert!(!shown.contains(password), "{password} in {shown}");
    }
}

/// Waits until the pods of the two workers are those of before, as ready as they were: none was replaced or started again.
fn are_again(here: &Namespace, before: &(Vec<Pod>, Vec<Pod>)) {
    here.settled(&[TELNET, ECHO], 120);
    here.wait_for("the pods are as they were", 60, || {
        let now = (here.pods(TELNET), here.pods(ECHO));
        (now == *before)
            .then_some(())
            .ok_or_else(|| format!("{now:?}, and not {before:?}"))
    });
}

/// Whose pods were told that a Secret has changed, by the events.
fn told_of_a_change(here: &Namespace) -> BTreeSet<String> {
    here.wait_for("an event of the change", 30, || {
        let events = here.get("events.events.k8s.io")?;
        let items = events["items"].as_array().into_iter().flatten();
        let told = items.filter(|event| event["reason"] == "SecretChanged");
        let whose = told.map(|event| {
            let text = |field: &str| event["regarding"][field].as_str().unwrap_or_default();
            format!("{}/{}", text("kind"), text("name"))
        });
        let whose: BTreeSet<String> = whose.collect();
        match whose.is_empty() {
            true => Err(events.to_string()),
            false => Ok(whose),
        }
    })
}

/// Takes all connections of a user of RabbitMQ away.
fn disconnect(here: &Namespace, user: &str) {
    let what = format!("DELETE /api/connections/username/{user} HTTP/1.1");
    let ask = [
        what.as_str(),
        "Host: rabbitmq",
        "Authorization: Basic '$(printf vumi:not-guest | base64)'",
        "Connection: close",
    ];
    // It hears the answer as long as it has not said all.
    let ask = format!("(printf '{}\\r\\n\\r\\n'; sleep 3)", ask.join("\\r\\n"));
    here.wait_for("the connections are gone", 30, || {
        let answer = here.in_client(&format!("{ask} | timeout 20 nc rabbitmq 15672"))?;
        answer.contains(" 204 ").then_some(()).ok_or(answer)
    });
}

/// Makes the user `echo` with this password, or gives it to the one that is there.
fn user(here: &Namespace, password: &str) {
    let rights =
        r#"{"user": "echo", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}"#;
    let user = format!(r#"{{"name": "echo", "password": "{password}", "tags": "monitoring"}}"#);
    let definitions = format!(r#"{{"users": [{user}], "permissions": [{rights}]}}"#);
    here.wait_for("the user is known", 60, || {
        here.manage("definitions", &definitions)
    });
}

const SECRET: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: echo-broker}
stringData: {host: rabbitmq, port: "5672", username: echo, password: before-rotation}
"#;
