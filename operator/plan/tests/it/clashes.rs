//! Who may read a queue that several want (K18).

use crate::resource;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use vumi_plan::{BrokerIdentity, Claim, Outcome, Reason, clashes};

fn broker(vhost: &str) -> Option<BrokerIdentity> {
    Some(BrokerIdentity {
        cluster: "rabbit@one".into(),
        vhost: vhost.into(),
    })
}

fn claim(uid: &str, second: i64, kind: &str, spec: &str) -> Claim {
    let resource = resource(kind, spec);
    let created = Timestamp::from_second(second).unwrap();
    Claim::of(&resource, "a", uid, created, broker("/"))
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
    for elsewhere in [broker("tenant"), None] {
        let moved = Claim {
            broker: elsewhere,
            ..tenant.clone()
        };
        assert!(clashes(&[echo.clone(), moved]).is_empty());
    }
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
    ) -> Claim {
        Claim {
            uid: format!("{uid:02}"),
            created: Timestamp::from_second(second).unwrap(),
            queues: queues.iter().map(|q| format!("q{q}")).collect(),
            broker: broker(&vhost.to_string()),
            ..claim("x", 0, "Application", "echo: {}, transportName: t")
        }
    }
}

proptest! {
    #[test]
    fn one_reader_for_each_queue_whatever_the_order(mut claims in proptest::collection::vec(some_claim(), 0..10)) {
        claims.sort_by_key(|claim| claim.uid.clone());
        claims.dedup_by_key(|claim| claim.uid.clone());
        let lost = clashes(&claims);
        let winners: Vec<&Claim> = claims.iter().filter(|claim| !lost.contains_key(&claim.uid)).collect();
        for (n, one) in winners.iter().enumerate() {
            for other in &winners[..n] {
                let shared = one.queues.intersection(&other.queues).next();
                prop_assert!(one.broker != other.broker || shared.is_none());
            }
        }
        for (uid, clash) in &lost {
            let loser = claims.iter().find(|claim| &claim.uid == uid).unwrap();
            let winner = winners.iter().find(|claim| claim.uid == clash.winner).unwrap();
            prop_assert!((winner.created, &winner.uid) < (loser.created, &loser.uid));
            prop_assert!(winner.queues.contains(&clash.queue) && loser.queues.contains(&clash.queue));
        }
        claims.reverse();
        prop_assert_eq!(clashes(&claims), lost);
    }
}
