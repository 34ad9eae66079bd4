//! A new version takes over from an old one: its port, its callers, and its place if it never ends.

use super::*;

#[tokio::test]
async fn a_replaced_worker_keeps_its_port_and_refuses_nobody() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let port = free_port();
    let (release, drained) = watch::channel(false);
    world.behave(
        "transport/t",
        Behaviour {
            drained: Some(drained),
            ..Behaviour::default()
        },
    );
    supervisor.apply(set(&[plain("t", port, 10)])).await;
    assert_eq!(who(port).await, "transport/t");
    let reload = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.apply(set(&[plain("t", port, 20)])).await })
    };
    until("the old intake closed", async || {
        world.times("close transport/t") == 1
    })
    .await;
    // While the old one drains and the new one waits, callers wait too; none is refused.
    let callers: Vec<_> = (0..20).map(|_| tokio::spawn(who(port))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.times("start transport/t"), 1);
    assert_eq!(
        snapshot(&supervisor, "transport/t").await.accepting,
        Some(false)
    );
    release.send(true).expect("heard");
    reload.await.expect("reloaded");
    for caller in callers {
        assert_eq!(caller.await.expect("answered"), "transport/t");
    }
    assert!(world.at("gone transport/t here-1") < world.record().len() - 1);
    assert_eq!(
        world.record().last().map(String::as_str),
        Some("start transport/t")
    );
    supervisor.shutdown().await;
    // The second build had a name of its own on the broker.
    assert_eq!(world.times("gone transport/t here-1-2"), 1);
}

#[tokio::test]
async fn a_transport_that_holds_requests_or_sessions_is_followed_at_once() {
    for (name, kind) in [("h", http as fn(&str, u16, u32) -> String), ("t", telnet)] {
        let world = Arc::new(World::default());
        let supervisor = supervisor(&world);
        let (port, key) = (free_port(), format!("transport/{name}"));
        let release = holding(&world, &key);
        supervisor.apply(set(&[kind(name, port, 10)])).await;
        let reload = {
            let supervisor = Arc::clone(&supervisor);
            tokio::spawn(async move { supervisor.apply(set(&[kind(name, port, 20)])).await })
        };
        until("the new one runs beside the draining one", async || {
            world.times(&format!("start {key}")) == 2
        })
        .await;
        assert_eq!(who(port).await, key);
        let gone = format!("gone {key} here-1");
        assert_eq!(world.times(&gone), 0, "still holds something");
        release.send(true).expect("heard");
        reload.await.expect("reloaded");
        assert_eq!(world.times(&gone), 1);
        supervisor.shutdown().await;
    }
}

#[tokio::test]
async fn ports_move_between_workers() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (one, two) = (free_port(), free_port());
    supervisor
        .apply(set(&[telnet("a", one, 1), telnet("b", two, 1)]))
        .await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/a".into(), "transport/b".into())
    );
    supervisor
        .apply(set(&[telnet("a", two, 1), telnet("b", one, 1)]))
        .await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/b".into(), "transport/a".into())
    );
    // And to a worker that is new, from one that is gone.
    supervisor.apply(set(&[telnet("c", one, 1)])).await;
    assert_eq!(who(one).await, "transport/c");
    TcpStream::connect(("127.0.0.1", two))
        .await
        .expect_err("nobody wants this port any more");
    supervisor.shutdown().await;
    TcpStream::connect(("127.0.0.1", one))
        .await
        .expect_err("closed with everything");
}

#[tokio::test]
async fn an_old_one_that_never_drains_is_bounded() {
    let world = Arc::new(World::default());
    let mut options = supervisor(&world).shared.options.clone();
    options.limits.drain = Duration::from_millis(100);
    let supervisor = Supervisor::new(
        Fake(Arc::clone(&world)),
        FakeBrokers(Arc::clone(&world)),
        FakeStores(Arc::clone(&world)),
        Arc::default(),
        Arc::default(),
        options,
    );
    let port = free_port();
    world.behave(
        "transport/t",
        Behaviour {
            hangs: true,
            ..Behaviour::default()
        },
    );
    supervisor
        .apply(set(&[telnet("t", port, 1), echo("e", "t", 1)]))
        .await;
    world.behave("transport/t", Behaviour::default());
    let caller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        who(port).await
    });
    supervisor
        .apply(set(&[telnet("t", port, 2), echo("e", "t", 1)]))
        .await;
    assert_eq!(
        caller.await.expect("answered by the new one"),
        "transport/t"
    );
    assert_eq!(world.times("start transport/t"), 2);
    assert_eq!(
        world.times("start application/e"),
        1,
        "the neighbour never noticed"
    );
    supervisor.shutdown().await;
}
