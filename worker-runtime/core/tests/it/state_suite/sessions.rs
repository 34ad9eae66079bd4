//! Sessions and suspects, sentence by sentence.

use super::{LONG, SOON, Source, now, sweep_all, unique, until};
use std::sync::Arc;
use vumi_core::state::sessions::Session;

fn fields<const N: usize>(fields: [(&str, &str); N]) -> Session {
    fields.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

pub async fn session_lives_from_create_to_clear(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (scope, user) = (unique("ussd"), unique("+27"));
    assert_eq!(store.load(&scope, &user).await.expect("load"), None);
    assert!(
        !store
            .save(&scope, &user, fields([("a", "1")]))
            .await
            .expect("save")
    );
    assert!(!store.extend(&scope, &user, LONG).await.expect("extend"));
    assert_eq!(store.clear(&scope, &user).await.expect("clear"), None);
    let given = fields([("state", "menu"), ("empty", ""), ("text", "h\u{e9}\n\"")]);
    let mut created = store
        .create(&scope, &user, given.clone(), Some(LONG))
        .await
        .expect("create");
    assert_eq!(
        other.load(&scope, &user).await.expect("load").as_ref(),
        Some(&created)
    );
    let at: f64 = created
        .remove("created_at")
        .expect("set")
        .parse()
        .expect("a number");
    assert!((at - now() as f64 / 1000.0).abs() < 120.0, "{at}");
    assert_eq!(created, given);
    let changed = fields([("state", "end"), ("more", "x")]);
    assert!(other.save(&scope, &user, changed).await.expect("save"));
    let mut all = store
        .load(&scope, &user)
        .await
        .expect("load")
        .expect("there");
    assert!(all.remove("created_at").is_some());
    let expected = [
        ("state", "end"),
        ("more", "x"),
        ("empty", ""),
        ("text", "h\u{e9}\n\""),
    ];
    assert_eq!(all, fields(expected));
    store
        .create(&scope, &user, fields([("new", "1")]), None)
        .await
        .expect("create");
    let mut cleared = other
        .clear(&scope, &user)
        .await
        .expect("clear")
        .expect("there");
    cleared.remove("created_at");
    assert_eq!(
        cleared,
        fields([("new", "1")]),
        "in place of the earlier one"
    );
    assert_eq!(store.load(&scope, &user).await.expect("load"), None);
    assert!(
        !store
            .save(&scope, &user, fields([("a", "1")]))
            .await
            .expect("save")
    );
    assert_eq!(store.load(&scope, &user).await.expect("load"), None);
}

pub async fn session_ends_in_time(source: &impl Source) {
    let (store, scope) = (source.client().await, unique("ussd"));
    let create = async |user: &str, keep| {
        store
            .create(&scope, user, fields([("a", "1")]), keep)
            .await
            .expect("create");
    };
    create("short", Some(SOON)).await;
    create("saved", Some(SOON)).await;
    create("extended", Some(SOON)).await;
    create("cut", Some(LONG)).await;
    create("long", Some(LONG)).await;
    create("ever", None).await;
    assert!(
        store
            .extend(&scope, "extended", LONG)
            .await
            .expect("extend")
    );
    assert!(store.extend(&scope, "cut", SOON).await.expect("extend"));
    assert!(
        store
            .save(&scope, "saved", fields([("b", "2")]))
            .await
            .expect("save")
    );
    let mut active = store.active(&scope, 100).await.expect("active");
    active.sort();
    assert_eq!(
        active,
        ["cut", "ever", "extended", "long", "saved", "short"]
    );
    assert_eq!(store.active(&scope, 2).await.expect("active").len(), 2);
    for user in ["short", "saved", "cut"] {
        until("it ends", || async {
            store
                .load(&scope, user)
                .await
                .expect("load")
                .is_none()
                .then_some(())
        })
        .await;
        let save = store.save(&scope, user, fields([("b", "2")]));
        assert!(!save.await.expect("save"), "after its end");
        assert!(!store.extend(&scope, user, LONG).await.expect("extend"));
        assert_eq!(store.clear(&scope, user).await.expect("clear"), None);
    }
    sweep_all(&store).await;
    let mut active = store.active(&scope, 100).await.expect("active");
    active.sort();
    assert_eq!(active, ["ever", "extended", "long"]);
    assert!(
        store
            .load(&scope, "extended")
            .await
            .expect("load")
            .is_some()
    );
}

/// Savers race with the end: what was saved was there, and nothing comes back afterwards.
pub async fn session_save_never_brings_one_back(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    let (scope, user) = (unique("ussd"), unique("27"));
    for _ in 0..20 {
        let first = fields([("a", "1")]);
        clients[0]
            .create(&scope, &user, first, Some(LONG))
            .await
            .expect("create");
        let savers = (0..4).map(|n: usize| {
            let (store, scope, user) = (Arc::clone(&clients[n % 2]), scope.clone(), user.clone());
            tokio::spawn(async move {
                let one = fields([(&format!("f{n}"), "x")]);
                store.save(&scope, &user, one).await.expect("save")
            })
        });
        let savers: Vec<_> = savers.collect();
        let cleared = clients[1]
            .clear(&scope, &user)
            .await
            .expect("clear")
            .expect("there");
        let mut saved = 0;
        for one in savers {
            saved += usize::from(one.await.expect("task"));
        }
        assert_eq!(cleared.len(), 2 + saved, "{cleared:?}");
        assert_eq!(clients[0].load(&scope, &user).await.expect("load"), None);
    }
}

pub async fn suspects_are_counted_and_forgotten(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (queue, id) = (unique("q"), unique("m"));
    for count in 1..=3 {
        assert_eq!(
            store.suspect(&queue, &id, LONG).await.expect("suspect"),
            count
        );
    }
    assert_eq!(
        store
            .suspect(&unique("q"), &id, LONG)
            .await
            .expect("suspect"),
        1
    );
    other.acquit(&queue, &id).await.expect("acquit");
    other.acquit(&queue, &id).await.expect("again");
    assert_eq!(store.suspect(&queue, &id, SOON).await.expect("suspect"), 1);
    until("it is forgotten", || async {
        let another = store.suspect(&queue, &id, SOON).await.expect("suspect");
        if another > 1 {
            tokio::time::sleep(SOON * 2).await;
        }
        (another == 1).then_some(())
    })
    .await;
    let counts = (0..10).map(|n| {
        let (store, queue, id) = ([&store, &other][n % 2], &queue, "raced");
        async move { store.suspect(queue, id, LONG).await.expect("suspect") }
    });
    let mut counts = futures::future::join_all(counts).await;
    counts.sort();
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
}

pub async fn session_beginnings_are_remembered_for_their_time(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (name, user) = (unique("ussd"), unique("+27"));
    assert_eq!(store.begun(&name, &user).await.expect("begun"), None);
    assert_eq!(store.end(&name, &user).await.expect("end"), None);
    let at = store.begin(&name, &user, LONG).await.expect("begin");
    assert!((at - now() as f64 / 1000.0).abs() < 120.0, "{at}");
    assert_eq!(other.begun(&name, &user).await.expect("begun"), Some(at));
    // A session of an application under the same names is another thing.
    assert_eq!(store.load(&name, &user).await.expect("load"), None);
    assert_eq!(store.begun(&user, &name).await.expect("begun"), None);
    assert_eq!(other.end(&name, &user).await.expect("end"), Some(at));
    assert_eq!(store.begun(&name, &user).await.expect("begun"), None);
    store.begin(&name, &user, SOON).await.expect("begin");
    until("it is forgotten", || async {
        let begun = other.begun(&name, &user).await.expect("begun");
        begun.is_none().then_some(())
    })
    .await;
}
