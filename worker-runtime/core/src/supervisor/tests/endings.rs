//! A shutdown or a lost caller in the middle of a reload, and brokers whose users come and go meanwhile.

use super::*;

/// An HTTP transport that holds a request and is being replaced; with what lets it go, and the reload.
async fn replacing(
    world: &Arc<World>,
    supervisor: &Arc<Supervisor>,
) -> (watch::Sender<bool>, tokio::task::JoinHandle<Outcome>) {
    let port = free_port();
    let release = holding(world, "transport/h");
    supervisor
        .apply(set(&[http("h", port, 10), echo("e", "h", 1)]))
        .await;
    world.behave("transport/h", Behaviour::default());
    let reload = {
        let supervisor = Arc::clone(supervisor);
        let edited = set(&[http("h", port, 20), echo("e", "h", 1)]);
        tokio::spawn(async move { supervisor.apply(edited).await })
    };
    until("the old one drains beside the new one", async || {
        world.times("close transport/h") == 1 && world.times("start transport/h") == 2
    })
    .await;
    (release, reload)
}

#[tokio::test]
async fn a_request_held_by_what_a_reload_replaces_is_answered_before_the_end() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (release, reload) = replacing(&world, &supervisor).await;
    // Whoever waited for the reload goes away, as a process does that gets a signal.
    reload.abort();
    let ending = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.shutdown().await })
    };
    until("the new one stops", async || {
        world.times("close transport/h") == 2
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.times("gone transport/h here-1"), 0);
    assert_eq!(world.times("close application/e"), 0, "it still answers");
    assert_eq!(supervisor.describe_brokers(), ["first"], "it is needed");
    release.send(true).expect("heard");
    ending.await.expect("ended");
    assert!(world.at("gone transport/h here-1") < world.at("close application/e"));
    assert!(supervisor.describe_brokers().is_empty());
}

#[tokio::test]
async fn a_reload_that_nobody_waits_for_is_carried_out() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (release, reload) = replacing(&world, &supervisor).await;
    reload.abort();
    release.send(true).expect("heard");
    until("the old one is gone", async || {
        world.times("gone transport/h here-1") == 1
    })
    .await;
    let outcome = supervisor.apply(set(&[echo("e", "h", 1)])).await;
    assert!(outcome.not_applied.is_empty());
    assert_eq!(world.times("gone transport/h here-1-2"), 1);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_what_is_being_built() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (_never, waits) = watch::channel(false);
    let slow = Behaviour {
        waits: Some(waits),
        ..Behaviour::default()
    };
    world.behave("application/a", slow);
    let start = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.apply(set(&[echo("a", "a", 1)])).await })
    };
    until("it is being built", async || {
        world.times("build application/a") == 1
    })
    .await;
    supervisor.shutdown().await;
    start.await.expect("ended");
    assert_eq!(world.times("start application/a"), 0);
}

#[tokio::test]
async fn the_broker_of_a_worker_that_is_built_again_stays_open() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    for (key, broker) in [("application/a", "first"), ("application/b", "second")] {
        lock(&world.brokers).insert(key.into(), broker.into());
    }
    let broken = Behaviour {
        broken: true,
        ..Behaviour::default()
    };
    world.behave("application/a", broken);
    supervisor.apply(set(&[echo("a", "a", 1)])).await;
    let (go, waits) = watch::channel(false);
    let slow = Behaviour {
        waits: Some(waits),
        ..Behaviour::default()
    };
    world.behave("application/a", slow);
    let failed = world.times("build application/a");
    until("it is being built again", async || {
        world.times("build application/a") > failed
            && supervisor.describe_brokers().contains(&"first".to_owned())
    })
    .await;
    // Another worker comes, and the reload closes the brokers that nobody uses.
    supervisor
        .apply(set(&[echo("a", "a", 1), echo("b", "b", 1)]))
        .await;
    assert_eq!(supervisor.describe_brokers(), ["first", "second"]);
    go.send(true).expect("heard");
    until("it runs", async || supervisor.ready().await.is_ok()).await;
    assert_eq!(world.times("closed broker of application/a"), 0);
    supervisor.apply(set(&[echo("b", "b", 1)])).await;
    assert_eq!(supervisor.describe_brokers(), ["second"]);
    supervisor.shutdown().await;
}
