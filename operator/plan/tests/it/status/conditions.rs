//! Conditions that follow from what workers and the broker say.

use super::{ECHO, World};
use vumi_api::ConditionType as T;
use vumi_plan::{Broker, Queue, Report, Unread};

fn transport() -> World {
    World::running("Transport", "devNull: {}")
}

/// What a worker says of a part, and the condition that follows.
#[test]
fn reports_become_conditions() {
    for (component, level, reason, kind, holds) in [
        (
            "provider",
            "ok",
            "provider_answered",
            T::LinkUp,
            "True/PeerUp",
        ),
        (
            "provider",
            "down",
            "provider_unreachable",
            T::LinkUp,
            "False/PeerDown",
        ),
        (
            "provider",
            "degraded",
            "provider_failed",
            T::LinkUp,
            "True/PeerDegraded",
        ),
        (
            "endpoint",
            "degraded",
            "endpoint_throttles",
            T::LinkUp,
            "True/PeerThrottles",
        ),
        (
            "throttled",
            "degraded",
            "slowed_down",
            T::LinkUp,
            "True/PeerThrottles",
        ),
        ("peer", "down", "restarting", T::LinkUp, "False/PeerDown"),
        (
            "provider",
            "down",
            "provider_credentials",
            T::CredentialsValid,
            "False/CredentialsRefused",
        ),
        (
            "broker",
            "down",
            "refused",
            T::CredentialsValid,
            "False/CredentialsRefused",
        ),
        (
            "queue sms.outbound",
            "degraded",
            "too_many_parked",
            T::Paused,
            "True/TooManyParked",
        ),
        (
            "target sms.inbound",
            "degraded",
            "backlog_full",
            T::BacklogFull,
            "True/LimitReached",
        ),
        (
            "target sms.inbound",
            "degraded",
            "no_consumer",
            T::NoConsumer,
            "True/NobodyReads",
        ),
        ("state", "ok", "up", T::StateHealthy, "True/StoreUp"),
        (
            "state",
            "down",
            "state_unavailable",
            T::StateHealthy,
            "False/StateUnavailable",
        ),
        (
            "state",
            "degraded",
            "state_not_durable",
            T::StateHealthy,
            "False/StateNotDurable",
        ),
    ] {
        let mut world = transport();
        world.says(component, level, reason, "a sentence");
        world.pass(20);
        assert_eq!(world.is(kind), holds, "{component} {reason}");
        // Whatever the peer and the store do, the pods run and the broker sees them.
        assert_eq!(world.is(T::Ready), "True/Running", "{component} {reason}");
    }
}

#[test]
fn what_is_over_goes() {
    for (kind, component, bad, good) in [
        (
            T::Paused,
            "queue sms.outbound",
            "too_many_parked",
            "consuming",
        ),
        (
            T::BacklogFull,
            "target sms.inbound",
            "backlog_full",
            "flowing",
        ),
        (
            T::NoConsumer,
            "target sms.inbound",
            "no_consumer",
            "flowing",
        ),
    ] {
        let mut world = transport();
        world.says(component, "degraded", bad, "a sentence");
        world.pass(20);
        assert!(world.status.is(kind), "{bad}");
        assert!(
            world.message(kind).starts_with("sms."),
            "{}",
            world.message(kind)
        );
        world.says(component, "ok", good, "well again");
        world.pass(80);
        assert_eq!(world.is(kind), "", "{bad}");
    }
}

#[test]
fn the_word_for_the_peer_follows() {
    let mut world = transport();
    assert_eq!(world.status.link, None);
    for (component, level, reason, word) in [
        ("provider", "ok", "provider_answered", "UP"),
        ("provider", "down", "provider_unreachable", "DOWN"),
        ("provider", "degraded", "provider_failed", "DEGRADED"),
        ("provider", "degraded", "provider_throttles", "THROTTLED"),
        ("bind 1", "ok", "bound", "THROTTLED"),
        ("provider", "ok", "provider_answered", "BOUND"),
    ] {
        world.says(component, level, reason, "a sentence");
        world.pass(20);
        assert_eq!(world.status.link.as_deref(), Some(word), "{reason}");
    }
    // One bind of two will do.
    world.says("bind 2", "down", "refused", "a sentence");
    world.pass(20);
    assert_eq!(world.status.link.as_deref(), Some("DEGRADED"));
    world.says("bind 1", "down", "refused", "a sentence");
    world.pass(20);
    assert_eq!(world.is(T::LinkUp), "False/PeerDown");
}

/// An outage of others keeps nobody from being ready who has not asked for that.
#[test]
fn who_requires_its_peer_is_not_ready_without_it() {
    for (spec, down, silent) in [
        ("devNull: {}", "True/Running", "True/Running"),
        (
            "devNull: {}, readiness: {requireLink: true}",
            "False/PeerDown",
            "False/NoReports",
        ),
    ] {
        let mut world = World::running("Transport", spec);
        // A worker that has no peer says nothing of one.
        world.pass(30);
        assert_eq!(world.is(T::Ready), "True/Running", "{spec}");
        world.says("provider", "down", "provider_unreachable", "no answer");
        world.pass(5);
        assert_eq!(world.is(T::Ready), "True/Running", "{spec}: for a moment");
        world.pass(10);
        assert_eq!(world.is(T::LinkUp), "False/PeerDown", "{spec}");
        assert_eq!(world.three(), [down, "", ""], "{spec}");
        world.says("provider", "ok", "provider_answered", "it answers");
        world.pass(15);
        assert_eq!(world.is(T::Ready), "True/Running", "{spec}");
        world.pass(200);
        assert_eq!(world.is(T::LinkUp), "Unknown/NoReports", "{spec}");
        assert_eq!(world.is(T::Ready), silent, "{spec}");
    }
}

/// Who has heard nothing yet does not take that for good news.
#[test]
fn who_requires_its_peer_stays_not_ready_until_it_is_heard_of_again() {
    let away = || {
        let spec = "devNull: {}, readiness: {requireLink: true}";
        let mut world = World::running("Transport", spec);
        world.says("provider", "down", "provider_unreachable", "no answer");
        world.pass(20);
        assert_eq!(world.three(), ["False/PeerDown", "", ""]);
        world
    };
    let answers = |world: &mut World| {
        world.says("provider", "ok", "provider_answered", "it answers");
        world.pass(15);
        assert_eq!(world.three(), ["True/Running", "", ""]);
    };
    // Another operator takes over.
    let mut world = away();
    world.reports.clear();
    world.memory = vumi_plan::Memory::default();
    let broker = std::mem::take(&mut world.broker);
    world.broker.unread = Some(Unread::NotYet);
    let writes = world.writes;
    world.pass(10);
    world.broker = broker;
    world.pass(50);
    assert_eq!(world.writes, writes, "{:#?}", world.status);
    assert_eq!(world.three(), ["False/PeerDown", "", ""]);
    answers(&mut world);
    // Another pod.
    let mut world = away();
    world.reports.clear();
    world.workload.as_mut().unwrap().updated = 0;
    world.look();
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
    world.runs(1);
    world.look();
    assert_eq!(world.three(), ["False/PeerDown", "", ""]);
    world.pass(60);
    assert_eq!(world.three(), ["False/PeerDown", "", ""]);
    // Nobody can tell any more.
    world.pass(60);
    assert_eq!(world.three(), ["False/NoReports", "", ""]);
    answers(&mut world);
}

#[test]
fn silence_is_never_the_last_green() {
    let mut world = transport();
    world.says("provider", "ok", "provider_answered", "it answers");
    world.look();
    assert_eq!(world.is(T::LinkUp), "True/PeerUp");
    world.pass(170);
    assert_eq!(world.is(T::LinkUp), "True/PeerUp");
    world.pass(200);
    assert_eq!(world.is(T::LinkUp), "Unknown/NoReports");
    assert_eq!(world.status.link.as_deref(), Some("UNKNOWN"));
    world.says("provider", "ok", "provider_answered", "it answers");
    world.pass(15);
    assert_eq!(world.is(T::LinkUp), "True/PeerUp");
}

/// An operator that takes over has heard of nobody for up to a minute, and remembers nothing.
#[test]
fn an_operator_that_takes_over_writes_nothing() {
    let mut world = transport();
    world.says("provider", "down", "provider_unreachable", "no answer");
    world.says(
        "queue sms.outbound",
        "degraded",
        "too_many_parked",
        "too many",
    );
    world.says("state", "ok", "up", "redis");
    world.pass(30);
    world.repeats();
    let (writes, reports) = (world.writes, std::mem::take(&mut world.reports));
    world.memory = vumi_plan::Memory::default();
    let broker = std::mem::take(&mut world.broker);
    world.broker.unread = Some(Unread::NotYet);
    world.pass(10);
    world.broker = broker;
    world.pass(50);
    world.reports = reports;
    world.repeats();
    world.pass(60);
    assert_eq!(world.writes, writes, "{:#?}", world.status);
}

#[test]
fn reports_of_other_pods_and_other_resources_do_not_count() {
    let mut world = transport();
    world.says("provider", "down", "provider_unreachable", "no answer");
    world.pods[0].name = "pod-9".into();
    world.pass(30);
    assert_eq!(world.is(T::LinkUp), "");
    let mut world = transport();
    world.says("provider", "down", "provider_unreachable", "no answer");
    world.reports[0].identity.as_mut().unwrap().name = "other".into();
    world.pass(30);
    assert_eq!(world.is(T::LinkUp), "");
}

#[test]
fn a_peer_is_down_when_no_pod_reaches_it() {
    let mut world = World::running("Transport", "devNull: {}, replicas: 2");
    world.says("provider", "down", "provider_unreachable", "no answer");
    let mut other = world.reports[0].clone();
    other.identity.as_mut().unwrap().instance = "pod-1-1".into();
    other.level = vumi_plan::Level::Ok;
    world.reports.push(other);
    world.pass(20);
    assert_eq!(world.is(T::LinkUp), "True/PeerDegraded");
}

#[test]
fn a_program_of_somebody_else_says_it_once() {
    let mut world = World::running("Transport", "custom: {image: a}, transportName: old");
    let body = r#"{"message_type": "status_event", "component": "smpp", "status": "down", "type": "unbound", "message": "no bind"}"#;
    world.reports = vec![Report::parse("old", body.as_bytes(), super::at(0)).unwrap()];
    world.pass(1000);
    assert_eq!(world.is(T::LinkUp), "False/PeerDown");
    assert!(
        world.message(T::LinkUp).ends_with("as it said last"),
        "{}",
        world.message(T::LinkUp)
    );
    assert_eq!(world.status.runtime_version, None);
}

#[test]
fn without_pods_there_is_no_peer() {
    let mut world = World::running("Transport", "devNull: {}");
    world.says("provider", "down", "provider_unreachable", "no answer");
    world.pass(20);
    assert!(world.status.link.is_some());
    world.resource = crate::resource("Transport", "devNull: {}, suspend: true");
    world.desired = crate::built(&world.resource, &crate::context(&world.resource));
    world.runs(0);
    world.pass(30);
    assert_eq!(
        (world.is(T::LinkUp), world.status.link.clone()),
        (String::new(), None)
    );
    assert_eq!(world.is(T::Ready), "True/Suspended");
}

#[test]
fn causes_that_workers_name_explain_pods_that_are_not_ready() {
    for (component, reason, three) in [
        (
            "queue sms.inbound",
            "queue_type_mismatch",
            ["False/QueueTypeMismatch", "", "True/QueueTypeMismatch"],
        ),
        (
            "queue sms.inbound",
            "fence_not_honoured",
            ["False/FenceNotHonoured", "", "True/FenceNotHonoured"],
        ),
        (
            "queue sms.inbound",
            "foreign_consumer",
            ["False/QueueHeldByForeignConsumer", "", ""],
        ),
        ("broker", "refused", ["False/BrokerRefuses", "", ""]),
        ("broker", "blocked", ["False/BrokerBlocked", "", ""]),
        ("state", "state_unavailable", ["False/StoreAway", "", ""]),
        ("listener", "listen_failed", ["False/ListenFailed", "", ""]),
    ] {
        let mut world = World::running("Application", ECHO);
        world.pods[0].ready = false;
        world.workload.as_mut().unwrap().ready = 0;
        world.says(component, "down", reason, "the worker's own words");
        world.look();
        assert_eq!(world.three(), three, "{reason}");
        assert_eq!(world.message(T::Ready), "the worker's own words");
    }
}

#[test]
fn consumers_that_are_missing_are_excused_by_a_pause_or_a_peer_that_is_away() {
    for (component, level, reason) in [
        ("provider", "down", "provider_unreachable"),
        ("queue sms.outbound", "degraded", "too_many_parked"),
    ] {
        let mut world = transport();
        world.says(component, level, reason, "a sentence");
        world.reads(5, 0);
        world.pass(60);
        assert_eq!(world.is(T::Ready), "True/Running", "{reason}");
        // Nor is it said that they are there.
        world.repeats();
        world.pass(65);
        assert_eq!(world.is(T::Ready), "True/Running", "{reason}");
        assert!(
            world.message(T::Ready).contains("do not read all"),
            "{reason}"
        );
    }
    let mut world = transport();
    world.reads(5, 0);
    world.look();
    assert_eq!(world.is(T::Ready), "True/Running");
    world.pass(20);
    assert_eq!(world.is(T::Ready), "False/NotConsuming");
}

#[test]
fn more_consumers_than_pods_are_somebody_elses() {
    let mut world = transport();
    world.reads(0, 2);
    world.pass(30);
    assert_eq!(world.is(T::ForeignConsumer), "");
    world.pass(60);
    assert_eq!(world.is(T::ForeignConsumer), "True/OtherConsumers");
    assert!(world.message(T::ForeignConsumer).contains("one.outbound"));
    assert_eq!(world.is(T::Ready), "True/Running");
    world.reads(0, 1);
    world.pass(65);
    assert_eq!(world.is(T::ForeignConsumer), "");
}

/// Each of its pods may have several; while it has none, they are somebody else's.
#[test]
fn a_program_of_somebody_else_may_have_as_many_consumers_as_it_likes() {
    let mut world = World::running("Transport", "custom: {image: a}, transportName: one");
    world.reads(0, 3);
    world.pass(95);
    assert_eq!(world.is(T::ForeignConsumer), "");
    world.pods.clear();
    world.pass(95);
    assert_eq!(world.is(T::ForeignConsumer), "True/OtherConsumers");
}

#[test]
fn who_cannot_read_depths_says_so_and_nothing_becomes_zero() {
    let mut world = transport();
    world.reads(500, 1);
    world.pass(65);
    assert_eq!(world.status.backlog.as_deref(), Some("100+"));
    world.broker.unread = Some(Unread::Forbidden("401".into()));
    world.pass(30);
    assert_eq!(world.is(T::BacklogKnown), "False/ManagementForbidden");
    assert_eq!(world.status.backlog.as_deref(), Some("100+"));
    world.pass(60);
    assert_eq!(world.status.backlog, None);
    // Consumers are still known.
    assert_eq!(world.is(T::Ready), "True/Running");
}

/// Where only consumers are counted, one queue after the other.
#[test]
fn nobody_is_ready_whose_queues_were_not_asked_for() {
    let counted = |consumers: &[(&str, u32)]| {
        let queue = |&(name, consumers): &(&str, u32)| {
            let queue = Queue {
                consumers: Some(consumers),
                ..Queue::default()
            };
            (name.to_owned(), queue)
        };
        Broker {
            address: None,
            unread: Some(Unread::Forbidden("401".into())),
            queues: consumers.iter().map(queue).collect(),
        }
    };
    let mut world = World::new("Transport", "devNull: {}");
    world.runs(1);
    world.broker = counted(&[("two.outbound", 1)]);
    world.pass(60);
    assert_eq!(world.is(T::Ready), "False/Starting");
    world.broker = counted(&[("one.outbound", 0)]);
    world.pass(60);
    assert_eq!(world.is(T::Ready), "False/NotConsuming");
    world.broker = counted(&[("one.outbound", 1)]);
    world.pass(5);
    assert_eq!(world.is(T::Ready), "True/Running");
    // Of who was ready nothing else is said because nobody could ask.
    world.broker = counted(&[]);
    world.pass(60);
    assert_eq!(world.is(T::Ready), "True/Running");
}

/// What workers say comes over the broker, so that only the operator can tell.
#[test]
fn a_broker_that_is_away_or_refuses_is_told_whatever_pods_say_of_themselves() {
    for (unread, reason) in [
        (Unread::Broker("no answer".into()), "BrokerUnreachable"),
        (Unread::Refused("wrong password".into()), "BrokerRefuses"),
    ] {
        for ready in [0, 1] {
            let mut world = transport();
            world.says("broker", "ok", "up", "connected");
            world.look();
            world.workload.as_mut().unwrap().ready = ready;
            world.broker.unread = Some(unread.clone());
            world.pass(30);
            let told = format!("False/{reason}");
            assert_eq!(world.three(), [told.as_str(), "", ""]);
            assert_eq!(world.is(T::BacklogKnown), told);
            let valid = match reason {
                "BrokerRefuses" => "False/CredentialsRefused",
                _ => "True/CredentialsAccepted",
            };
            assert_eq!(world.is(T::CredentialsValid), valid);
        }
    }
}

#[test]
fn messages_that_wait_before_consumers_that_do_nothing() {
    let mut world = transport();
    world.reads(5, 1);
    world
        .broker
        .queues
        .values_mut()
        .for_each(|queue| queue.handled = Some(0.0));
    world.pass(110);
    assert_eq!(world.is(T::TrafficStalled), "");
    world.pass(20);
    assert_eq!(world.is(T::TrafficStalled), "True/NothingHandled");
    // A broker that keeps no rates accuses nobody.
    let mut world = transport();
    world.reads(5, 1);
    world
        .broker
        .queues
        .values_mut()
        .for_each(|queue| queue.handled = None);
    world.pass(300);
    assert_eq!(world.is(T::TrafficStalled), "");
}

#[test]
fn the_parts_of_a_divided_queue_are_read_too() {
    let divided = || {
        let ordering = "ordering: {mode: perUser, partitions: 2}";
        World::running("Application", &format!("{ECHO}, {ordering}"))
    };
    let part = |ready, consumers| Queue {
        ready,
        unacked: Some(0),
        consumers: Some(consumers),
        arriving: Some(0.0),
        handled: Some(0.0),
    };
    let mut world = divided();
    world.pass(60);
    assert_eq!(world.is(T::Ready), "True/Running", "none is there yet");
    let queues = world.broker.queues.values_mut();
    queues.for_each(|queue| queue.handled = Some(0.0));
    let set = |world: &mut World, name: &str, queue| {
        world.broker.queues.insert(name.to_owned(), queue);
    };
    set(&mut world, "sms.inbound.p0", part(0, 1));
    set(&mut world, "sms.inbound.p1", part(5, 0));
    world.pass(20);
    assert_eq!(world.is(T::Ready), "False/NotConsuming");
    let message = world.message(T::Ready);
    assert!(
        message.ends_with("no consumer on sms.inbound.p1"),
        "{message}"
    );
    // Nobody reads where they wait: that is said by Ready.
    world.pass(180);
    assert_eq!(world.is(T::TrafficStalled), "");
    set(&mut world, "sms.inbound.p1", part(5, 1));
    world.pass(130);
    assert_eq!(world.is(T::Ready), "True/Running");
    assert_eq!(world.is(T::TrafficStalled), "True/NothingHandled");
    // While the old parts are emptied, the new ones are not read.
    let mut world = divided();
    set(&mut world, "sms.inbound.p1", part(0, 0));
    world.says(
        "partitions sms.inbound",
        "degraded",
        "redividing",
        "a sentence",
    );
    world.pass(60);
    assert_eq!(world.is(T::Ready), "True/Running");
}

#[test]
fn an_older_runtime_is_said() {
    let mut world = transport();
    world.desired.update_available = true;
    world.look();
    assert_eq!(world.is(T::UpdateAvailable), "True/RuntimeOutdated");
    assert_eq!(world.status.why, None);
    world.desired.update_available = false;
    world.look();
    assert_eq!(world.is(T::UpdateAvailable), "");
}

#[test]
fn the_first_thing_that_is_wrong_is_in_why() {
    let mut world = transport();
    world.says(
        "provider",
        "down",
        "provider_unreachable",
        "connection refused",
    );
    world.says("target sms.inbound", "degraded", "no_consumer", "nobody");
    world.pass(20);
    assert_eq!(
        world.status.why.as_deref(),
        Some("PeerDown: provider: connection refused (provider_unreachable)")
    );
    world.says(
        "provider",
        "down",
        "provider_unreachable",
        &"long ".repeat(100),
    );
    let mut other = transport();
    other.says(
        "provider",
        "down",
        "provider_unreachable",
        &"länger ".repeat(300),
    );
    other.pass(20);
    let why = other.status.why.as_ref().unwrap();
    assert!(why.chars().count() == 160 && why.ends_with('…'), "{why}");
    assert!(other.message(T::LinkUp).len() <= 1024);
}
