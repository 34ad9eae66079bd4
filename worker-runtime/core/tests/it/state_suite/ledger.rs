//! The ledger, sentence by sentence, and writers racing for one row.

use super::{LONG, SOON, Source, now, sweep_all, unique, until};
use std::sync::Arc;
use std::time::Duration;
use vumi_core::state::StateStore;
use vumi_core::state::ledger::{Change, LeftTo, Note, Put, Query, Row, RowState, Step};

pub fn step(at: u64, text: &str) -> Step {
    Step {
        at,
        worker: "transport/sms".into(),
        state: None,
        attempt: 1,
        code: String::new(),
        class: String::new(),
        text: text.into(),
        who: String::new(),
        caused: Vec::new(),
        holder: None,
    }
}

pub fn change(state: RowState, at: u64, patience: Duration) -> Change {
    Change {
        step: step(at, "it went on"),
        state,
        patience,
        remote_id: None,
        told: Vec::new(),
    }
}

pub(super) fn fresh(id: &str, account: &str, born: u64) -> Row {
    let row = Row::new(id, account, born);
    row.after(change(RowState::Accepted, born, LONG))
        .expect("a first step")
}

pub(super) async fn put(store: &Arc<dyn StateStore>, row: &Row, expected: Option<u64>) {
    let put = store.put(row, expected, LONG).await.expect("put");
    assert_eq!(put, Put::Stored);
}

pub(super) async fn moved(store: &Arc<dyn StateStore>, row: &Row, change: Change) -> Row {
    let next = row.after(change).expect("not final");
    put(store, &next, Some(row.version)).await;
    next
}

async fn find(store: &Arc<dyn StateStore>, query: Query) -> Vec<String> {
    store.find(&query, 100).await.expect("find")
}

async fn count(store: &Arc<dyn StateStore>, account: &str, state: RowState) -> u64 {
    let counts = store.counts().await.expect("counts");
    counts
        .get(&(account.to_owned(), state))
        .copied()
        .unwrap_or(0)
}

pub async fn ledger_stores_by_version(source: &impl Source) {
    let (store, other) = (source.client().await, source.client().await);
    let (id, account) = (unique("m"), unique("sms"));
    assert_eq!(store.row(&id).await.expect("row"), None);
    let mut first = fresh(&id, &account, 1000);
    first.person = Some("p".into());
    first.batch = Some("b".into());
    first.told = vec!["{\"an\": \"event\"}".into()];
    put(&store, &first, None).await;
    assert_eq!(other.row(&id).await.expect("row").as_ref(), Some(&first));
    let conflict = Put::Conflict(Box::new(first.clone()));
    for expected in [None, Some(0), Some(2)] {
        let again = fresh(&id, &account, 2000);
        let put = other.put(&again, expected, LONG).await.expect("put");
        assert_eq!(put, conflict);
    }
    assert_eq!(store.row(&id).await.expect("row").as_ref(), Some(&first));
    let second = moved(&other, &first, change(RowState::Sending, 1001, LONG)).await;
    let stale = store
        .put(&second, Some(first.version), LONG)
        .await
        .expect("put");
    assert_eq!(stale, Put::Conflict(Box::new(second.clone())));
    // One that was erased meanwhile is stored anew.
    let gone = fresh(&unique("m"), &account, 1000);
    put(&store, &gone, Some(7)).await;
    assert_eq!(store.row(&gone.message_id).await.expect("row"), Some(gone));
}

pub async fn ledger_finds_rows_and_trails(source: &impl Source) {
    let store = source.client().await;
    let (account, person) = (unique("sms"), unique("person"));
    let (old, new, seen) = (unique("m"), unique("m"), unique("m"));
    // A time of its own, so that other tests do not stand in it.
    let base = 1_000_000_000_000 + (now() % 1_000_000) * 1_000_000;
    for (id, born) in [(&new, base + 30), (&old, base + 10)] {
        let mut row = fresh(id, &account, born);
        row.person = Some(person.clone());
        put(&store, &row, None).await;
    }
    let note = |id: &str, at| Note {
        message_id: id.to_owned(),
        person: Some(person.clone()),
        step: step(at, "passed"),
    };
    let notes = [note(&seen, base + 20), note(&old, base + 11)];
    store.note(&notes, LONG).await.expect("note");
    store
        .note(&[note(&seen, base + 90)], LONG)
        .await
        .expect("note");
    let by_person = find(&store, Query::Person(person.clone())).await;
    assert_eq!(
        by_person,
        [new.as_str(), &seen, &old],
        "newest first, each once"
    );
    let limited = store.find(&Query::Person(person), 2).await.expect("find");
    assert_eq!(limited, [new.as_str(), &seen]);
    assert!(
        find(&store, Query::Person(unique("nobody")))
            .await
            .is_empty()
    );
    let between = async |from, to| find(&store, Query::Between(base + from, base + to)).await;
    assert_eq!(between(0, 100).await, [new.as_str(), &seen, &old]);
    assert_eq!(
        between(10, 20).await,
        [seen.as_str(), &old],
        "both ends count"
    );
    assert_eq!(between(12, 19).await, [""; 0]);
    assert_eq!(between(40, 0).await, [""; 0]);
    assert_eq!(find(&store, Query::Message(seen.clone())).await, [seen]);
    assert_eq!(find(&store, Query::Message(new.clone())).await, [new]);
    assert!(find(&store, Query::Message(unique("m"))).await.is_empty());
}

pub async fn ledger_finds_remote_ids(source: &impl Source) {
    let (store, account) = (source.client().await, unique("sms"));
    let sent = |id: &str, remote: &str| {
        let change = Change {
            remote_id: Some(remote.into()),
            ..change(RowState::Sent, 2000, LONG)
        };
        fresh(id, &account, 1000).after(change).expect("a step")
    };
    let one = sent(&unique("m"), "r1");
    put(&store, &one, None).await;
    let by = async |account: &str, remote: &str| {
        store
            .by_remote_id(account, remote)
            .await
            .expect("by remote id")
    };
    assert_eq!(by(&account, "r1").await.as_ref(), Some(&one));
    assert_eq!(by(&account, "r").await, None);
    assert_eq!(by(&unique("sms"), "r1").await, None);
    let two = sent(&unique("m"), "r1");
    put(&store, &two, None).await;
    assert_eq!(by(&account, "r1").await, None, "two have it");
    // The second one gets another id of its provider.
    let change = Change {
        remote_id: Some("r2".into()),
        ..change(RowState::Delivered, 3000, LONG)
    };
    let two = moved(&store, &two, change).await;
    assert_eq!(by(&account, "r1").await, Some(one));
    assert_eq!(by(&account, "r2").await, Some(two), "final ones too");
}

pub async fn ledger_counts_by_state(source: &impl Source) {
    let (store, account) = (source.client().await, unique("sms"));
    let mut ids = Vec::new();
    for born in [1003, 1001, 1002] {
        let row = fresh(&unique("m"), &account, born);
        put(&store, &row, None).await;
        ids.push(row);
    }
    assert_eq!(count(&store, &account, RowState::Accepted).await, 3);
    let in_state = async |state, limit| {
        store
            .in_state(&account, state, limit)
            .await
            .expect("in state")
    };
    let [third, first, second] = &ids[..] else {
        panic!("three rows");
    };
    let oldest = [&first.message_id, &second.message_id, &third.message_id];
    assert_eq!(
        in_state(RowState::Accepted, 9)
            .await
            .iter()
            .collect::<Vec<_>>(),
        oldest
    );
    assert_eq!(
        in_state(RowState::Accepted, 1)
            .await
            .iter()
            .collect::<Vec<_>>(),
        oldest[..1]
    );
    let sending = moved(&store, first, change(RowState::Sending, 2000, LONG)).await;
    assert_eq!(count(&store, &account, RowState::Accepted).await, 2);
    assert_eq!(count(&store, &account, RowState::Sending).await, 1);
    moved(&store, &sending, change(RowState::Failed, 3000, LONG)).await;
    assert_eq!(count(&store, &account, RowState::Sending).await, 0);
    assert_eq!(in_state(RowState::Sending, 9).await, [""; 0]);
    assert_eq!(
        in_state(RowState::Failed, 9).await,
        vec![first.message_id.clone()]
    );
    assert_eq!(count(&store, &unique("sms"), RowState::Accepted).await, 0);
}

pub async fn ledger_knows_what_is_overdue(source: &impl Source) {
    let (store, account) = (source.client().await, unique("sms"));
    let begin = now() - 100_000;
    let mut rows = Vec::new();
    for patience in [20, 10, 3600] {
        let change = change(RowState::Queued, begin, Duration::from_secs(patience));
        let row = Row::new(&unique("m"), &account, begin)
            .after(change)
            .expect("a step");
        put(&store, &row, None).await;
        rows.push(row);
    }
    let left = async |left_to, skip, limit| {
        let overdue = store.overdue(&account, left_to, skip, limit).await;
        overdue.expect("overdue")
    };
    let overdue = async |limit| left(LeftTo::Person, 0, limit).await;
    let longest = vec![rows[1].message_id.clone(), rows[0].message_id.clone()];
    assert_eq!(overdue(9).await, (2, longest.clone()));
    assert_eq!(overdue(1).await, (2, longest[..1].to_vec()), "all count");
    let behind = left(LeftTo::Person, 1, 9).await;
    assert_eq!(behind, (2, longest[1..].to_vec()), "those behind the first");
    assert_eq!(left(LeftTo::Rules, 0, 9).await, (0, Vec::new()));
    moved(&store, &rows[0], change(RowState::Sent, now(), LONG)).await;
    moved(
        &store,
        &rows[1],
        change(RowState::Failed, now(), Duration::ZERO),
    )
    .await;
    assert_eq!(overdue(9).await, (0, Vec::new()), "a step and an end");
    let soon = change(RowState::Unknown, now(), SOON);
    moved(&store, &rows[2], soon).await;
    until("its patience ends", || async {
        (left(LeftTo::Rules, 0, 0).await.0 == 1).then_some(())
    })
    .await;
    assert_eq!(overdue(9).await, (0, Vec::new()), "a rule ends it");
}

pub async fn ledger_keeps_trails(source: &impl Source) {
    let (store, id) = (source.client().await, unique("m"));
    assert!(store.trail(&id).await.expect("trail").is_empty());
    let note = |at, text| Note {
        message_id: id.clone(),
        person: None,
        step: Step {
            caused: vec!["another".into()],
            holder: Some("sms.reply.one".into()),
            ..step(at, text)
        },
    };
    let first = [note(10, "came in"), note(30, "was routed")];
    store.note(&first, LONG).await.expect("note");
    store
        .note(&[note(20, "was thought about")], LONG)
        .await
        .expect("note");
    let trail = store.trail(&id).await.expect("trail");
    let texts: Vec<&str> = trail.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts, ["came in", "was thought about", "was routed"]);
    assert_eq!(trail[0], first[0].step);
    assert_eq!(
        store.row(&id).await.expect("row"),
        None,
        "a trail is no row"
    );
}

pub async fn ledger_keeps_final_rows_for_their_time(source: &impl Source) {
    let (store, account) = (source.client().await, unique("sms"));
    let (open, short, long) = (unique("m"), unique("m"), unique("m"));
    let person = unique("person");
    let note = |id: &str| Note {
        message_id: id.to_owned(),
        person: Some(person.clone()),
        step: step(1000, "passed"),
    };
    let lost = unique("m");
    store
        .note(&[note(&open), note(&lost), note(&short)], SOON)
        .await
        .expect("note");
    store.note(&[note(&long)], LONG).await.expect("note");
    for (id, ends, keep) in [
        (&open, false, SOON),
        (&short, true, SOON),
        (&long, true, LONG),
    ] {
        let mut row = fresh(id, &account, 1000);
        row.person = Some(person.clone());
        row.remote_id = Some(id.clone());
        assert_eq!(store.put(&row, None, keep).await.expect("put"), Put::Stored);
        if ends {
            let last = row
                .after(change(RowState::Delivered, 2000, LONG))
                .expect("a step");
            let put = store
                .put(&last, Some(row.version), keep)
                .await
                .expect("put");
            assert_eq!(put, Put::Stored);
        }
    }
    assert!(store.row(&short).await.expect("row").is_some());
    until("what is short is gone", || async {
        sweep_all(&store).await;
        let row = store.row(&short).await.expect("row");
        let trails = [&short, &open, &lost].map(|id| store.trail(id));
        let trails = futures::future::join_all(trails).await;
        let gone = trails
            .iter()
            .all(|trail| trail.as_ref().expect("trail").is_empty());
        (row.is_none() && gone).then_some(())
    })
    .await;
    assert!(
        store.row(&open).await.expect("row").is_some(),
        "never while it is not final"
    );
    assert!(store.row(&long).await.expect("row").is_some());
    assert_eq!(
        store.trail(&long).await.expect("trail").len(),
        1,
        "it has a time of its own"
    );
    assert_eq!(count(&store, &account, RowState::Delivered).await, 1);
    assert_eq!(count(&store, &account, RowState::Accepted).await, 1);
    let mut found = find(&store, Query::Person(person)).await;
    found.sort();
    let mut left = [open, long];
    left.sort();
    assert_eq!(found, left);
    let by = store
        .by_remote_id(&account, &short)
        .await
        .expect("by remote id");
    assert_eq!(by, None);
    let delivered = store.in_state(&account, RowState::Delivered, 9).await;
    assert_eq!(delivered.expect("in state").len(), 1);
}

/// A sign of life is seen by every client until its time is over, and anew after another.
pub async fn ledger_knows_who_lives(source: &impl Source) {
    let (one, two) = (source.client().await, source.client().await);
    let worker = format!("transport/{}@a b:c", unique("sms"));
    let lives = async || two.lives(&worker).await.expect("lives");
    assert!(!lives().await);
    one.live(&worker, SOON).await.expect("a sign");
    until("the sign is over", || async {
        (!lives().await).then_some(())
    })
    .await;
    one.live(&worker, SOON).await.expect("a sign");
    one.live(&worker, LONG).await.expect("a sign");
    assert!(lives().await);
}

/// Writers of two clients race for one row: each change is made once, on the row as it was.
pub async fn ledger_loses_no_update(source: &impl Source) {
    const WRITERS: u64 = 6;
    const EACH: u64 = 25;
    let clients = [source.client().await, source.client().await];
    let (id, account) = (unique("m"), unique("sms"));
    put(&clients[0], &Row::new(&id, &account, 1), None).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&clients[writer as usize % 2]);
        let id = id.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                let mut row = store.row(&id).await.expect("row").expect("there");
                loop {
                    let state = if n % 2 == 0 {
                        RowState::Queued
                    } else {
                        RowState::Held
                    };
                    let mut change = change(state, n, LONG);
                    change.told = vec![format!("{writer}/{n}")];
                    let next = row.after(change).expect("not final");
                    match store
                        .put(&next, Some(row.version), LONG)
                        .await
                        .expect("put")
                    {
                        Put::Stored => break,
                        Put::Conflict(current) => row = *current,
                    }
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no task fails");
    }
    let row = clients[1].row(&id).await.expect("row").expect("there");
    assert_eq!(row.version, WRITERS * EACH);
    let mut told = row.told.clone();
    told.sort();
    told.dedup();
    assert_eq!(told.len() as u64, WRITERS * EACH, "each change once");
    let mut total = 0;
    for state in RowState::ALL {
        let expected = u64::from(state == row.state);
        assert_eq!(count(&clients[0], &account, state).await, expected);
        total += expected;
    }
    assert_eq!(total, 1);
    // And the first row of a message is made by one of many.
    let id = unique("m");
    let puts = (0..8).map(|n| {
        let (store, row) = (&clients[n % 2], fresh(&id, &account, n as u64));
        async move { store.put(&row, None, LONG).await.expect("put") }
    });
    let puts = futures::future::join_all(puts).await;
    assert_eq!(puts.iter().filter(|put| **put == Put::Stored).count(), 1);
}
