//! What workers keep, in pods: on a volume of their own (K1), and in Redis.

use serde_json::json;
use vumi_e2e::{Namespace, Operator, RabbitMq};

/// A memo waits for its reader while the pod that took it is replaced by another one.
#[test]
fn what_a_worker_keeps_outlives_its_pod() {
    let here = Namespace::create("state");
    let _operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    here.redis();
    let kept = [
        ("volume", "statefulset", json!({})),
        (
            "redis",
            "deployment",
            json!({"secretRef": {"name": "vumi-redis"}}),
        ),
    ];
    for (store, _, settings) in &kept {
        let memos = json!({
            "apiVersion": "vumi.dev/v1alpha1",
            "kind": "Application",
            "metadata": {"name": store},
            "spec": {"memoBot": {}, "transportName": store, "state": {*store: settings}},
        });
        here.succeed(&["apply", "-f", "-"], &memos.to_string());
    }
    let answer = |store: &str, to: &str| {
        here.wait_for(&format!("{store} answers {to}"), 60, || {
            let mut replies = here.replies(store)?;
            let reply = replies.pop().ok_or("no reply yet")?;
            assert!(
                replies.is_empty() && reply.to == to,
                "{replies:?} {reply:?}"
            );
            Ok(reply.content)
        })
    };
    for (store, workload, _) in kept {
        let memos = format!("application/{store}");
        here.settled(&[&memos], 240);
        here.get(&format!("{workload}/application-{store}"))
            .unwrap();
        let to_the_bot = json!({"irc": {"irc_channel": "#home", "addressed_to_transport": true}});
        let tell = format!("bot tell bob it is kept in {store}");
        here.say(store, "ann", &tell, &to_the_bot);
        assert_eq!(answer(store, "ann"), "ann: Sure thing, boss.");
        let before = here.pods(&memos).remove(0);
        here.succeed(&["delete", "pod", &before.name], "");
        here.wait_for("another pod", 120, || {
            let pods = here.pods(&memos);
            let other = pods.iter().any(|pod| pod.ready && pod.uid != before.uid);
            other.then_some(()).ok_or(format!("{pods:?}"))
        });
        here.say(
            store,
            "bob",
            "hello",
            &json!({"irc": {"irc_channel": "#home"}}),
        );
        let told = format!("bob, ann asked me tell you: it is kept in {store}");
        assert_eq!(answer(store, "bob"), told);
    }
}
