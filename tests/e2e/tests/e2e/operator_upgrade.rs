//! A new version of the operator, over a campaign that runs.

use crate::operator::{ECHO, TELNET, call, campaign};
use vumi_e2e::{Namespace, Operator, RabbitMq, image};

/// The pods stay, with the image that they have, and so does who talks to them; the status says that there is a newer one.
/// What dies afterwards comes back, and the next edit takes the new image along.
#[test]
fn an_upgrade_of_the_operator_restarts_no_worker() {
    let here = Namespace::create("upgrade");
    let operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    campaign(&here);
    here.settled(&[TELNET, ECHO], 180);
    let (mut ann, _) = call(&here, TELNET);
    let before = (here.pods(TELNET), here.pods(ECHO));

    operator.upgrade("vumi:next", &[&here]);
    for resource in [TELNET, ECHO] {
        here.condition(resource, "UpdateAvailable", "True", 120);
    }
    let log = operator.place.succeed(&["logs", &operator.leader()], "");
    let old = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(
        log.contains("\"version\":\"") && !log.contains(old),
        "{log}"
    );
    here.settled(&[TELNET, ECHO], 60);
    assert_eq!((here.pods(TELNET), here.pods(ECHO)), before);
    ann.send("still here");
    assert_eq!(ann.hear(30).as_deref(), Some("still here"));

    here.succeed(&["delete", "pod", &before.1[0].name], "");
    here.wait_for("another pod in its place", 60, || {
        let pods = here.pods(ECHO);
        let replaced = pods.len() == 1 && pods[0].uid != before.1[0].uid;
        replaced.then_some(()).ok_or(format!("{pods:?}"))
    });
    here.settled(&[TELNET, ECHO], 120);
    assert_eq!(here.pods(ECHO)[0].image, image("vumi:e2e"));
    ann.send("and again");
    assert_eq!(ann.hear(30).as_deref(), Some("and again"));

    let edit = r#"{"spec": {"holdLimit": "21s"}}"#;
    here.succeed(&["patch", ECHO, "--type=merge", "--patch", edit], "");
    here.wait_for("the edited worker has the new image", 120, || {
        let pods = here.pods(ECHO);
        let new = !pods.is_empty() && pods.iter().all(|pod| pod.image == image("vumi:next"));
        new.then_some(()).ok_or(format!("{pods:?}"))
    });
    here.settled(&[TELNET, ECHO], 120);
    assert_eq!(here.pods(TELNET), before.0);
    ann.send("with the new one");
    assert_eq!(ann.hear(30).as_deref(), Some("with the new one"));
}
