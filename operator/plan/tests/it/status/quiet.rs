//! The same input gives the same status, and a constant load writes nothing (K7).

use super::World;
use proptest::prelude::*;
use vumi_api::{ConditionType, Status};
use vumi_plan::{Memory, Outcome, Problem, Reason, Refusal, Unread, Workload, status};

#[test]
fn a_constant_load_with_its_noise_writes_nothing() {
    let mut world = World::running("Transport", "devNull: {}");
    world.says("provider", "ok", "provider_answered", "it answers");
    world.pass(120);
    let writes = world.writes;
    let depths = [0, 3, 0, 1, 7, 0, 0, 12, 0, 2];
    for n in 0..720usize {
        world.reads(depths[n % depths.len()], 1);
        let rate = 100.0 + (n % 7) as f64;
        let queues = world.broker.queues.values_mut();
        queues.for_each(|queue| (queue.handled, queue.unacked) = (Some(rate), Some(n as u64 % 90)));
        // The peer fails now and then, each time with other words.
        let (level, reason) = match n % 10 {
            3 => ("degraded", "provider_failed"),
            _ => ("ok", "provider_answered"),
        };
        world.says("provider", level, reason, &format!("answer {n}"));
        world.pass(5);
    }
    assert_eq!(world.writes, writes, "{:#?}", world.status);
}

#[test]
fn a_backlog_that_grows_is_one_write_for_each_class() {
    let mut world = World::running("Transport", "devNull: {}");
    world.pass(120);
    assert_eq!(world.status.backlog.as_deref(), Some("0"));
    let writes = world.writes;
    for n in 0..720u64 {
        world.reads(n * n / 40, 1);
        world.pass(5);
    }
    assert_eq!(world.status.backlog.as_deref(), Some("10k+"));
    assert_eq!(world.writes - writes, 3);
}

/// Some state of a resource, one of very many.
#[derive(Clone, Debug)]
struct Seen {
    generation: i64,
    refusal: Option<(Outcome, Reason)>,
    workload: Option<(u32, u32, u32, bool, bool)>,
    problem: Option<Reason>,
    reports: Vec<(usize, usize)>,
    ready: u64,
    consumers: u32,
    unread: usize,
    step: i64,
}

const SAID: &[(&str, &str)] = &[
    ("provider", "provider_unreachable"),
    ("provider", "provider_answered"),
    ("provider", "provider_credentials"),
    ("queue one.outbound", "too_many_parked"),
    ("queue one.outbound", "queue_type_mismatch"),
    ("target one.inbound", "no_consumer"),
    ("target one.event", "backlog_full"),
    ("state", "state_unavailable"),
    ("broker", "unreachable"),
];

fn seen() -> impl Strategy<Value = Seen> {
    let refusal = prop_oneof![
        Just((Outcome::Stalled, Reason::Invalid)),
        Just((Outcome::Waiting, Reason::SecretMissing)),
        Just((Outcome::Stalled, Reason::QueueClash)),
    ];
    let problem = prop_oneof![
        Just(Reason::CrashLooping),
        Just(Reason::ImageUnavailable),
        Just(Reason::Unschedulable),
    ];
    (
        1..3i64,
        proptest::option::of(refusal),
        proptest::option::of((0..3u32, 0..3u32, 0..3u32, any::<bool>(), any::<bool>())),
        proptest::option::of(problem),
        proptest::collection::vec((0..SAID.len(), 0..3usize), 0..4),
        0..20_000u64,
        (0..3u32, 0..4usize, 0..200i64),
    )
        .prop_map(
            |(
                generation,
                refusal,
                workload,
                problem,
                reports,
                ready,
                (consumers, unread, step),
            )| Seen {
                generation,
                refusal,
                workload,
                problem,
                reports,
                ready,
                consumers,
                unread,
                step,
            },
        )
}

impl World {
    fn becomes(&mut self, seen: &Seen) {
        self.generation = self.generation.max(seen.generation);
        self.refusal = seen.refusal.map(|(outcome, reason)| Refusal {
            outcome,
            reason,
            message: "a sentence".into(),
        });
        self.runs(1);
        self.pods[0].problem = seen.problem.map(|reason| Problem {
            reason,
            message: "a sentence".into(),
            needs_edit: false,
        });
        let hash = self.hash();
        self.workload = seen
            .workload
            .map(|(total, updated, ready, current, late)| Workload {
                wanted: 1,
                total,
                updated,
                ready,
                current,
                late,
                template_hash: hash,
                ..Workload::default()
            });
        self.reads(seen.ready, seen.consumers);
        self.broker.unread = match seen.unread {
            0 => Some(Unread::NotYet),
            1 => Some(Unread::Management("no answer".into())),
            2 => Some(Unread::Broker("no answer".into())),
            _ => None,
        };
        for (said, level) in &seen.reports {
            let (component, reason) = SAID[*said];
            self.says(
                component,
                ["ok", "degraded", "down"][*level],
                reason,
                "a sentence",
            );
        }
        self.second += seen.step;
    }
}

proptest! {
    #[test]
    fn whatever_is_seen_the_status_makes_sense(all in proptest::collection::vec(seen(), 1..30)) {
        let mut world = World::new("Transport", "devNull: {}");
        for seen in &all {
            world.becomes(seen);
            let before = world.status.clone();
            let once = status(&world.observed(), &before, &world.memory).unwrap();
            // The same input, the same output.
            prop_assert_eq!(&status(&world.observed(), &before, &world.memory).unwrap(), &once);
            // What was written is nothing to write again.
            let again = status(&world.observed(), &once.status, &once.memory).unwrap();
            prop_assert_eq!(&again.status, &once.status);
            if let Some(at) = once.again {
                prop_assert!(at > super::at(world.second));
            }
            world.look();
            let status = &world.status;
            // A condition stands once, is of the closed list, and has a known reason.
            let mut kinds: Vec<&str> = status.conditions.iter().map(|c| c.kind.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            prop_assert_eq!(kinds.len(), status.conditions.len());
            for condition in &status.conditions {
                prop_assert!(ConditionType::ALL.iter().any(|kind| kind.as_str() == condition.kind));
                let reason = Reason::find(&condition.reason);
                let place = reason.map(|reason| reason.entry().place).unwrap_or_default();
                prop_assert!(place.split(", ").any(|place| place == condition.kind), "{:?}", condition);
                prop_assert!(!condition.message.is_empty());
            }
            let both = status.is(ConditionType::Stalled) && status.is(ConditionType::Reconciling);
            prop_assert!(!both, "{:?}", status);
            // It survives the way through the API server.
            let object = serde_json::json!({"status": serde_json::to_value(status).unwrap()});
            prop_assert_eq!(&Status::of(&object), status);
        }
    }

    /// While nothing changes, a status settles, and is then never written again, whenever somebody looks.
    #[test]
    fn what_does_not_change_settles(all in proptest::collection::vec(seen(), 1..6)) {
        let mut world = World::new("Transport", "devNull: {}");
        for seen in &all {
            world.becomes(seen);
            world.look();
        }
        let settle = |world: &mut World| {
            for _ in 0..200 {
                world.second += 5;
                world.repeats();
                world.look();
            }
        };
        settle(&mut world);
        let (settled, writes) = (world.status.clone(), world.writes);
        settle(&mut world);
        prop_assert_eq!(world.writes, writes);
        // An operator that takes over agrees.
        world.memory = Memory::default();
        settle(&mut world);
        prop_assert_eq!(&world.status, &settled);
        prop_assert_eq!(world.writes, writes);
    }
}
