//! Sessions and suspects, sentence by sentence.

use super::{LONG, SOON, Source, now, sweep_all, unique, until};
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::sessions::{Change, Session};

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

/// One change, of a session that lasts.
fn change(scope: &str, user: &str, before: Option<&Session>, after: Option<&Session>) -> Change {
    Change {
        scope: scope.to_owned(),
        user: user.to_owned(),
        before: before.cloned(),
        after: after.cloned(),
        keep: Some(LONG),
    }
}

async fn load(store: &Arc<dyn StateStore>, scope: &str, user: &str) -> Option<Session> {
    store.load(scope, user).await.expect("load")
}

pub async fn sessions_change_together_or_not_at_all(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (one, two) = (unique("game"), unique("lobby"));
    let given = fields([("state", "a"), ("odd", "h\u{e9}\0\n\"{}[]"), ("empty", "")]);
    let begin = [
        change(&one, "+27", None, Some(&given)),
        change(&two, "", None, Some(&fields([]))),
    ];
    assert!(store.change(&begin).await.expect("change"));
    let held = load(&other, &one, "+27").await.expect("begun");
    assert!(held["created_at"].parse::<f64>().expect("a number") > 1e9);
    let mut without = held.clone();
    without.remove("created_at");
    assert_eq!(without, given);
    assert_eq!(load(&other, &two, "").await.expect("begun").len(), 1);
    assert!(!store.change(&begin).await.expect("again"), "it is there");

    // Each way in which one of them may differ.
    let longer = {
        let mut longer = held.clone();
        longer.insert("more".into(), "x".into());
        longer
    };
    let other_text = {
        let mut other = held.clone();
        other.insert("empty".into(), "x".into());
        other
    };
    let wrong = [None, Some(&given), Some(&longer), Some(&other_text)];
    let lobby = load(&store, &two, "").await;
    for before in wrong {
        let changes = [
            change(&two, "", lobby.as_ref(), None),
            change(&one, "+27", before, Some(&longer)),
        ];
        assert!(!store.change(&changes).await.expect("change"), "{before:?}");
        assert_eq!(load(&other, &one, "+27").await.as_ref(), Some(&held));
        assert_eq!(load(&other, &two, "").await, lobby);
    }
    let nobody = [change(&one, "nobody", Some(&given), None)];
    assert!(!store.change(&nobody).await.expect("change"));

    // In place of what was there, with another end; and both ends at once.
    let short = fields([("state", "b")]);
    let mut soon = [change(&one, "+27", Some(&held), Some(&short))];
    soon[0].keep = None;
    assert!(store.change(&soon).await.expect("change"));
    assert_eq!(load(&other, &one, "+27").await.as_ref(), Some(&short));
    soon[0].before = Some(short);
    soon[0].keep = Some(SOON);
    assert!(store.change(&soon).await.expect("change"));
    until("it ends", || async {
        load(&other, &one, "+27").await.is_none().then_some(())
    })
    .await;
    let last = [
        change(&two, "", lobby.as_ref(), Some(&fields([]))),
        change(&one, "+27", None, None),
    ];
    assert!(store.change(&last).await.expect("change"));
    assert_eq!(load(&other, &two, "").await, None, "it held nothing");
    assert!(store.change(&[]).await.expect("nothing to change"));
}

/// Tokens move between two sessions by clients that race; none is lost or made.
pub async fn sessions_of_racing_changes_lose_none(source: &impl Source) {
    const TOKENS: u64 = 100;
    let scope = unique("purse");
    let clients = [source.client().await, source.client().await];
    let holding = |count: u64| fields([("tokens", count.to_string().as_str())]);
    let begin = [
        change(&scope, "a", None, Some(&holding(TOKENS))),
        change(&scope, "b", None, Some(&holding(0))),
    ];
    assert!(clients[0].change(&begin).await.expect("change"));
    let movers = (0..4_usize).map(|n| {
        let (store, scope) = (Arc::clone(&clients[n % 2]), scope.clone());
        tokio::spawn(async move {
            let mut moved = 0;
            while moved < TOKENS / 4 {
                let (Some(a), Some(b)) = (
                    load(&store, &scope, "a").await,
                    load(&store, &scope, "b").await,
                ) else {
                    panic!("they are there");
                };
                let count = |of: &Session| of["tokens"].parse::<u64>().expect("a number");
                let set = |of: &Session, count: u64| {
                    let mut of = of.clone();
                    of.insert("tokens".into(), count.to_string());
                    of
                };
                // Read one after the other: the change notices if the two do not belong together.
                let changes = [
                    change(
                        &scope,
                        "a",
                        Some(&a),
                        Some(&set(&a, count(&a).saturating_sub(1))),
                    ),
                    change(&scope, "b", Some(&b), Some(&set(&b, count(&b) + 1))),
                ];
                moved += u64::from(store.change(&changes).await.expect("change"));
            }
        })
    });
    for mover in movers.collect::<Vec<_>>() {
        mover.await.expect("task");
    }
    let all = [("a", "0".to_owned()), ("b", TOKENS.to_string())];
    for (user, expected) in all {
        let held = load(&clients[0], &scope, user).await.expect("there");
        assert_eq!(held["tokens"], expected);
    }
}

pub async fn suspects_are_counted_and_forgotten(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (queue, id) = (unique("q"), unique("m"));
    let begun = async |store: &dyn StateStore, queue: &str, life, keep| {
        let count = store.suspect(queue, &id, life, keep).await;
        count.expect("suspect")
    };
    let begun_in = async |store: &dyn StateStore| {
        let mut lives = store.begun_in(&queue, &id).await.expect("begun in");
        lives.sort_unstable();
        lives
    };
    assert_eq!(begun_in(&*store).await, [0u64; 0]);
    for life in 1..=3 {
        assert_eq!(begun(&*store, &queue, life.into(), LONG).await, life);
    }
    assert_eq!(begun_in(&*other).await, [1, 2, 3]);
    // A life that was there before.
    assert_eq!(begun(&*other, &queue, 2, LONG).await, 3);
    // In one of them it only waited.
    other.spare(&queue, &id, 3).await.expect("spare");
    other.spare(&queue, "unknown", 3).await.expect("spare");
    assert_eq!(begun(&*store, &queue, 2, LONG).await, 2);
    assert_eq!(begun(&*store, &unique("q"), 1, LONG).await, 1);
    other.acquit(&queue, &id).await.expect("acquit");
    other.acquit(&queue, &id).await.expect("again");
    assert_eq!(begun_in(&*store).await, [0u64; 0]);
    assert_eq!(begun(&*store, &queue, 1, SOON).await, 1);
    until("it is forgotten", || async {
        let another = begun(&*store, &queue, rand::random(), SOON).await;
        if another > 1 {
            tokio::time::sleep(SOON * 2).await;
        }
        (another == 1).then_some(())
    })
    .await;
    let counts = (0..10).map(|n| {
        let (store, queue, id) = ([&store, &other][n % 2], &queue, "raced");
        async move {
            let count = store.suspect(queue, id, n as u64, LONG).await;
            count.expect("suspect")
        }
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
