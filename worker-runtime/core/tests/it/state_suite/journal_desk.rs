//! The journal as operators use it: they look through it, release lanes, and take messages out of it, racing with
//! workers.

use super::journal::{NOW, add, append, bodies, claim, done, entry, lane, list, remove, text};
use super::{Dice, LONG, SOON, Source, now, unique, until};
use std::collections::BTreeSet;
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::journal::{
    Cause, Due, Filter, Journal, Lane, Listed, Next, Outgoing, Reason, Step,
};

fn texts(outgoing: &[Outgoing]) -> Vec<String> {
    let text = |one: &Outgoing| String::from_utf8_lossy(&one.entry.body).into_owned();
    outgoing.iter().map(text).collect()
}

async fn filled(store: &Arc<dyn StateStore>, queue: &str) -> Vec<Listed> {
    let held = |lane: &Lane, body: &str| {
        let mut append = append(lane, Due::Released, body);
        append.entry.about.reason = Reason::Held;
        append
    };
    let (one, two, three) = (lane("", 1), lane("batch", 1), lane("batch", 2));
    let messages = vec![
        append(&one, Due::After(LONG), "a"),
        held(&two, "b"),
        append(&two, NOW, "c"),
        held(&two, "d"),
        held(&three, "e"),
        append(&one, NOW, "f"),
    ];
    store.append(queue, messages).await.expect("append");
    let mut all = list(store, queue, Filter::default()).await;
    // Which lane comes first is the store's choice.
    all.sort_by_key(|listed| (listed.lane.clone(), listed.place));
    assert_eq!(bodies(&all), ["a", "f", "b", "c", "d", "e"]);
    all
}

pub async fn journal_lists_what_matches(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let begin = now();
    let all = filled(&store, &queue).await;
    let places: Vec<u64> = all.iter().map(|listed| listed.place).collect();
    assert_eq!(places, [0, 1, 0, 1, 2, 0]);
    assert!(all.iter().all(|listed| listed.queue == queue));
    assert_eq!(all[0].entry, entry("a"));
    let due = all[0].due.expect("a time");
    assert!(
        due >= begin + 3_500_000 && due <= now() + 3_600_000,
        "{due}"
    );
    assert_eq!(all[2].due, None);

    let of = async |filter| {
        let mut found = bodies(&list(&store, &queue, filter).await);
        found.sort();
        found.concat()
    };
    let group = |group: &str| Filter {
        group: Some(group.into()),
        ..Filter::default()
    };
    assert_eq!(of(group("batch")).await, "bcde");
    assert_eq!(of(group("nothing")).await, "");
    let number = Filter {
        lane: Some(1),
        ..Filter::default()
    };
    assert_eq!(of(number.clone()).await, "abcdf");
    let held = Filter {
        reason: Some(Reason::Held),
        ..number
    };
    assert_eq!(of(held).await, "bd");
    let ids = Filter {
        ids: Some(vec![all[1].id, all[3].id, u64::MAX]),
        ..Filter::default()
    };
    assert_eq!(of(ids.clone()).await, "cf");
    let none = Filter {
        group: Some(String::new()),
        reason: Some(Reason::Held),
        ..ids
    };
    assert_eq!(of(none).await, "");
    for limit in 0..3 {
        let some = store.list(&queue, &Filter::default(), limit).await;
        assert_eq!(some.expect("list").len(), limit);
    }
    let third = Filter {
        ids: Some(vec![all[4].id]),
        ..Filter::default()
    };
    assert_eq!(list(&store, &queue, third).await[0].place, 2, "in its lane");
}

pub async fn journal_releases_what_matches(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let all = filled(&store, &queue).await;
    let release = async |filter: Filter| {
        Journal::release(&*store, &queue, &filter)
            .await
            .expect("release")
    };
    let held = Filter {
        ids: Some(vec![all[4].id, all[3].id]),
        ..Filter::default()
    };
    assert_eq!(
        release(held).await,
        1,
        "one lane, by what is behind its head"
    );
    let heads = claim(&store, &queue, "batch").await;
    assert_eq!(
        heads.iter().map(text).collect::<Vec<_>>(),
        ["b"],
        "its head"
    );
    let reason = Filter {
        group: Some(String::new()),
        reason: Some(Reason::Held),
        ..Filter::default()
    };
    assert_eq!(release(reason).await, 0);
    assert!(claim(&store, &queue, "").await.is_empty());
    let rest = Filter {
        lane: Some(2),
        ..Filter::default()
    };
    assert_eq!(release(rest).await, 1);
    let heads = claim(&store, &queue, "batch").await;
    assert_eq!(heads.iter().map(text).collect::<Vec<_>>(), ["e"]);
    assert_eq!(release(Filter::default()).await, 3);
    let heads = claim(&store, &queue, "").await;
    assert_eq!(heads.iter().map(text).collect::<Vec<_>>(), ["a"]);
    assert!(
        claim(&store, &queue, "batch").await.is_empty(),
        "claims stay"
    );
}

pub async fn journal_removes_what_matches(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let all = filled(&store, &queue).await;
    let removed = async |filter: Filter, limit| {
        let removed = remove(&store, &queue, &filter, limit).await;
        let mut removed = texts(&removed);
        removed.sort();
        removed.concat()
    };
    let ids = |ids: &[usize]| Filter {
        ids: Some(ids.iter().map(|n| all[*n].id).collect()),
        ..Filter::default()
    };
    assert_eq!(removed(ids(&[3]), 10).await, "c", "from the middle");
    assert_eq!(removed(ids(&[3]), 10).await, "", "once");
    assert_eq!(
        removed(ids(&[0, 5]), 10).await,
        "ae",
        "a head and a whole lane"
    );
    assert_eq!(removed(ids(&[1]), 0).await, "");
    let depth = store.depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (3, 2));
    Journal::release(&*store, &queue, &Filter::default())
        .await
        .expect("release");
    let head = claim(&store, &queue, "").await.remove(0);
    assert_eq!(text(&head), "f", "the next head has its lane's place");
    assert_eq!(done(&store, &queue, &head).await, Next::Empty);
    let head = claim(&store, &queue, "batch").await.remove(0);
    assert_eq!(text(&head), "b");
    assert!(matches!(done(&store, &queue, &head).await, Next::Head(next) if text(&next) == "d"));
    store.reclaim(&queue).await.expect("reclaim");
    assert_eq!(removed(Filter::default(), 1).await, "d");
    assert_eq!(removed(Filter::default(), 10).await, "");
    assert!(!store.queues().await.expect("queues").contains(&queue));
    assert_eq!(store.next_due(&queue).await.expect("next due"), None);
    assert!(claim(&store, &queue, "batch").await.is_empty());
}

pub async fn journal_withdraws_what_nobody_works_on(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let queue = unique("q");
    add(&store, &queue, &lane("", 1), NOW, &["a", "b", "c"]).await;
    add(&store, &queue, &lane("", 2), Due::After(LONG), &["d"]).await;
    let head = claim(&store, &queue, "").await.remove(0);
    let all = Filter::default();
    let withdraw = async |lease| {
        let withdrawn = other.withdraw(&queue, &all, 10, Cause::Expired, lease);
        withdrawn.await.expect("withdraw")
    };
    let withdrawn = withdraw(SOON).await;
    let mut taken = texts(&withdrawn.taken);
    taken.sort();
    assert_eq!(taken, ["b", "c", "d"]);
    assert_eq!(withdrawn.in_hand, 1, "somebody may be sending a");
    let depth = store.depth(&queue).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (1, 1));
    assert_eq!(done(&store, &queue, &head).await, Next::Empty);
    assert_eq!(withdraw(LONG).await.taken, []);

    // They stay until they are forgotten, and are another's once the lease is over.
    let outgoing = store.outgoing(&queue, 10).await.expect("outgoing");
    assert_eq!(outgoing.len(), 3);
    assert!(
        outgoing
            .iter()
            .all(|one| one.cause == Cause::Expired && one.queue == queue)
    );
    assert!(outgoing.iter().any(|one| one.entry == entry("d")));
    assert!(store.queues().await.expect("queues").contains(&queue));
    let adopted = until("the lease is over", || async {
        let adopted = store.adopt(&queue, 2, LONG).await.expect("adopt");
        (!adopted.is_empty()).then_some(adopted)
    })
    .await;
    let adopted_ids: Vec<u64> = adopted.iter().map(|one| one.id).collect();
    store.forget(&queue, &adopted_ids).await.expect("forget");
    let rest = until("so is the last one's", || async {
        let rest = other.adopt(&queue, 10, LONG).await.expect("adopt");
        (!rest.is_empty()).then_some(rest)
    })
    .await;
    assert_eq!((adopted.len(), rest.len()), (2, 1), "each once");
    assert_eq!(store.adopt(&queue, 10, LONG).await.expect("adopt"), []);
    let ids: Vec<u64> = rest.iter().map(|one| one.id).collect();
    store.forget(&queue, &ids).await.expect("forget");
    store.forget(&queue, &ids).await.expect("once more");
    assert_eq!(store.outgoing(&queue, 10).await.expect("outgoing"), []);
    assert!(!store.queues().await.expect("queues").contains(&queue));

    // A claim that ended binds nobody.
    add(&store, &queue, &lane("", 1), NOW, &["e"]).await;
    let claimed = store.claim(&queue, "", 1, SOON).await.expect("claim");
    let taken = until("the claim is over", || async {
        let withdrawn = withdraw(LONG).await;
        (!withdrawn.taken.is_empty()).then_some(withdrawn)
    })
    .await;
    assert_eq!(
        (texts(&taken.taken), taken.in_hand),
        (vec!["e".to_owned()], 0)
    );
    assert_eq!(done(&store, &queue, &claimed[0]).await, Next::Moved);
}

pub async fn journal_withdraws_by_age_from_the_head(source: &impl Source) {
    let (store, queue) = (source.client().await, unique("q"));
    let messages = [
        (1, 10, "a"),
        (1, 20, "b"),
        (1, 90, "c"),
        (1, 15, "d"),
        (2, 50, "e"),
        (3, 49, "f"),
    ];
    let messages = messages.map(|(number, since, body)| {
        let mut append = append(&lane("", number), NOW, body);
        append.entry.about.since = since;
        append
    });
    store.append(&queue, messages.into()).await.expect("append");
    let old = Filter {
        before: Some(50),
        ..Filter::default()
    };
    let mut listed = bodies(&list(&store, &queue, old.clone()).await);
    listed.sort();
    assert_eq!(listed, ["a", "b", "f"]);
    let mut taken = texts(&remove(&store, &queue, &old, 10).await);
    taken.sort();
    assert_eq!(taken, ["a", "b", "f"], "d stands behind a younger one");
    assert_eq!(store.depth(&queue).await.expect("depth").messages, 3);
}

/// Workers and a person who drops race: every message is worked on or dropped, and none both.
pub async fn journal_gives_a_message_to_a_worker_or_to_who_drops_it(source: &impl Source) {
    const LANES: u64 = 20;
    const EACH: usize = 10;
    let (queue, dropper) = (Arc::new(unique("q")), source.client().await);
    let bodies = |lane: u64| (0..EACH).map(move |n| format!("{lane}.{n}"));
    for number in 0..LANES {
        let bodies: Vec<String> = bodies(number).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        add(&dropper, &queue, &lane("", number), NOW, &bodies).await;
    }
    let mut workers = tokio::task::JoinSet::new();
    for seed in 1..=3 {
        let (store, queue): (Arc<dyn StateStore>, _) = (source.client().await, Arc::clone(&queue));
        let mut dice = Dice::new(seed);
        workers.spawn(async move {
            let mut worked = Vec::new();
            while store.depth(&queue).await.expect("depth").messages > 0 {
                for mut head in store.claim(&queue, "", 2, LONG).await.expect("claim") {
                    loop {
                        if dice.roll(2) == 0 {
                            tokio::task::yield_now().await;
                        }
                        let step = store.step(&queue, &head.lane, head.id, Step::Done, LONG);
                        let next = step.await.expect("step");
                        worked.push(text(&head));
                        match next {
                            Next::Head(next) => head = next,
                            Next::Empty => break,
                            other => panic!("what is in hand is nobody else's: {other:?}"),
                        }
                    }
                }
            }
            worked
        });
    }
    let mut dropped = Vec::new();
    let mut dice = Dice::new(9);
    while dropper.depth(&queue).await.expect("depth").messages > 0 {
        let limit = 1 + dice.roll(7) as usize;
        dropped.extend(texts(
            &remove(&dropper, &queue, &Filter::default(), limit).await,
        ));
        tokio::task::yield_now().await;
    }
    let mut all = dropped;
    while let Some(worked) = workers.join_next().await {
        all.extend(worked.expect("no worker fails"));
    }
    let each: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(each, (0..LANES).flat_map(bodies).collect());
    assert_eq!(all.len(), each.len(), "none both");
}
