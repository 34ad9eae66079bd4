//! A new password, while the campaign runs.

use crate::operator::{ECHO, GREETING, TELNET, call, campaign};
use std::time::Instant;
use vumi_e2e::{Namespace, Operator, RabbitMq, kill_containers, own_cluster};

/// The broker's password is changed: within a minute the pods of exactly those that read its Secret are told, none is
/// replaced, and when the broker starts anew they come back with the new one.
#[test]
fn a_new_password_reaches_exactly_those_who_use_it_without_a_restart() {
    let here = Namespace::create("secrets");
    let _operator = Operator::start(&[&here]);
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

    user(&here, "after-rotation");
    let new = r#"{"stringData": {"password": "after-rotation"}}"#;
    here.succeed(&["patch", "secret/echo-broker", "--patch", new], "");
    let changed = Instant::now();
    here.wait_for("its reader is told", 60, || {
        let now = told(&before.1[0].name)?;
        (Ok(&now) != echo.as_ref()).then_some(()).ok_or(now)
    });
    println!("told after {:.1} s", changed.elapsed().as_secs_f32());
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
    here.settled(&[TELNET, ECHO], 120);
    let now = (here.pods(TELNET), here.pods(ECHO));
    assert_eq!(now, before);
    assert_eq!(told(&before.0[0].name), telnet);
    // Neither is to be read anywhere.
    let all = "vumi,deployments,configmaps,events.events.k8s.io";
    let shown = here.succeed(&["get", all, "--output", "yaml"], "");
    for password in ["not-guest", "before-rotation", "after-rotation"] {
        assert!(!shown.contains(password), "{password} in {shown}");
    }
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
