//! What was seen, sentence by sentence, and receivers racing for one message.

use super::{LONG, SOON, Source, sweep_all, unique, until};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::state::first_seen::{FirstSeen, MAX_ANSWER, Reserved};
use vumi_core::state::{Person, StateStore};

type Client = Arc<dyn StateStore>;

async fn reserve(store: &Client, scope: &str, id: &str, hold: Duration) -> Reserved {
    store.reserve(scope, id, hold).await.expect("reserve")
}

async fn commit(store: &Client, scope: &str, id: &str, keep: Duration, bound: u64) -> u64 {
    let answer = Bytes::from(format!("answer to {id}"));
    let commit = store.commit(scope, id, answer, None, keep, bound);
    commit.await.expect("commit")
}

fn seen(id: &str) -> Reserved {
    Reserved::Seen(format!("answer to {id}").into())
}

pub async fn first_seen_is_reserved_then_committed(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (scope, another) = (unique("http"), unique("http"));
    assert_eq!(reserve(&store, &scope, "1", LONG).await, Reserved::First);
    let Reserved::Pending(wait) = reserve(&other, &scope, "1", LONG).await else {
        panic!("somebody publishes it");
    };
    assert!(wait <= LONG && wait > LONG / 2, "{wait:?}");
    assert_eq!(reserve(&other, &another, "1", LONG).await, Reserved::First);
    assert_eq!(reserve(&other, &scope, "2", LONG).await, Reserved::First);
    assert_eq!(commit(&store, &scope, "1", LONG, 10).await, 0);
    assert_eq!(reserve(&other, &scope, "1", LONG).await, seen("1"));
    FirstSeen::release(&*other, &scope, "1")
        .await
        .expect("release");
    assert_eq!(
        reserve(&store, &scope, "1", LONG).await,
        seen("1"),
        "committed"
    );
    FirstSeen::release(&*other, &scope, "2")
        .await
        .expect("release");
    assert_eq!(reserve(&store, &scope, "2", LONG).await, Reserved::First);
    FirstSeen::release(&*other, &scope, "3")
        .await
        .expect("of nothing");
    let largest = Bytes::from(vec![0xff; MAX_ANSWER]);
    for (id, stays) in [("1", "answer to 1".into()), ("5", largest.clone())] {
        for answer in [
            Bytes::new(),
            largest.clone(),
            "another".into(),
            Bytes::new(),
        ] {
            let again = store.commit(&scope, id, answer, None, LONG, 10);
            assert_eq!(again.await.expect("commit"), 0);
        }
        let found = reserve(&store, &scope, id, LONG).await;
        assert_eq!(found, Reserved::Seen(stays), "the first answer stays");
    }
    assert_eq!(
        commit(&store, &scope, "4", LONG, 10).await,
        0,
        "without a reservation"
    );
    assert_eq!(reserve(&store, &scope, "4", LONG).await, seen("4"));
}

/// Whoever looks leaves everything as it was: nothing is reserved, prolonged, or given back.
pub async fn first_seen_is_looked_at_without_a_trace(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (scope, another) = (unique("http"), unique("http"));
    let look = async |store: &Client, id| store.look(&scope, id).await.expect("look");
    for client in [&store, &other, &store] {
        assert_eq!(look(client, "1").await, Reserved::First);
    }
    assert_eq!(reserve(&other, &scope, "1", LONG).await, Reserved::First);
    for client in [&store, &other] {
        let Reserved::Pending(wait) = look(client, "1").await else {
            panic!("somebody publishes it");
        };
        assert!(wait <= LONG && wait > LONG / 2, "{wait:?}");
    }
    assert_eq!(look(&store, "2").await, Reserved::First);
    let elsewhere = store.look(&another, "1").await.expect("look");
    assert_eq!(elsewhere, Reserved::First);
    FirstSeen::release(&*other, &scope, "1")
        .await
        .expect("release");
    assert_eq!(look(&store, "1").await, Reserved::First, "given back");
    commit(&store, &scope, "1", LONG, 2).await;
    commit(&store, &scope, "2", LONG, 2).await;
    for client in [&store, &other] {
        assert_eq!(look(client, "1").await, seen("1"));
    }
    assert_eq!(commit(&store, &scope, "3", LONG, 2).await, 1);
    assert_eq!(
        look(&store, "1").await,
        Reserved::First,
        "the oldest goes, however often it was looked at"
    );
    store
        .commit(&scope, "4", Bytes::new(), None, LONG, 10)
        .await
        .expect("commit");
    assert_eq!(look(&other, "4").await, Reserved::Seen(Bytes::new()));
    // One that is held, and one that is kept, end at their time although somebody looks.
    assert_eq!(reserve(&store, &scope, "held", SOON).await, Reserved::First);
    commit(&store, &scope, "short", SOON, 10).await;
    for id in ["held", "short"] {
        until("it is forgotten", || async {
            (look(&store, id).await == Reserved::First).then_some(())
        })
        .await;
        assert_eq!(reserve(&other, &scope, id, LONG).await, Reserved::First);
    }
}

pub async fn first_seen_forgets_in_time(source: &impl Source) {
    let (store, scope) = (source.client().await, unique("http"));
    assert_eq!(reserve(&store, &scope, "held", SOON).await, Reserved::First);
    commit(&store, &scope, "short", SOON, 10).await;
    commit(&store, &scope, "long", LONG, 10).await;
    assert_eq!(reserve(&store, &scope, "late", SOON).await, Reserved::First);
    commit(&store, &scope, "late", LONG, 10).await;
    for id in ["held", "short"] {
        until("it is forgotten", || async {
            (reserve(&store, &scope, id, LONG).await == Reserved::First).then_some(())
        })
        .await;
    }
    sweep_all(&store).await;
    assert_eq!(reserve(&store, &scope, "long", LONG).await, seen("long"));
    assert_eq!(
        reserve(&store, &scope, "late", LONG).await,
        seen("late"),
        "kept from its commit"
    );
    assert!(matches!(
        reserve(&store, &scope, "held", LONG).await,
        Reserved::Pending(_)
    ));
}

pub async fn first_seen_is_bounded(source: &impl Source) {
    let (store, scope, other) = (source.client().await, unique("http"), unique("http"));
    commit(&store, &other, "1", LONG, 3).await;
    for id in ["1", "2", "3"] {
        assert_eq!(commit(&store, &scope, id, LONG, 3).await, 0);
    }
    assert_eq!(
        reserve(&store, &scope, "pending", LONG).await,
        Reserved::First
    );
    assert_eq!(
        commit(&store, &scope, "1", LONG, 3).await,
        0,
        "is there already, as old as it was"
    );
    assert_eq!(commit(&store, &scope, "4", LONG, 3).await, 1);
    assert_eq!(
        reserve(&store, &scope, "1", LONG).await,
        Reserved::First,
        "the oldest went"
    );
    FirstSeen::release(&*store, &scope, "1")
        .await
        .expect("release");
    for id in ["2", "3", "4"] {
        assert_eq!(reserve(&store, &scope, id, LONG).await, seen(id));
    }
    assert_eq!(
        commit(&store, &scope, "5", LONG, 1).await,
        3,
        "a lower bound"
    );
    assert_eq!(reserve(&store, &scope, "4", LONG).await, Reserved::First);
    assert_eq!(reserve(&store, &other, "1", LONG).await, seen("1"));
    // What ended is not put out early.
    commit(&store, &scope, "6", SOON, 1).await;
    until("it is forgotten", || async {
        let found = reserve(&store, &scope, "6", SOON / 10).await;
        (found == Reserved::First).then_some(())
    })
    .await;
    assert_eq!(commit(&store, &scope, "7", LONG, 1).await, 0);
}

/// Many receive one message at once: one publishes it, and whoever comes later gets its answer.
pub async fn first_seen_gives_first_once(source: &impl Source) {
    let clients = [source.client().await, source.client().await];
    let scope = unique("http");
    for round in 0..40 {
        let id = round.to_string();
        let tries = (0..8).map(|n| {
            let (store, scope, id) = (Arc::clone(&clients[n % 2]), scope.clone(), id.clone());
            tokio::spawn(async move {
                let found = reserve(&store, &scope, &id, LONG).await;
                if found == Reserved::First {
                    commit(&store, &scope, &id, LONG, 1000).await;
                }
                found
            })
        });
        let mut firsts = 0;
        for one in futures::future::join_all(tries).await {
            match one.expect("task") {
                Reserved::First => firsts += 1,
                Reserved::Seen(answer) => assert_eq!(Reserved::Seen(answer), seen(&id)),
                Reserved::Pending(_) => {}
            }
        }
        assert_eq!(firsts, 1);
    }
}

pub async fn first_seen_of_a_person_is_erased(source: &impl Source) {
    let (store, scope) = (source.client().await, unique("http"));
    let (person, other) = (Person::new(&unique("27")), Person::new(&unique("27")));
    for (id, who) in [("1", Some(&person)), ("2", Some(&other)), ("3", None)] {
        let answer = Bytes::from(format!("answer to {id}"));
        store
            .commit(&scope, id, answer, who, LONG, 10)
            .await
            .expect("commit");
    }
    let erased = store.erase(&person).await.expect("erase");
    let count = |what: &str| erased.iter().find(|e| e.what == what).map(|e| e.count);
    assert_eq!(count("firstSeen"), Some(1));
    assert_eq!(reserve(&store, &scope, "1", LONG).await, Reserved::First);
    for id in ["2", "3"] {
        assert_eq!(reserve(&store, &scope, id, LONG).await, seen(id));
    }
}
