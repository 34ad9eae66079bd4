//! Autoscaling: bounded, calm, and never led astray by a reading that failed (K8, K19).

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::time::Duration as Length;
use vumi_api::Duration;
use vumi_api::shared::Autoscaling;
use vumi_plan::{Demand, Reason, Scaler};

/// Between two looks, in seconds.
const EVERY: i64 = 5;

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_800_000_000 + second)
}

fn bounds(least: u16, most: u16) -> Autoscaling {
    Autoscaling {
        min_replicas: Some(least),
        max_replicas: most,
        ..Autoscaling::default()
    }
}

fn demand(ready: u64, arriving: f64) -> Demand {
    Demand {
        ready,
        arriving,
        handled: Some(arriving),
        declared: true,
        nothing_kept: true,
        ..Demand::default()
    }
}

/// Looks once every five seconds for so long, and gives back the number of pods after each look.
fn run(
    scaler: &mut Scaler,
    bounds: &Autoscaling,
    seconds: std::ops::Range<i64>,
    mut sees: impl FnMut(i64, u16) -> Option<Demand>,
) -> Vec<u16> {
    let mut all = Vec::new();
    for second in seconds.step_by(EVERY as usize) {
        let replicas = scaler.decision().replicas;
        let demand = sees(second, replicas);
        *scaler = scaler
            .clone()
            .step(bounds, demand.as_ref(), replicas.into(), at(second));
        all.push(scaler.decision().replicas);
    }
    all
}

#[test]
fn a_backlog_brings_pods_step_by_step_and_says_why() {
    let bounds = bounds(1, 20);
    let mut scaler = Scaler::begin(1, at(0));
    let pods = run(&mut scaler, &bounds, 0..61, |_, _| Some(demand(1240, 0.0)));
    assert_eq!(pods[0], 5);
    assert_eq!(pods.last(), Some(&13));
    // Pods that were asked for are given time to start.
    assert_eq!(pods[..7], [5, 5, 5, 10, 10, 10, 13]);
    let decision = scaler.decision();
    assert_eq!(decision.reason, Reason::BacklogDemands);
    assert_eq!(
        decision.message,
        "13 pods: 1240 messages wait or are in hand, and there is one pod for 100"
    );
}

#[test]
fn messages_in_hand_count() {
    let mut scaler = Scaler::begin(1, at(0));
    let in_hand = Demand {
        unacked: 250,
        ..demand(0, 0.0)
    };
    let pods = run(&mut scaler, &bounds(1, 20), 0..30, |_, _| Some(in_hand));
    assert_eq!(pods.last(), Some(&3));
}

#[test]
fn a_rate_brings_pods_before_a_backlog_does() {
    let bounds = Autoscaling {
        rate_per_replica: Some(50),
        ..bounds(1, 20)
    };
    let mut scaler = Scaler::begin(1, at(0));
    run(&mut scaler, &bounds, 0..60, |_, _| Some(demand(3, 180.0)));
    let decision = scaler.decision();
    assert_eq!(
        (decision.replicas, decision.reason),
        (4, Reason::RateDemands)
    );
    assert!(
        decision.message.contains("180.0 messages come each second"),
        "{}",
        decision.message
    );
}

#[test]
fn fewer_pods_only_after_a_while_and_never_sooner() {
    let bounds = Autoscaling {
        scale_down_after: Some(Duration(Length::from_secs(120))),
        ..bounds(2, 10)
    };
    let mut scaler = Scaler::begin(8, at(0));
    let pods = run(&mut scaler, &bounds, 0..200, |_, _| Some(demand(0, 0.0)));
    let first = pods.iter().position(|pods| *pods == 2).unwrap() as i64 * EVERY;
    assert_eq!(first, 120);
    assert_eq!(scaler.decision().reason, Reason::AtMinimum);
    // One busy moment is remembered for as long.
    let mut scaler = Scaler::begin(8, at(0));
    let pods = run(&mut scaler, &bounds, 0..400, |second, _| {
        Some(demand(if second == 100 { 500 } else { 0 }, 0.0))
    });
    let first = pods.iter().position(|pods| *pods == 2).unwrap() as i64 * EVERY;
    assert_eq!(first, 225);
    assert_eq!(pods.iter().min(), Some(&2));
}

#[test]
fn no_pods_while_nothing_waits_and_one_with_the_first_message() {
    let bounds = bounds(0, 10);
    let mut scaler = Scaler::begin(1, at(0));
    let pods = run(&mut scaler, &bounds, 0..301, |_, _| Some(demand(0, 0.0)));
    assert_eq!((pods[59], pods[60]), (1, 0));
    assert_eq!(scaler.decision().reason, Reason::Idle);
    let pods = run(&mut scaler, &bounds, 305..400, |_, _| Some(demand(1, 0.0)));
    assert_eq!(pods[0], 1);
    assert_eq!(scaler.decision().reason, Reason::Woken);
}

#[test]
fn the_last_pod_stays_while_not_everything_is_seen() {
    for (declared, nothing_kept) in [(false, true), (true, false)] {
        let mut scaler = Scaler::begin(1, at(0));
        let hidden = Demand {
            declared,
            nothing_kept,
            ..demand(0, 0.0)
        };
        let pods = run(&mut scaler, &bounds(0, 10), 0..3000, |_, _| Some(hidden));
        assert!(
            pods.iter().all(|pods| *pods == 1),
            "{declared} {nothing_kept}"
        );
    }
    // A queue that was deleted meanwhile would lose what is published.
    let mut scaler = Scaler::begin(0, at(0));
    let missing = Demand {
        declared: false,
        ..demand(0, 0.0)
    };
    run(&mut scaler, &bounds(0, 10), 0..5, |_, _| Some(missing));
    assert_eq!(
        (scaler.decision().replicas, scaler.decision().reason),
        (1, Reason::Woken)
    );
    // What it keeps was looked at before the last pod went; there is nobody left to say it.
    let mut scaler = Scaler::begin(0, at(0));
    let silent = Demand {
        nothing_kept: false,
        ..demand(0, 0.0)
    };
    let pods = run(&mut scaler, &bounds(0, 10), 0..900, |_, _| Some(silent));
    assert!(pods.iter().all(|pods| *pods == 0));
}

#[test]
fn a_reading_that_failed_is_not_zero() {
    let bounds = bounds(1, 10);
    let mut scaler = Scaler::begin(6, at(0));
    let pods = run(&mut scaler, &bounds, 0..3600, |_, _| None);
    assert!(pods.iter().all(|pods| *pods == 6));
    // After a gap, quiet has to be seen for the whole time again.
    let pods = run(&mut scaler, &bounds, 3600..4200, |_, _| {
        Some(demand(0, 0.0))
    });
    assert_eq!(pods.iter().position(|pods| *pods == 1), Some(60));
}

#[test]
fn who_sleeps_while_nobody_can_look_is_woken() {
    let mut scaler = Scaler::begin(0, at(0));
    let pods = run(&mut scaler, &bounds(0, 10), 0..600, |_, _| None);
    assert_eq!(pods.iter().position(|pods| *pods == 1), Some(12));
    assert_eq!(scaler.decision().reason, Reason::WokenBlind);
    // It sleeps again when somebody has looked for long enough.
    let pods = run(&mut scaler, &bounds(0, 10), 600..1200, |_, _| {
        Some(demand(0, 0.0))
    });
    assert_eq!(pods.last(), Some(&0));
}

#[test]
fn more_pods_do_not_help_where_the_peer_is_away() {
    let away = Demand {
        hindered: true,
        ..demand(100_000, 500.0)
    };
    let mut scaler = Scaler::begin(2, at(0));
    let pods = run(&mut scaler, &bounds(0, 10), 0..1200, |_, _| Some(away));
    assert!(pods.iter().all(|pods| *pods == 2));
    // But who sleeps is woken: somebody has to find out.
    let mut scaler = Scaler::begin(0, at(0));
    run(&mut scaler, &bounds(0, 10), 0..5, |_, _| Some(away));
    assert!(scaler.decision().replicas > 0);
}

#[test]
fn that_the_bounds_limit_is_said_once_it_lasts() {
    let bounds = bounds(1, 5);
    let mut scaler = Scaler::begin(5, at(0));
    run(&mut scaler, &bounds, 0..60, |_, _| Some(demand(1200, 0.0)));
    assert_eq!(scaler.decision().reason, Reason::FirstDecision);
    run(&mut scaler, &bounds, 60..70, |_, _| Some(demand(1200, 0.0)));
    let said = scaler.decision().clone();
    assert_eq!(said.reason, Reason::AtMaximum);
    assert!(
        said.message
            .contains("maxReplicas is 5, and 12 would be needed"),
        "{}",
        said.message
    );
    // And then no more.
    run(&mut scaler, &bounds, 70..900, |second, _| {
        Some(demand(1200 + second as u64, 0.0))
    });
    assert_eq!(scaler.decision(), &said);
}

#[test]
fn new_bounds_hold_at_once() {
    let mut scaler = Scaler::begin(8, at(0));
    run(&mut scaler, &bounds(1, 4), 0..5, |_, _| None);
    assert_eq!(
        (scaler.decision().replicas, scaler.decision().reason),
        (4, Reason::OutOfBounds)
    );
    run(&mut scaler, &bounds(6, 9), 5..10, |_, _| {
        Some(demand(0, 0.0))
    });
    assert_eq!(scaler.decision().replicas, 6);
}

#[test]
fn another_operator_goes_on_from_the_status() {
    let mut scaler = Scaler::begin(1, at(0));
    run(&mut scaler, &bounds(1, 9), 0..5, |_, _| {
        Some(demand(500, 0.0))
    });
    let status = vumi_api::AutoscalingStatus::from(scaler.decision());
    let resumed = Scaler::resume(&status, at(60));
    assert_eq!(resumed.decision(), scaler.decision());
    assert_eq!(
        vumi_api::AutoscalingStatus::from(resumed.decision()),
        status
    );
}

/// A queue whose pods handle so much each second; messages come evenly.
struct Plant {
    backlog: f64,
    per_pod: f64,
}

impl Plant {
    fn look(&mut self, arriving: f64, replicas: u16) -> Demand {
        let able = f64::from(replicas) * self.per_pod;
        let there = self.backlog + arriving * EVERY as f64;
        let handled = (able * EVERY as f64).min(there);
        self.backlog = there - handled;
        Demand {
            handled: Some(handled / EVERY as f64),
            ..demand(self.backlog as u64, arriving)
        }
    }
}

/// What pods handle is learnt while messages wait, so that the load that made them necessary does not make them go.
#[test]
fn a_steady_load_settles_and_stays() {
    let bounds = bounds(1, 50);
    let mut plant = Plant {
        backlog: 0.0,
        per_pod: 20.0,
    };
    let mut scaler = Scaler::begin(1, at(0));
    run(&mut scaler, &bounds, 0..1800, |_, pods| {
        Some(plant.look(150.0, pods))
    });
    let settled = scaler.decision().replicas;
    assert!((8..=10).contains(&settled), "{settled}");
    let pods = run(&mut scaler, &bounds, 1800..7200, |_, pods| {
        Some(plant.look(150.0, pods))
    });
    assert!(pods.iter().all(|pods| *pods == settled), "{pods:?}");
    assert!(plant.backlog < 1.0);
}

fn any_demand() -> impl Strategy<Value = Option<Demand>> {
    let some = (
        0..50_000u64,
        0..5_000u64,
        0.0..2_000.0f64,
        proptest::option::of(0.0..2_000.0f64),
        any::<(bool, bool, bool)>(),
    );
    let some = some.prop_map(
        |(ready, unacked, arriving, handled, (declared, nothing_kept, hindered))| Demand {
            ready,
            unacked,
            arriving,
            handled,
            declared,
            nothing_kept,
            hindered,
        },
    );
    proptest::option::weighted(0.8, some)
}

proptest! {
    #[test]
    fn never_out_of_bounds_and_never_zero_unless_asked_for(
        least in 0..5u16, more in 0..20u16, begins in 0..40u16,
        sees in proptest::collection::vec(any_demand(), 1..200),
    ) {
        let bounds = bounds(least, (least + more).max(1));
        let mut scaler = Scaler::begin(begins, at(0));
        for (n, demand) in sees.iter().enumerate() {
            let before = scaler.decision().clone();
            scaler = scaler.step(&bounds, demand.as_ref(), u32::from(before.replicas), at(n as i64 * EVERY));
            let after = scaler.decision();
            prop_assert!((bounds.least()..=bounds.most()).contains(&after.replicas));
            prop_assert!(!after.message.is_empty() && after.message.len() <= 1024);
            // The same number has the same words, but for the limit that is said late.
            if after.replicas == before.replicas && after.reason != Reason::AtMaximum {
                prop_assert_eq!(after, &before);
            }
            // Nothing that could not be read makes pods go, and what waits makes nobody sleep.
            if demand.is_none() && n > 0 {
                prop_assert!(after.replicas >= before.replicas);
            }
            if demand.is_some_and(|demand| demand.ready > 0) {
                prop_assert!(after.replicas > 0);
            }
        }
    }

    #[test]
    fn the_same_looks_give_the_same_decisions(sees in proptest::collection::vec(any_demand(), 1..50)) {
        let all = || {
            let mut scaler = Scaler::begin(3, at(0));
            for (n, demand) in sees.iter().enumerate() {
                scaler = scaler.step(&bounds(0, 9), demand.as_ref(), 3, at(n as i64 * EVERY));
            }
            scaler
        };
        prop_assert_eq!(all(), all());
    }

    /// A load that is constant but for some noise changes nothing once it has been met.
    #[test]
    fn noise_changes_nothing(
        level in 1.0..3_000.0f64, by_rate in any::<bool>(),
        noise in proptest::collection::vec(-0.04..0.04f64, 300),
    ) {
        let bounds = Autoscaling { rate_per_replica: Some(10), ..bounds(1, 1000) };
        let mut scaler = Scaler::begin(1, at(0));
        let mut noise = noise.into_iter().cycle();
        let mut sees = |_: i64, _: u16| {
            let now = level * (1.0 + noise.next().unwrap());
            Some(match by_rate {
                true => demand(0, now),
                false => demand((now * 10.0) as u64, 0.0),
            })
        };
        // The highest of the noise may come too soon after a growth, and then again after the next one.
        run(&mut scaler, &bounds, 0..6000, &mut sees);
        let met = scaler.decision().clone();
        run(&mut scaler, &bounds, 6000..13_200, &mut sees);
        prop_assert_eq!(scaler.decision(), &met);
    }

    /// Whoever sees more at every look has at least as many pods.
    #[test]
    fn more_to_do_is_never_fewer_pods(
        sees in proptest::collection::vec((0..5_000u64, 0..200u64, 0.0..50.0f64, 0.0..20.0f64), 1..150),
    ) {
        let bounds = Autoscaling { rate_per_replica: Some(5), ..bounds(0, 40) };
        let (mut less, mut more) = (Scaler::begin(1, at(0)), Scaler::begin(1, at(0)));
        for (n, (ready, extra, arriving, faster)) in sees.into_iter().enumerate() {
            let now = at(n as i64 * 60);
            less = less.step(&bounds, Some(&demand(ready, arriving)), 1, now);
            more = more.step(&bounds, Some(&demand(ready + extra, arriving + faster)), 1, now);
            prop_assert!(more.decision().replicas >= less.decision().replicas);
        }
    }

    /// Whatever the load and the pods, a steady load is met, and then nothing changes any more.
    #[test]
    fn every_steady_load_is_met(arriving in 1.0..400.0f64, per_pod in 4.0..100.0f64) {
        let bounds = bounds(1, 200);
        let mut plant = Plant { backlog: 0.0, per_pod };
        let mut scaler = Scaler::begin(1, at(0));
        run(&mut scaler, &bounds, 0..7200, |_, pods| Some(plant.look(arriving, pods)));
        let met = scaler.decision().replicas;
        prop_assert!(f64::from(met) * per_pod >= arriving * 0.999, "{} pods of {}", met, per_pod);
        let pods = run(&mut scaler, &bounds, 7200..14400, |_, pods| Some(plant.look(arriving, pods)));
        prop_assert!(pods.iter().all(|pods| *pods == met), "{:?}", pods);
    }
}
