//! From readings of the broker and reports of workers to what there is to do.

use crate::resource;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use vumi_api::Resource;
use vumi_plan::{Broker, Demand, Pod, Queue, Report, Sight, Unread};

fn queue(ready: u64, unacked: u64, arriving: f64, handled: f64) -> Queue {
    Queue {
        ready,
        unacked: Some(unacked),
        consumers: Some(1),
        arriving: Some(arriving),
        handled: Some(handled),
    }
}

fn broker(queues: &[(&str, Queue)]) -> Broker {
    Broker {
        queues: queues
            .iter()
            .map(|(name, queue)| ((*name).to_owned(), *queue))
            .collect(),
        ..Broker::default()
    }
}

fn pod(name: &str) -> Pod {
    Pod {
        name: name.into(),
        ready: true,
        ..Pod::default()
    }
}

fn says(resource: &Resource, pod: &str, component: &str, level: &str, reason: &str) -> Report {
    let body = json!({
        "message_type": "status_event", "component": component, "status": level, "type": reason, "message": "",
        "details": {"kind": resource.kind().as_str(), "name": resource.name, "instance": format!("{pod}-1")},
    });
    Report::parse("t", body.to_string().as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
}

fn demand(
    resource: &Resource,
    broker: &Broker,
    reports: &[Report],
    has_store: bool,
) -> Option<Demand> {
    let pods = [pod("a"), pod("b")];
    let sight = Sight {
        resource,
        pods: &pods,
        reports,
        broker,
        now: Timestamp::UNIX_EPOCH,
    };
    Demand::of(&sight, has_store)
}

/// A divided queue is passed on to its parts: what comes in comes once, and what is passed on is not handled yet.
#[test]
fn all_that_a_worker_reads_counts_once() {
    let app = resource(
        "Application",
        "echo: {}, transportName: t, ordering: {mode: perUser, partitions: 2}",
    );
    let broker = broker(&[
        ("t.inbound", queue(10, 1, 50.0, 50.0)),
        ("t.inbound.p0", queue(100, 2, 25.0, 20.0)),
        ("t.inbound.p1", queue(200, 3, 25.0, 10.0)),
        ("t.event", queue(1000, 4, 5.0, 2.0)),
        ("t.event.p0", queue(0, 0, 0.0, 0.0)),
        // Of another worker.
        ("t.outbound", queue(9999, 9, 99.0, 9.0)),
    ]);
    let demand = demand(&app, &broker, &[], false).unwrap();
    assert_eq!((demand.ready, demand.unacked), (1310, 10));
    assert_eq!((demand.arriving, demand.handled), (55.0, Some(30.0)));
    assert!(demand.declared && demand.nothing_kept && !demand.hindered);
}

#[test]
fn what_cannot_be_read_is_no_demand_and_what_is_missing_is_not_declared() {
    let app = resource("Application", "echo: {}, transportName: t");
    let mut readings = broker(&[("t.inbound", queue(0, 0, 0.0, 0.0))]);
    let missing = demand(&app, &readings, &[], false).unwrap();
    assert!(!missing.declared);
    for unread in [
        Unread::NotYet,
        Unread::Broker("away".into()),
        Unread::Management("away".into()),
        Unread::Forbidden("401".into()),
    ] {
        readings.unread = Some(unread);
        assert_eq!(demand(&app, &readings, &[], false), None);
    }
}

#[test]
fn that_nothing_is_kept_is_said_by_every_pod() {
    let app = resource("Application", "echo: {}, transportName: t");
    let readings = broker(&[]);
    let kept = |reports: &[Report]| demand(&app, &readings, reports, true).unwrap().nothing_kept;
    let empty = |pod: &str| says(&app, pod, "journal", "ok", "nothing_kept");
    assert!(!kept(&[]));
    assert!(!kept(&[empty("a")]));
    assert!(kept(&[empty("a"), empty("b")]));
    assert!(!kept(&[
        empty("a"),
        says(&app, "b", "journal", "ok", "messages_kept")
    ]));
    // A program that is not ours has no journal of ours.
    let program = resource("Application", "custom: {image: a}, transportName: t");
    assert!(demand(&program, &readings, &[], true).unwrap().nothing_kept);
}

#[test]
fn what_hinders_is_not_helped_by_more_pods() {
    let app = resource("Application", "echo: {}, transportName: t");
    let readings = broker(&[]);
    for (component, level, reason, hindered) in [
        ("endpoint", "ok", "endpoint_answered", false),
        ("endpoint", "degraded", "endpoint_failed", false),
        ("endpoint", "degraded", "endpoint_throttles", true),
        ("throttled", "degraded", "slowed_down", true),
        ("target t.outbound", "degraded", "backlog_full", true),
        ("queue t.inbound", "degraded", "too_many_parked", true),
    ] {
        let reports = [says(&app, "a", component, level, reason)];
        let demand = demand(&app, &readings, &reports, false).unwrap();
        assert_eq!(demand.hindered, hindered, "{reason}");
    }
    // One pod that reaches it is reason enough for more.
    let away = |pod: &str| says(&app, pod, "endpoint", "down", "endpoint_unreachable");
    let here = says(&app, "b", "endpoint", "ok", "endpoint_answered");
    let hindered = |reports: &[Report]| demand(&app, &readings, reports, false).unwrap().hindered;
    assert!(!hindered(&[away("a"), here]));
    assert!(hindered(&[away("a"), away("b")]));
}
