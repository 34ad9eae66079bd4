//! Deleting in any order.

use crate::operator::{ECHO, TELNET, campaign};
use vumi_e2e::{Namespace, Operator, RabbitMq, wait_for};

/// All kinds of objects that the operator makes.
const CHILDREN: &str = "deployments,statefulsets,replicasets,pods,configmaps,services,serviceaccounts,poddisruptionbudgets,networkpolicies";

/// Waits until nothing is left of what the operator made here.
fn all_gone(here: &Namespace) {
    here.wait_for("everything is gone", 60, || {
        let ours = "vumi.dev/kind";
        let list = ["get", CHILDREN, "--selector", ours, "--output", "name"];
        let left = here.succeed(&list, "");
        left.trim().is_empty().then_some(()).ok_or(left)
    });
}

/// The namespace goes first, with broker, Secret, rights and campaign in it; the operator goes on with another namespace.
#[test]
fn a_namespace_that_is_deleted_with_all_in_it_is_gone_within_a_minute() {
    let here = Namespace::create("ends");
    let other = Namespace::create("stays");
    let operator = Operator::start(&[&here, &other]);
    here.rabbitmq(RabbitMq::V4_0);
    campaign(&here);
    here.settled(&[TELNET, ECHO], 180);
    vumi_e2e::succeed(&["delete", "namespace", &here.name, "--timeout=60s"], "");
    campaign(&other);
    let why = other.condition(TELNET, "Ready", "False", 60);
    assert!(why.contains("vumi-broker"), "{why}");
    let pods = operator.pods();
    assert_eq!(pods.len(), 2, "{pods:?}");
    assert!(
        pods.iter().all(|pod| pod.ready && pod.restarts == 0),
        "{pods:?}"
    );
}

/// Broker and Secret go first: it is said, and the resources can be deleted all the same. Then, the other way round, the
/// operator itself goes first.
#[test]
fn resources_can_be_deleted_after_the_broker_and_its_secret_and_after_the_operator() {
    let here = Namespace::create("ends");
    let operator = Operator::start(&[&here]);
    here.rabbitmq(RabbitMq::V4_0);
    campaign(&here);
    here.settled(&[TELNET, ECHO], 180);
    here.succeed(&["delete", "deployment/rabbitmq", "secret/vumi-broker"], "");
    for resource in [TELNET, ECHO] {
        let why = here.condition(resource, "Ready", "False", 120);
        assert!(why.contains("broker"), "{why}");
    }
    here.succeed(&["delete", TELNET, ECHO, "--timeout=60s"], "");
    all_gone(&here);

    campaign(&here);
    here.wait_for("the campaign is seen", 60, || {
        let generation = here.get(ECHO)?["status"]["observedGeneration"].clone();
        (generation == 1)
            .then_some(())
            .ok_or(generation.to_string())
    });
    here.rabbitmq(RabbitMq::V4_0);
    here.settled(&[TELNET, ECHO], 240);
    let place = operator.place.name.clone();
    drop(operator);
    wait_for("the operator is gone", 60, || {
        let output = vumi_e2e::kubectl(&["get", "namespace", &place], "");
        let gone = !output.status.success();
        gone.then_some(())
            .ok_or_else(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    here.succeed(&["delete", TELNET, ECHO, "--timeout=60s"], "");
    all_gone(&here);
}
