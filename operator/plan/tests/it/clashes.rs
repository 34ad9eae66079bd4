//! Who may read a queue that several want (K18).

use crate::resource;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use vumi_plan::{BrokerIdentity, Claim, Clash, Outcome, Reason};

fn broker(vhost: &str) -> BrokerIdentity {
    BrokerIdentity {
        cluster: "rabbit@one".into(),
        vhost: vhost.into(),
    }
}

/// Of claims on one virtual host.
fn clashes(claims: &[Claim]) -> BTreeMap<String, Clash> {
    let broker = broker("/");
    vumi_plan::clashes(claims.iter().map(|claim| (&broker, claim)))
}

fn claim(uid: &str, second: i64, kind: &str, spec: &str) -> Claim {
    let resource = resource(kind, spec);
    let created = Timestamp::from_second(second).unwrap();
    Claim::of(&resource, "a", uid, created)
}

#[test]
fn the_older_one_keeps_running_and_the_newer_one_is_told_who_it_is() {
    let echo = claim("1", 10, "Application", "echo: {}, transportName: sms");
    let other = claim("2", 20, "Application", "reverse: {}, transportName: sms");
    let router = claim(
        "3",
        30,
        "Dispatcher",
        "simple: {transports: [sms], exposed: [app]}",
    );
    let transport = claim(
        "4",
        40,
        "Transport",
        "telnet: {port: 9010}, transportName: sms",
    );
    let lost = clashes(&[transport, router, other, echo.clone()]);
    assert_eq!(lost.keys().collect::<Vec<_>>(), ["2", "3"]);
    let clash = &lost["2"];
    assert_eq!((&*clash.queue, &*clash.winner), ("sms.event", "1"));
    assert_eq!(clash.named.as_deref(), Some("application/one"));
    let refusal = clash.refusal();
    assert_eq!(
        (refusal.outcome, refusal.reason),
        (Outcome::Stalled, Reason::QueueClash)
    );
    assert!(
        refusal
            .message
            .contains("application/one reads the queue sms.event")
    );
}

#[test]
fn another_tenant_is_not_named_and_another_virtual_host_does_not_matter() {
    let echo = claim("1", 10, "Application", "echo: {}, transportName: sms");
    let tenant = Claim {
        uid: "2".into(),
        namespace: "b".into(),
        ..echo.clone()
    };
    let lost = clashes(&[echo.clone(), tenant.clone()]);
    assert_eq!(lost["2"].named, None);
    assert!(lost["2"].refusal().message.contains("another namespace"));
    let (here, elsewhere) = (broker("/"), broker("tenant"));
    let lost = vumi_plan::clashes([(&here, &echo), (&elsewhere, &tenant)]);
    assert!(lost.is_empty());
}

#[test]
fn of_equal_age_the_uid_decides_and_who_has_lost_takes_nothing_away() {
    let a = claim("a", 10, "Application", "echo: {}, transportName: x");
    let b = claim(
        "b",
        10,
        "Dispatcher",
        "simple: {transports: [x, w], exposed: [z]}",
    );
    let c = claim("c", 10, "Application", "echo: {}, transportName: w");
    // A dispatcher that has lost reads nothing of w either.
    let lost = clashes(&[c, b, a]);
    assert_eq!(lost.keys().collect::<Vec<_>>(), ["b"]);
}

prop_compose! {
    fn some_claim()(
        uid in 0..12u8, second in 0..4i64, vhost in 0..2u8, queues in proptest::collection::btree_set(0..5u8, 0..4),
    ) -> (BrokerIdentity, Claim) {
        let claim = Claim {
            uid: format!("{uid:02}"),
            created: Timestamp::from_second(second).unwrap(),
            queues: queues.iter().map(|q| format!("q{q}")).collect(),
            ..claim("x", 0, "Application", "echo: {}, transportName: t")
        };
        (broker(&vhost.to_string()), claim)
    }
}

proptest! {
    #[test]
    fn one_reader_for_each_queue_whatever_the_order(mut claims in proptest::collection::vec(some_claim(), 0..10)) {
        let lost = |claims: &[(BrokerIdentity, Claim)]| {
            vumi_plan::clashes(claims.iter().map(|(broker, claim)| (broker, claim)))
        };
        claims.sort_by_key(|(_, claim)| claim.uid.clone());
        claims.dedup_by_key(|(_, claim)| claim.uid.clone());
        let clashes = lost(&claims);
        let winners: Vec<_> = claims.iter().filter(|(_, claim)| !clashes.contains_key(&claim.uid)).collect();
        for (n, (broker, one)) in winners.iter().enumerate() {
            for (of, other) in &winners[..n] {
                let shared = one.queues.iter().any(|queue| other.queues.contains(queue));
                prop_assert!(broker != of || !shared);
            }
        }
        for (uid, clash) in &clashes {
            let (_, loser) = claims.iter().find(|(_, claim)| &claim.uid == uid).unwrap();
            let (_, winner) = winners.iter().find(|(_, claim)| claim.uid == clash.winner).unwrap();
            prop_assert!((winner.created, &winner.uid) < (loser.created, &loser.uid));
            prop_assert!(winner.queues.contains(&clash.queue) && loser.queues.contains(&clash.queue));
        }
        claims.reverse();
        prop_assert_eq!(lost(&claims), clashes);
    }
}
