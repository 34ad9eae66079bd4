//! What dies under load, and comes back.

use std::collections::BTreeSet;
use vumi_e2e::{
    Namespace, Operator, Pod, RabbitMq, alone, answers, kill_containers, kill_part, own_cluster,
};

const ECHO: &str = "application/echo";
/// What comes while one thing dies and comes back.
const COUNT: usize = 3000;
const RATE: usize = 100;

/// An application whose users are divided among its pods; who writes to it and reads its replies is the test.
const MANIFEST: &str = "
apiVersion: vumi.dev/v1alpha1
kind: Application
metadata: {name: echo}
spec:
  echo: {}
  transportName: load
  ordering: {mode: perUser, partitions: 8}
  backlogLimit: 100000
";

fn ready_replicas(here: &Namespace, wanted: u64) {
    here.wait_for(&format!("{wanted} pods are ready"), 120, || {
        let status = here.get(ECHO)?["status"].clone();
        let all = ["replicas", "readyReplicas"].map(|field| status[field].as_u64());
        (all == [Some(wanted); 2])
            .then_some(())
            .ok_or_else(|| status.to_string())
    });
    here.settled(&[ECHO], 120);
}

/// Kills the containers of these pods, and waits until all have started again and are ready.
fn kill(here: &Namespace, pods: impl Fn() -> Vec<Pod>) {
    let before = pods();
    kill_containers(&before);
    here.wait_for("what was killed has started again", 120, || {
        let now = pods();
        let again = |(pod, old): (&Pod, &Pod)| pod.ready && pod.restarts > old.restarts;
        let all = now.len() == before.len() && now.iter().zip(&before).all(again);
        all.then_some(()).ok_or(format!("{now:?}"))
    });
}

/// A pod, all containers, the leader of the operators, the API server and the broker are killed, each while numbered messages
/// come: every one is answered, and the status is true again.
#[test]
fn nothing_is_lost_while_parts_die_and_the_status_is_true_again() {
    if !own_cluster() {
        return vumi_testkit::skip("parts are killed on a cluster of our own only");
    }
    let _alone = alone();
    let here = Namespace::create("faults");
    let operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    here.succeed(&["apply", "-f", "-"], MANIFEST);
    here.settled(&[ECHO], 240);
    here.succeed(&["scale", ECHO, "--replicas=3"], "");
    ready_replicas(&here, 3);
    let mut expected = BTreeSet::new();
    let mut while_loaded = |name: &str, replicas: u64, fault: &dyn Fn()| {
        here.load(name, "load", COUNT, RATE);
        expected.extend((1..=COUNT).map(|i| format!("{name} {i}")));
        fault();
        ready_replicas(&here, replicas);
        here.load_is(name, "Succeeded", 300);
    };

    while_loaded("pod", 3, &|| {
        let one = here.pods(ECHO).remove(0);
        here.succeed(
            &["delete", "pod", "--grace-period=0", "--force", &one.name],
            "",
        );
        here.wait_for("another pod in its place", 60, || {
            let pods = here.pods(ECHO);
            let replaced = pods.len() == 3 && pods.iter().all(|pod| pod.uid != one.uid);
            replaced.then_some(()).ok_or(format!("{pods:?}"))
        });
    });
    while_loaded("containers", 3, &|| kill(&here, || here.pods(ECHO)));
    while_loaded("operator", 4, &|| {
        let leader = operator.leader();
        kill(&operator.place, || {
            let mut pods = operator.pods();
            pods.retain(|pod| pod.name == leader);
            pods
        });
        // Only one that leads obeys.
        here.succeed(&["scale", ECHO, "--replicas=4"], "");
    });
    while_loaded("server", 3, &|| {
        kill_part("kube-apiserver");
        answers();
        here.succeed(&["scale", ECHO, "--replicas=3"], "");
    });
    while_loaded("broker", 3, &|| {
        kill(&here, || here.pods_by("app=rabbitmq"))
    });

    let mut answered = BTreeSet::new();
    here.wait_for("each message is answered", 180, || {
        loop {
            let replies = here.replies("load")?;
            if replies.is_empty() {
                break;
            }
            answered.extend(replies);
        }
        let missing: Vec<_> = expected.difference(&answered).take(10).collect();
        let told = format!("{} are, not {missing:?}, …", answered.len());
        missing.is_empty().then_some(()).ok_or(told)
    });
    // Nothing that nobody said.
    assert_eq!(answered.len(), expected.len());
    here.settled(&[ECHO], 120);
    let status = here.get(ECHO).unwrap()["status"].clone();
    assert_eq!(status["backlog"], "0", "{status}");
    assert_eq!(status["parked"], "0", "{status}");
}
