//! Workers that do not build or fail: the old version runs on, neighbours notice nothing, and they are tried again.

use super::*;

#[tokio::test]
async fn what_does_not_build_leaves_the_old_one_running() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (one, two) = (free_port(), free_port());
    supervisor
        .apply(set(&[telnet("a", one, 1), echo("e", "a", 1)]))
        .await;
    let broken = Behaviour {
        broken: true,
        ..Behaviour::default()
    };
    world.behave("transport/a", broken);
    // a would move to another port and give its own to b.
    let new = set(&[telnet("a", two, 1), telnet("b", one, 1), echo("e", "a", 2)]);
    let outcome = supervisor.apply(new).await;
    assert_eq!(
        outcome.not_applied.keys().collect::<Vec<_>>(),
        ["transport/a", "transport/b"]
    );
    assert_eq!(who(one).await, "transport/a");
    assert_eq!(world.times("close transport/a"), 0, "untouched");
    assert_eq!(world.times("start application/e"), 2, "the others go on");
    let a = snapshot(&supervisor, "transport/a").await;
    assert!(a.ready && a.why.contains("told not to build"), "{a:?}");
    let b = snapshot(&supervisor, "transport/b").await;
    assert!(
        !b.ready && b.state == "stalled" && b.why.contains("transport/a"),
        "{b:?}"
    );
    // Once it builds, the edit takes effect by itself.
    world.behave("transport/a", Behaviour::default());
    until("the edit is applied", async || {
        world.times("start transport/b") == 1
    })
    .await;
    until("both listen", async || supervisor.listening().await.is_ok()).await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/b".into(), "transport/a".into())
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_new_worker_that_does_not_build_is_stalled_and_tried_again() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let broken = Behaviour {
        broken: true,
        ..Behaviour::default()
    };
    world.behave("application/a", broken);
    world.behave(
        "application/p",
        Behaviour {
            panics: true,
            ..Behaviour::default()
        },
    );
    supervisor
        .apply(set(&[
            echo("a", "a", 1),
            echo("b", "b", 1),
            echo("p", "p", 1),
        ]))
        .await;
    for key in ["application/a", "application/p"] {
        let snapshot = snapshot(&supervisor, key).await;
        assert_eq!((snapshot.ready, snapshot.state), (false, "stalled"));
        assert!(!snapshot.why.is_empty());
    }
    assert!(snapshot(&supervisor, "application/b").await.ready);
    let why = supervisor.ready().await.expect_err("two do not run");
    assert!(
        why.contains("application/a: stalled told not to build"),
        "{why}"
    );
    assert_eq!(
        supervisor.live().await,
        Ok(()),
        "a worker that waits is alive"
    );
    world.behave("application/a", Behaviour::default());
    world.behave("application/p", Behaviour::default());
    until("both run", async || supervisor.ready().await.is_ok()).await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_failing_worker_is_restarted_and_hurts_nobody() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let failing = Behaviour {
        fails_after: Some(5),
        ..Behaviour::default()
    };
    world.behave("application/a", failing);
    supervisor
        .apply(set(&[echo("a", "a", 1), echo("b", "b", 1)]))
        .await;
    until("it was restarted twice", async || {
        world.times("start application/a") >= 3
    })
    .await;
    assert_eq!(world.times("start application/b"), 1);
    world.behave("application/a", Behaviour::default());
    until("it runs again", async || {
        snapshot(&supervisor, "application/a").await.state == "running"
            && supervisor.ready().await.is_ok()
    })
    .await;
    supervisor.shutdown().await;
}
