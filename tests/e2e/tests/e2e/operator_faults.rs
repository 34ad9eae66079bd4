//! What dies under load, and comes back.

use crate::operator::{ECHO, echo_of_load};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vumi_e2e::{
    Namespace, Operator, Pod, RabbitMq, Reply, alone, answers, freeze, kill_containers, kill_part,
    own_cluster, thaw,
};

/// What comes while one thing dies and comes back.
const COUNT: usize = 3000;
const RATE: usize = 100;
/// Longer than the broker waits for a sign of life, shorter than the kubelet.
const FROZEN: Duration = Duration::from_secs(40);
/// Passes on what comes, to the application, and its replies.
const EDGE: &str = "dispatcher/edge";
/// So many of them may come twice when who has them in hand dies, or the broker: those of ten seconds.
const IN_HAND: usize = 10 * RATE;
/// And so many while neither does, where pods come and go as they are told.
const HANDED_OVER: usize = RATE;

fn ready_replicas(here: &Namespace, wanted: u64) {
    here.has_pods(ECHO, wanted, 120);
    here.settled(&[ECHO], 120);
}

/// What became of the messages of a load, by the replies to them in the order in which they came out.
#[derive(Default)]
struct Outcome {
    /// The `message_id` of the reply to each number.
    answered: BTreeMap<usize, String>,
    /// Numbers that were answered more than once.
    repeated: BTreeSet<usize>,
    /// What must not be, in words.
    wrong: Vec<String>,
    /// The highest number of each user so far.
    last: BTreeMap<String, usize>,
}

impl Outcome {
    fn hear(&mut self, number: usize, reply: Reply) {
        let Reply { id, to, content } = reply;
        let last = self.last.entry(to.clone()).or_default();
        match self.answered.get(&number) {
            // The same answer again, which whoever sends it on can tell by its id.
            Some(first) if *first == id => {
                self.repeated.insert(number);
            }
            Some(first) => {
                let text = format!("{content:?} was answered twice, as {first} and as {id}");
                self.wrong.push(text);
            }
            None if number < *last => {
                let text = format!("{to} got the answer to {content:?} after that to {last}");
                self.wrong.push(text);
            }
            None => {}
        }
        *last = number.max(*last);
        self.answered.entry(number).or_insert(id);
    }
}

/// Takes in what was answered since, by the name of the load.
fn hear(here: &Namespace, outcomes: &mut BTreeMap<String, Outcome>) -> Result<(), String> {
    loop {
        let replies = here.replies("edge")?;
        if replies.is_empty() {
            return Ok(());
        }
        for reply in replies {
            let said = reply.content.split_once(' ');
            let said = said.and_then(|(name, number)| Some((name, number.parse::<usize>().ok()?)));
            let known = said.filter(|(_, number)| (1..=COUNT).contains(number));
            let Some((name, number)) = known else {
                panic!("nobody said this: {reply:?}");
            };
            match outcomes.get_mut(name) {
                Some(outcome) => outcome.hear(number, reply),
                None => panic!("nobody said this: {reply:?}"),
            }
        }
    }
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

/// A pod, all containers, the leader of the operators, the API server and the broker are killed, and a pod and the broker are
/// frozen, each while numbered messages come through a dispatcher: every one is answered, each user's in order, few twice and those
/// under the same id. The status says that the broker is away, and is true again when it is back.
#[test]
fn nothing_is_lost_or_out_of_order_while_parts_die_and_the_status_is_true_again() {
    if !own_cluster() {
        return vumi_testkit::skip("parts are killed on a cluster of our own only");
    }
    let _alone = alone();
    let here = Namespace::create("faults");
    let operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    // Its users are divided among its pods.
    let ordering = json!({"mode": "perUser", "partitions": 8});
    let divided = json!({"ordering": ordering, "backlogLimit": 100_000});
    echo_of_load(&here, &divided);
    let edge = json!({
        "apiVersion": "vumi.dev/v1alpha1",
        "kind": "Dispatcher",
        "metadata": {"name": "edge"},
        "spec": {"simple": {"transports": ["edge"], "exposed": ["load"]}, "backlogLimit": 100_000},
    });
    here.succeed(&["apply", "-f", "-"], &edge.to_string());
    here.settled(&[ECHO, EDGE], 240);
    here.succeed(&["scale", ECHO, "--replicas=3"], "");
    ready_replicas(&here, 3);
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let mut while_loaded = |name: &str, replicas: u64, fault: &dyn Fn()| {
        here.load(name, "edge", COUNT, RATE);
        outcomes.insert(name.into(), Outcome::default());
        fault();
        ready_replicas(&here, replicas);
        here.settled(&[EDGE], 120);
        here.load_is(name, "Succeeded", 300);
    };

    while_loaded("pod", 3, &|| {
        for (resource, number) in [(ECHO, 3), (EDGE, 1)] {
            let one = here.pods(resource).remove(0);
            here.succeed(
                &["delete", "pod", "--grace-period=0", "--force", &one.name],
                "",
            );
            here.wait_for("another pod in its place", 60, || {
                let pods = here.pods(resource);
                let replaced = pods.len() == number && pods.iter().all(|pod| pod.uid != one.uid);
                replaced.then_some(()).ok_or(format!("{pods:?}"))
            });
        }
    });
    while_loaded("containers", 3, &|| {
        kill(&here, || [here.pods(ECHO), here.pods(EDGE)].concat());
    });
    while_loaded("frozen", 3, &|| {
        let one = here.pods(ECHO).remove(0);
        freeze(&one);
        std::thread::sleep(FROZEN);
        thaw(&one);
        here.wait_for("it goes on", 60, || {
            let mut pods = here.pods(ECHO).into_iter();
            let same = pods.find(|pod| pod.uid == one.uid);
            let ready = same.as_ref().is_some_and(|pod| pod.ready);
            assert_eq!(same.as_ref().map(|pod| pod.restarts), Some(one.restarts));
            ready.then_some(()).ok_or(format!("{same:?}"))
        });
    });
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
    while_loaded("silence", 3, &|| {
        let broker = here.pods_by("app=rabbitmq").remove(0);
        freeze(&broker);
        for resource in [ECHO, EDGE] {
            let why = here.condition(resource, "Ready", "False", 120);
            assert!(why.starts_with("BrokerUnreachable: "), "{resource}: {why}");
        }
        thaw(&broker);
    });

    here.wait_for("each message is answered", 180, || {
        hear(&here, &mut outcomes)?;
        let mut missing = outcomes.iter().flat_map(|(name, outcome)| {
            let numbers = (1..=COUNT).filter(move |number| !outcome.answered.contains_key(number));
            numbers.map(move |number| format!("{name} {number}"))
        });
        let first: Vec<String> = missing.by_ref().take(10).collect();
        let more = missing.count();
        first
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("not {first:?}, and {more} more"))
    });
    for (name, outcome) in &outcomes {
        let Outcome {
            repeated, wrong, ..
        } = outcome;
        println!("{name}: {} of {COUNT} came twice", repeated.len());
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
        let most = match name.as_str() {
            "operator" | "server" => HANDED_OVER,
            _ => IN_HAND,
        };
        assert!(repeated.len() <= most, "{name}: {repeated:?}");
    }
    for resource in [ECHO, EDGE] {
        here.settled(&[resource], 120);
        let status = here.get(resource).unwrap()["status"].clone();
        assert_eq!(status["backlog"], "0", "{status}");
        assert_eq!(status["parked"], "0", "{status}");
    }
}
