//! Workers of one queue, and the brokers on which they are.

use super::{echo, judge, telnet};
use vumi_api::Target;
use vumi_api::manifest::{campaign_findings, load};

#[test]
fn workers_of_one_queue_on_two_brokers_never_hear_each_other() {
    let at = |broker: &str| match broker {
        "" => String::new(),
        broker => format!("  broker: {{{broker}}}\n"),
    };
    let pair = |transport: &str, application: &str, more: &[String], target| {
        let mut documents = vec![
            telnet("t", 9010) + &at(transport),
            echo("e", "t") + &at(application),
        ];
        documents.extend_from_slice(more);
        let read = load(&[("c.yaml", documents.join("---\n"))], target);
        assert!(!read.has_errors(), "{:?}", read.findings);
        let found = campaign_findings(&read).into_iter();
        let found = found.filter(|f| f.code == "campaign.broker_split");
        found.map(|f| f.to_string()).collect::<Vec<_>>()
    };
    let secret = |name: &str, url: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{connection_string: \"{url}\"}}\n"
        )
    };
    let found = pair(
        "secretRef: {name: a}",
        "secretRef: {name: b}",
        &[],
        Target::Cluster,
    );
    assert_eq!(
        found,
        [
            "c.yaml:6:3 spec.broker: warning: transport/t: application/e consumes t.inbound, but on the broker of Secret b and \
          not on the broker of Secret a: they never hear each other; give both the same `broker`; application/e is at c.yaml:8"
        ]
    );
    for (transport, application, target, split) in [
        ("", "", Target::Local, false),
        ("", "secretRef: {name: a}", Target::Local, true),
        ("", "secretRef: {name: vumi-broker}", Target::Cluster, false),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, vhost: /",
            Target::Cluster,
            false,
        ),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, vhost: /b",
            Target::Cluster,
            true,
        ),
        (
            "secretRef: {name: a}",
            "secretRef: {name: a}, profile: quorum",
            Target::Cluster,
            true,
        ),
    ] {
        let found = pair(transport, application, &[], target);
        assert_eq!(
            found.len(),
            usize::from(split),
            "{transport} {application}: {found:?}"
        );
    }
    let (a, b) = ("secretRef: {name: a}", "secretRef: {name: b}");
    let same = [
        secret("a", "amqp://u:one@h:5672/v"),
        secret("b", "amqp://w:two@h:5672/v"),
    ];
    assert_eq!(
        pair(a, b, &same, Target::Local),
        [""; 0],
        "two users of one broker"
    );
    let other = [
        secret("a", "amqp://u:one@h:5672/v"),
        secret("b", "amqp://u:one@h:5672/w"),
    ];
    assert_eq!(pair(a, b, &other, Target::Local).len(), 1);
    // The command line names one broker for all.
    let text = [telnet("t", 9010) + &at(a), echo("e", "t") + &at(b)].join("---\n");
    let mut read = load(&[("c.yaml", text)], Target::Local);
    read.one_broker = true;
    assert_eq!(campaign_findings(&read), []);
}

#[test]
fn one_name_on_two_brokers_is_two_queues() {
    let on = |secret: &str| format!("  broker: {{secretRef: {{name: {secret}}}}}\n");
    let both = [
        telnet("t", 9010) + &on("a"),
        echo("e", "t") + &on("a"),
        telnet("u", 9011) + "  transportName: t\n" + &on("b"),
        echo("f", "t") + &on("b"),
    ];
    assert_eq!(judge(&both, Target::Cluster), []);
}
