//! How many resources are in hand at one time, and that nothing goes on without the lease.

use crate::fake::Instead;
use crate::world::{NAMESPACE, World};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use vumi_api::Kind;
use vumi_operator::engine::dispatch::dispatch;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::health::Health;

const AT_ONCE: usize = 4;
/// For so long a call waits for its answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// An API server that answers nothing: every look hangs in its first call, by which a Secret is read that no other one has.
#[tokio::test(start_paused = true)]
async fn so_many_calls_are_in_flight_and_none_without_the_lease() {
    let world = World::new().await;
    let kind = ObjectKind::of(Kind::Transport);
    for n in 0..20 {
        let path = kind.path(NAMESPACE, &format!("t-{n}"));
        let broker = json!({"secretRef": {"name": format!("broker-{n}")}});
        let object = json!({
            "apiVersion": "vumi.dev/v1alpha1",
            "kind": "Transport",
            "metadata": {"name": format!("t-{n}"), "namespace": NAMESPACE, "generation": 1},
            "spec": {"telnet": {"port": 9010}, "broker": broker},
        });
        world.server.put(&path, object);
        world.tell(kind, &path);
    }
    world.server.instead(|_| Some(Instead::Silence));
    let (tell, leading) = watch::channel(true);
    let stop = CancellationToken::new();
    let (engine, ended) = (Arc::clone(&world.engine), stop.clone());
    let health = Arc::new(Health::new(engine.cluster.definitions()));
    let lease = ("system".into(), "vumi-operator".into());
    let task = tokio::spawn(dispatch(engine, leading, AT_ONCE, health, lease, ended));
    // In the midst of the first calls, and then of those that come when the ones before have ended.
    sleep(DEADLINE / 2).await;
    let mut asked = BTreeSet::new();
    for round in 0..5 {
        let calls = world.server.calls();
        assert_eq!(calls.len(), AT_ONCE, "{round}: {calls:?}");
        asked.extend(calls);
        sleep(DEADLINE).await;
    }
    assert_eq!(asked.len(), 20, "each has had its turn: {asked:?}");
    for away in [Duration::from_secs(60), Duration::from_secs(1)] {
        world.engine.api.gate().hold(None);
        tell.send_replace(false);
        world.server.calls();
        sleep(away).await;
        let calls = world.server.calls();
        assert!(calls.is_empty(), "{away:?}: {calls:?}");
        let held = Instant::now() + DEADLINE * 1000;
        world.engine.api.gate().hold(Some(held));
        tell.send_replace(true);
        // What was in hand before is in nobody's way.
        sleep(DEADLINE / 4).await;
        let calls = world.server.calls();
        assert_eq!(calls.len(), AT_ONCE, "{away:?}: {calls:?}");
    }
    stop.cancel();
    task.await.unwrap();
}
