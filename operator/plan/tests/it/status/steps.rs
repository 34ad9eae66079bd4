//! From `kubectl apply` to ready, through edits and refusals.

use super::{ECHO, World, at};
use crate::{built, context, resource};
use vumi_api::ConditionType as T;
use vumi_plan::settings::PodMonitorSettings;
use vumi_plan::{
    Edge, Outcome, Pod, Problem, Reason, Refusal, Settings, Unread, Workload, build, edges, status,
    validate,
};

fn refused(outcome: Outcome, reason: Reason) -> Refusal {
    Refusal {
        outcome,
        reason,
        message: "this is wrong: do that".into(),
    }
}

#[test]
fn a_new_resource_reconciles_and_is_ready() {
    let mut world = World::new("Application", ECHO);
    assert_eq!(world.kstatus(), "InProgress");
    world.look();
    assert_eq!(world.three(), ["False/Starting", "True/Starting", ""]);
    // The first write has what scalers ask for.
    assert_eq!(
        world.status.selector,
        "vumi.dev/kind=Application,vumi.dev/name=one"
    );
    assert_eq!(
        (world.status.replicas, world.status.observed_generation),
        (0, 1)
    );
    world.runs(1);
    world.workload.as_mut().unwrap().ready = 0;
    world.pods[0].ready = false;
    world.look();
    assert_eq!(world.three(), ["False/Starting", "True/Starting", ""]);
    // Its pods are ready, but the broker has not said that it sees them.
    world.runs(1);
    world.look();
    assert_eq!(world.kstatus(), "InProgress");
    world.reads(0, 0);
    world.look();
    assert_eq!(world.three(), ["False/NotConsuming", "", ""]);
    assert!(
        world.message(T::Ready).contains("sms."),
        "{}",
        world.message(T::Ready)
    );
    world.reads(0, 1);
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);
    assert_eq!(world.kstatus(), "Current");
    assert_eq!(world.status.worker_type.as_deref(), Some("echo"));
    assert_eq!(world.status.broker.as_deref(), Some("rabbitmq/campaign"));
    assert_eq!(
        world.status.runtime_version.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(world.status.why, None);
}

#[test]
fn an_edit_rolls_and_no_green_light_comes_before_its_pods() {
    let mut world = World::running("Application", ECHO);
    let since = world
        .status
        .condition(T::Ready)
        .unwrap()
        .last_transition_time
        .clone();
    world.second = 100;
    world.generation = 2;
    world.resource = resource("Application", &format!("{ECHO}, holdLimit: 20s"));
    world.desired = built(&world.resource, &context(&world.resource));
    // Applied, and what was seen is still from before.
    let looked = world.look().clone();
    assert_eq!(looked.observed_generation, 1);
    assert_eq!(world.kstatus(), "InProgress");
    let hash = world.hash();
    world.workload = Some(Workload {
        wanted: 1,
        total: 2,
        updated: 1,
        ready: 1,
        current: true,
        template_hash: hash,
        ..Workload::default()
    });
    world.second = 101;
    world.look();
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
    assert_ne!(
        world
            .status
            .condition(T::Ready)
            .unwrap()
            .last_transition_time,
        since
    );
    world.runs(1);
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);
    assert_eq!(world.status.applied_generation, Some(2));
}

/// Its controller counts a pod that ends no more, but it reads the queue of its successor until it is gone.
#[test]
fn a_roll_lasts_until_the_old_pods_are_gone() {
    let mut world = World::running("Application", ECHO);
    world.generation = 2;
    world.resource = resource("Application", &format!("{ECHO}, holdLimit: 20s"));
    world.desired = built(&world.resource, &context(&world.resource));
    world.second = 100;
    world.runs(1);
    let old = Pod {
        name: "old".into(),
        ending: true,
        ends: Some(at(130)),
        template: "before".into(),
        ..Pod::default()
    };
    world.pods[0].template = "after".into();
    world.pods.push(old.clone());
    world.pass(30);
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
    assert_eq!(world.kstatus(), "InProgress");
    let message = world.message(T::Reconciling);
    assert!(message.contains("an old one finishes"), "{message}");
    world.pods.pop();
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);

    // A node that nobody hears of keeps its pods for long; their time is over.
    world.pods.push(old.clone());
    world.second = 130;
    world.look();
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
    let outlook = status(&world.observed(), &world.status, &world.memory).unwrap();
    assert_eq!(outlook.again, Some(at(145)));
    world.pass(15);
    assert_eq!(world.three(), ["True/Running", "", ""]);

    // One less of the same template is no roll.
    let mut world = World::running("Application", ECHO);
    world.pods.push(Pod {
        template: String::new(),
        ..old
    });
    world.pods[1].ends = Some(at(30));
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

#[test]
fn a_controller_that_never_looks_is_not_waited_for_in_silence() {
    let mut world = World::running("Application", ECHO);
    world.generation = 2;
    world.workload.as_mut().unwrap().current = false;
    let outlook = status(&world.observed(), &world.status, &world.memory).unwrap();
    assert_eq!(outlook.again, Some(at(5)));
    world.pass(10);
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
}

#[test]
fn an_invalid_edit_leaves_what_runs_and_says_so() {
    let mut world = World::running("Application", ECHO);
    world.generation = 2;
    world.refusal = Some(refused(Outcome::Stalled, Reason::Invalid));
    world.look();
    assert_eq!(world.three(), ["False/Invalid", "", "True/Invalid"]);
    assert_eq!(world.kstatus(), "Failed");
    assert_eq!(
        world.message(T::Stalled),
        "this is wrong: do that; running generation 1"
    );
    assert_eq!(
        (
            world.status.observed_generation,
            world.status.applied_generation
        ),
        (2, Some(1))
    );
    assert_eq!(world.status.replicas, 1);
    assert!(
        world
            .status
            .why
            .as_ref()
            .unwrap()
            .starts_with("Invalid: this is wrong")
    );
    world.refusal = None;
    world.generation = 3;
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

#[test]
fn a_secret_that_goes_away_under_a_running_worker_is_waited_for_while_it_runs() {
    let mut world = World::running("Application", ECHO);
    world.refusal = Some(refused(Outcome::Waiting, Reason::SecretMissing));
    world.look();
    assert_eq!(world.three(), ["True/Running", "True/SecretMissing", ""]);
    // A new one has no pods and waits.
    let mut world = World::new("Application", ECHO);
    world.refusal = Some(refused(Outcome::Waiting, Reason::SecretMissing));
    world.look();
    assert_eq!(
        world.three(),
        ["False/SecretMissing", "True/SecretMissing", ""]
    );
    assert_eq!(world.message(T::Reconciling), "this is wrong: do that");
}

#[test]
fn a_clash_that_is_lost_is_never_ready() {
    let mut world = World::running("Application", ECHO);
    world.refusal = Some(refused(Outcome::Stalled, Reason::QueueClash));
    world.workload.as_mut().unwrap().wanted = 0;
    world.look();
    assert_eq!(world.three(), ["False/QueueClash", "", "True/QueueClash"]);
}

#[test]
fn what_the_api_server_refuses() {
    let mut world = World::running("Application", ECHO);
    world.generation = 2;
    world.failure = Some(refused(Outcome::Stalled, Reason::OverridesInvalid));
    world.look();
    assert_eq!(
        world.three(),
        ["False/OverridesInvalid", "", "True/OverridesInvalid"]
    );
    assert_eq!(world.status.applied_generation, Some(1));
    world.failure = Some(refused(Outcome::Waiting, Reason::ApplyFailed));
    world.look();
    assert_eq!(world.three(), ["False/ApplyFailed", "True/ApplyFailed", ""]);
    // Each try has another sentence, and that is no news.
    let writes = world.writes;
    for n in 0..20 {
        world.failure.as_mut().unwrap().message = format!("try {n}");
        world.pass(5);
    }
    assert_eq!(world.writes, writes);
}

#[test]
fn an_object_that_lost_its_type_is_not_written_to() {
    let mut world = World::running("Application", ECHO);
    world.refusal = Some(refused(Outcome::Stalled, Reason::Pruned));
    assert_eq!(
        status(&world.observed(), &world.status, &world.memory),
        None
    );
}

/// From now on it is left alone, or not any more.
fn leave_alone(world: &mut World, alone: bool) {
    world.left_alone = alone;
    world.refusal = alone.then(|| refused(Outcome::Waiting, Reason::ReconciliationPaused));
}

/// What runs is told as ever (K13).
#[test]
fn who_is_left_alone_is_looked_at() {
    let mut world = World::running("Application", ECHO);
    leave_alone(&mut world, true);
    world.look();
    assert_eq!(world.is(T::Paused), "True/ReconciliationPaused");
    assert_eq!(
        (world.is(T::Ready), world.kstatus()),
        ("True/Running".into(), "Current")
    );
    let writes = world.writes;
    world.pass(60);
    assert_eq!(world.writes, writes);
    world.workload.as_mut().unwrap().ready = 0;
    world.broker.unread = Some(Unread::Broker("refused".into()));
    world.pass(20);
    assert_eq!(world.is(T::Ready), "False/BrokerUnreachable");
    assert_eq!(world.is(T::BacklogKnown), "False/BrokerUnreachable");
    assert_eq!(
        (world.kstatus(), world.status.ready_replicas),
        ("InProgress", 0)
    );
    world.runs(1);
    world.reads(0, 1);
    world.pass(20);
    assert_eq!(world.is(T::Ready), "True/Running");
    // Somebody deletes the workload.
    world.workload = None;
    world.pods.clear();
    world.look();
    assert_eq!(world.three(), ["False/PodsNotReady", "", ""]);
}

/// What runs is not judged by an edit that has no effect.
#[test]
fn an_edit_of_whom_is_left_alone_changes_nothing_but_whom_it_is_for() {
    let mut world = World::running("Application", ECHO);
    leave_alone(&mut world, true);
    world.look();
    let (writes, backlog) = (world.writes, world.status.backlog.clone());
    world.generation = 2;
    world.resource = resource(
        "Application",
        "echo: {}, transportName: other, suspend: true",
    );
    world.pass(120);
    assert_eq!(world.three(), ["True/Running", "", ""]);
    assert_eq!(world.status.backlog, backlog);
    // That it is for this edit.
    assert_eq!(world.writes, writes + 1);
    assert_eq!(world.kstatus(), "InProgress");
    world.workload.as_mut().unwrap().ready = 0;
    world.look();
    assert_eq!(world.status.ready_replicas, 0);
    leave_alone(&mut world, false);
    world.resource = resource("Application", ECHO);
    world.runs(1);
    world.pass(15);
    assert_eq!(
        (world.is(T::Paused), world.kstatus()),
        (String::new(), "Current")
    );
}

#[test]
fn who_was_left_alone_from_the_beginning_is_told_nothing_else() {
    let mut world = World::new("Application", ECHO);
    leave_alone(&mut world, true);
    world.look();
    assert_eq!(world.three(), ["", "", ""]);
    assert_eq!(
        (world.status.observed_generation, world.kstatus()),
        (-1, "InProgress")
    );
    leave_alone(&mut world, false);
    world.look();
    assert_eq!(world.three(), ["False/Starting", "True/Starting", ""]);
}

#[test]
fn who_is_left_alone_while_something_else_is_wrong_does_not_get_ready_by_that() {
    // Another one reads its queue, so that it has no pods.
    let mut world = World::running("Application", ECHO);
    world.refusal = Some(refused(Outcome::Stalled, Reason::QueueClash));
    world.workload.as_mut().unwrap().wanted = 0;
    world.look();
    leave_alone(&mut world, true);
    world.pass(20);
    assert_eq!(world.three(), ["False/QueueClash", "", "True/QueueClash"]);
    // Its newest edit was refused.
    let mut world = World::running("Application", ECHO);
    world.generation = 2;
    world.refusal = Some(refused(Outcome::Stalled, Reason::Invalid));
    world.look();
    leave_alone(&mut world, true);
    world.pass(20);
    assert_eq!(world.three(), ["False/Invalid", "", "True/Invalid"]);
    // It waits for a Secret, and its pods run on.
    let mut world = World::running("Application", ECHO);
    world.refusal = Some(refused(Outcome::Waiting, Reason::SecretMissing));
    world.look();
    leave_alone(&mut world, true);
    world.pass(20);
    assert_eq!(world.three(), ["True/Running", "True/SecretMissing", ""]);
}

#[test]
fn a_roll_ends_also_while_the_operator_leaves_it_alone() {
    let mut world = World::running("Application", ECHO);
    world.workload.as_mut().unwrap().updated = 0;
    world.look();
    assert_eq!(world.is(T::Reconciling), "True/RollingOut");
    leave_alone(&mut world, true);
    world.look();
    assert_eq!(world.is(T::Reconciling), "True/RollingOut");
    world.runs(1);
    world.pass(20);
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

#[test]
fn no_pods_on_purpose_is_ready() {
    let mut world = World::new("Application", &format!("{ECHO}, suspend: true"));
    world.runs(0);
    world.look();
    assert_eq!(world.three(), ["True/Suspended", "", ""]);
    let mut world = World::new("Application", &format!("{ECHO}, replicas: 0"));
    world.runs(0);
    world.look();
    assert_eq!(world.three(), ["True/ScaledToZero", "", ""]);
    assert!(
        world
            .status
            .why
            .as_ref()
            .unwrap()
            .starts_with("ScaledToZero")
    );
}

#[test]
fn scaling_is_no_roll_and_waking_is_no_failure() {
    let mut world = World::running("Transport", "devNull: {}, replicas: 1");
    world.resource = resource("Transport", "devNull: {}, replicas: 3");
    world.desired = built(&world.resource, &context(&world.resource));
    let workload = world.workload.as_mut().unwrap();
    (workload.wanted, workload.total, workload.updated) = (3, 3, 3);
    world.generation = 2;
    world.look();
    world.pass(55);
    assert_eq!(world.three(), ["True/Running", "", ""]);
    // But not for ever.
    world.pass(30);
    assert_eq!(world.three(), ["False/PodsNotReady", "", ""]);
    assert_eq!(world.message(T::Ready), "1 of 3 pods are ready");

    let mut world = World::new("Transport", "devNull: {}, replicas: 0");
    world.runs(0);
    world.look();
    world.resource = resource("Transport", "devNull: {}, replicas: 1");
    world.desired = built(&world.resource, &context(&world.resource));
    world.runs(1);
    world.workload.as_mut().unwrap().ready = 0;
    world.reads(5, 0);
    world.pass(30);
    assert_eq!(world.three(), ["True/ScaledToZero", "", ""]);
    world.runs(1);
    world.reads(0, 1);
    world.pass(5);
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

/// Whoever waits for `Ready` after an edit waits for pods of it: from none, and where the old ones have to go before.
#[test]
fn an_edit_that_leaves_no_pod_ready_is_not_ready() {
    for (before, none) in [
        ("replicas: 0", "ScaledToZero"),
        ("suspend: true", "Suspended"),
    ] {
        let mut world = World::new("Transport", &format!("devNull: {{}}, {before}"));
        world.runs(0);
        world.look();
        assert_eq!(world.is(T::Ready), format!("True/{none}"));
        world.resource = resource("Transport", "devNull: {}");
        world.desired = built(&world.resource, &context(&world.resource));
        world.generation = 2;
        world.runs(1);
        world.workload.as_mut().unwrap().ready = 0;
        world.look();
        assert_eq!(world.three(), ["False/Starting", "True/Starting", ""]);
        world.pass(20);
        assert_eq!(world.three(), ["False/Starting", "True/Starting", ""]);
        world.runs(1);
        world.reads(0, 1);
        world.pass(5);
        assert_eq!(world.three(), ["True/Running", "", ""]);
    }
    let mut world = World::running("Transport", "devNull: {}");
    world.generation = 2;
    let workload = world.workload.as_mut().unwrap();
    (workload.total, workload.updated, workload.ready) = (0, 0, 0);
    world.pods.clear();
    world.look();
    assert_eq!(world.three(), ["False/RollingOut", "True/RollingOut", ""]);
    world.runs(1);
    world.pass(5);
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

/// A problem of a pod, and the three conditions: in a roll, when the roll is late, and of a worker that ran.
#[test]
fn what_is_wrong_with_pods_has_its_reason() {
    for (reason, late) in [
        (Reason::CrashLooping, "True/CrashLooping"),
        (Reason::OutOfMemory, "True/OutOfMemory"),
        (Reason::ImageUnavailable, "True/ImageUnavailable"),
        (Reason::ContainerConfig, "True/ContainerConfig"),
        (Reason::Unschedulable, ""),
    ] {
        let name = reason.as_str();
        let mut world = World::new("Application", ECHO);
        world.runs(1);
        world.workload.as_mut().unwrap().ready = 0;
        world.pods[0].ready = false;
        world.pods[0].problem = Some(Problem {
            reason,
            message: "a sentence".into(),
            needs_edit: false,
        });
        world.look();
        assert_eq!(
            world.three(),
            [
                format!("False/{name}"),
                format!("True/{name}"),
                String::new()
            ]
        );
        world.workload.as_mut().unwrap().late = true;
        world.look();
        assert_eq!(world.is(T::Stalled), late, "{name}");
    }
}

#[test]
fn an_image_without_a_valid_name_needs_an_edit_at_once() {
    let mut world = World::new("Application", ECHO);
    world.runs(1);
    world.workload.as_mut().unwrap().ready = 0;
    world.pods[0].problem = Some(Problem {
        reason: Reason::ImageUnavailable,
        message: "no valid name".into(),
        needs_edit: true,
    });
    world.look();
    assert_eq!(
        world.three(),
        ["False/ImageUnavailable", "", "True/ImageUnavailable"]
    );
}

#[test]
fn a_broker_that_is_away_stalls_nothing_however_late() {
    let mut world = World::running("Application", ECHO);
    world.broker.unread = Some(Unread::Broker("no route to rabbitmq".into()));
    world.pods[0].ready = false;
    let workload = world.workload.as_mut().unwrap();
    (workload.ready, workload.late) = (0, true);
    world.pass(30);
    assert_eq!(world.three(), ["False/BrokerUnreachable", "", ""]);
    assert_eq!(world.message(T::Ready), "no route to rabbitmq");
    assert_eq!(world.is(T::BacklogKnown), "False/BrokerUnreachable");
}

#[test]
fn a_cluster_without_gateways_is_waited_for() {
    let spec = "httpApi: {}, http: {port: 8080}, service: {expose: {host: a.example.net, httpRoute: {gateway: g}}}";
    let mut world = World::running("Transport", spec);
    let mut surroundings = context(&world.resource);
    surroundings.platform = vumi_plan::Platform::default();
    world.desired = built(&world.resource, &surroundings);
    world.look();
    assert_eq!(world.three(), ["True/Running", "True/GatewayMissing", ""]);
}

#[test]
fn a_cluster_without_pod_monitors_is_waited_for() {
    let mut world = World::running("Transport", "devNull: {}");
    let settings = Settings {
        pod_monitor: Some(PodMonitorSettings::default()),
        ..Settings::default()
    };
    let mut surroundings = context(&world.resource);
    surroundings.platform = vumi_plan::Platform::default();
    let validated = validate(&world.resource, &surroundings, &settings).unwrap();
    world.desired = build(&validated, &surroundings, &settings);
    let before = world.status.clone();
    world.look();
    assert_eq!(
        world.three(),
        ["True/Running", "True/PodMonitorMissing", ""]
    );
    let told = edges(&before, &world.status);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].warning && told[0].reason == "PodMonitorMissing");
    surroundings.platform.pod_monitor = true;
    let validated = validate(&world.resource, &surroundings, &settings).unwrap();
    world.desired = build(&validated, &surroundings, &settings);
    world.look();
    assert_eq!(world.three(), ["True/Running", "", ""]);
}

#[test]
fn what_changes_is_an_event() {
    let mut world = World::new("Application", ECHO);
    let before = world.status.clone();
    world.look();
    let first = edges(&before, &world.status);
    assert_eq!(first[0].reason, "Starting");
    assert!(first.iter().all(|edge| !edge.warning), "{first:?}");
    let before = world.status.clone();
    world.refusal = Some(refused(Outcome::Stalled, Reason::Invalid));
    world.look();
    let stalled = Edge {
        warning: true,
        reason: "Invalid".into(),
        message: "Stalled: this is wrong: do that".into(),
    };
    assert!(edges(&before, &world.status).contains(&stalled));
    assert_eq!(edges(&world.status, &world.status), []);
}
