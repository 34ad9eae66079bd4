//! In which order workers stop, a shutdown or a lost caller in the middle of a reload, and brokers whose users come and go
//! meanwhile.

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

#[tokio::test]
async fn another_broker_address_moves_only_those_who_use_it() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let resources = || set(&[echo("a", "a", 1), echo("b", "b", 1)]);
    supervisor.apply(resources()).await;
    lock(&world.brokers).insert("application/a".into(), "second".into());
    supervisor.secrets_changed(BTreeMap::new()).await;
    assert_eq!(world.times("start application/a"), 2);
    assert_eq!(world.times("start application/b"), 1);
    assert_eq!(supervisor.describe_brokers().len(), 2);
    lock(&world.brokers).insert("application/b".into(), "second".into());
    until("b followed by itself", async || {
        world.times("start application/b") == 2
    })
    .await;
    until("the first broker is closed", async || {
        supervisor.describe_brokers().len() == 1
    })
    .await;
    assert_eq!(world.opened.load(Ordering::SeqCst), 2);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn what_answers_held_requests_stops_last() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (release, port) = (holding(&world, "transport/h"), free_port());
    let both = set(&[http("h", port, 10), echo("e", "h", 1)]);
    supervisor.apply(both).await;
    let ending = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.shutdown().await })
    };
    until("the intake closed", async || {
        world.times("close transport/h") == 1
    })
    .await;
    until("a new caller is refused", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_err()
    })
    .await;
    assert_eq!(world.times("close application/e"), 0, "it still answers");
    let shown = supervisor.snapshots().await;
    let state = |key: &str| shown.iter().find(|s| s.key == key).map(|s| s.state);
    assert_eq!(state("transport/h"), Some("stopping"), "shown to its end");
    assert!(state("application/e").is_some());
    release.send(true).expect("heard");
    ending.await.expect("ended");
    assert!(world.at("gone transport/h here-1") < world.at("close application/e"));
}

#[tokio::test]
async fn workers_taken_out_together_leave_in_the_same_order() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    supervisor
        .apply(set(&[http("h", free_port(), 10), echo("e", "h", 1)]))
        .await;
    supervisor.apply(Vec::new()).await;
    assert!(world.at("gone transport/h here-1") < world.at("close application/e"));
    assert!(supervisor.describe_brokers().is_empty(), "nobody uses it");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_during_a_reload_ends_both() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let port = free_port();
    let release = holding(&world, "transport/t");
    supervisor.apply(set(&[plain("t", port, 10)])).await;
    let reload = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.apply(set(&[plain("t", port, 20)])).await })
    };
    until("the reload began", async || {
        world.times("close transport/t") == 1
    })
    .await;
    let ending = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.shutdown().await })
    };
    until("the shutdown began", async || {
        supervisor.stopping().is_cancelled()
    })
    .await;
    release.send(true).expect("heard");
    reload.await.expect("ended");
    ending.await.expect("ended");
    assert_eq!(
        world.times("start transport/t"),
        1,
        "the new one never started"
    );
    assert!(
        supervisor
            .apply(set(&[plain("t", port, 30)]))
            .await
            .plan
            .steps
            .is_empty()
    );
}
