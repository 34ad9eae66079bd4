//! One record that cannot be read among others: it stops nothing but itself.

use super::{store, up};
use crate::state_suite::{LONG, NOW, append, change, lane, until};
use std::sync::Arc;
use std::time::Duration;
use vumi_core::codes;
use vumi_core::state::journal::{Cause, Claimed, Filter, Mover, Next, Reason, Step};
use vumi_core::state::ledger::{Put, Row, RowState};
use vumi_core::state::redis::RedisStore;
use vumi_core::state::{Journal, Ledger, StateStore};
use vumi_testkit::redis::{Options, Redis};

const NONSENSE: &str = "no record of ours";

/// Writes over an entry of the queue `q`; without a number not even that can be read.
async fn spoil(redis: &Redis, lane: u64, place: &str, number: Option<u64>) {
    let key = format!("vumi:J:l:q:{lane:016x}:");
    let entry = match number {
        Some(number) => format!("{number}:{NONSENSE}"),
        None => NONSENSE.to_owned(),
    };
    let told = redis.cli(&["lset", &key, place, &entry]).await;
    assert_eq!(told.expect("told"), "OK");
}

fn body(claimed: &Claimed) -> &[u8] {
    &claimed.entry.body
}

/// A journal with a spoilt entry in the middle of one lane, and another one, without a number, alone in a lane.
async fn spoilt(redis: &Redis) -> Arc<RedisStore> {
    let store = store(redis);
    up(&store).await;
    let messages = [(1, "a"), (1, "?"), (1, "b"), (2, "c"), (3, "?")];
    let messages = messages.map(|(number, body)| append(&lane("", number), NOW, body));
    let appended = store.append("q", messages.into()).await;
    appended.expect("appended");
    let listed = store.list("q", &Filter::default(), 10).await;
    let second = listed.expect("listed")[1].id;
    spoil(redis, 1, "1", Some(second)).await;
    spoil(redis, 3, "0", None).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_holds_up_no_other() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = spoilt(&redis).await;
    let list = async |filter: &Filter| store.list("q", filter, 10).await.expect("listed");
    let listed = list(&Filter::default()).await;
    let reasons: Vec<Reason> = listed.iter().map(|one| one.entry.about.reason).collect();
    let (good, bad) = (Reason::Backoff, Reason::Unreadable);
    assert_eq!(reasons, [good, bad, good, good, bad]);
    for (reason, count) in [(good, 3), (bad, 2)] {
        let filter = Filter {
            reason: Some(reason),
            ..Filter::default()
        };
        assert_eq!(list(&filter).await.len(), count, "{reason:?}");
    }

    let heads = store.claim("q", "", 10, LONG).await.expect("claimed");
    let [a, c, alone] = &heads[..] else {
        panic!("{heads:?}");
    };
    let bodies = (body(a), body(c), body(alone));
    assert_eq!(bodies, (&b"a"[..], &b"c"[..], NONSENSE.as_bytes()));
    let done = async |head: &Claimed| {
        let step = store.step("q", &head.lane, head.id, Step::Done, LONG);
        step.await.expect("a step")
    };
    let Next::Head(second) = done(a).await else {
        panic!("the spoilt one follows");
    };
    let flaw = second.entry.flaw().expect("it cannot be read");
    assert_eq!(flaw.code, codes::STATE_UNREADABLE);
    assert_eq!(body(&second), NONSENSE.as_bytes());
    let Next::Head(third) = done(&second).await else {
        panic!("b follows");
    };
    assert_eq!(body(&third), b"b");
    for head in [&third, c, alone] {
        assert_eq!(done(head).await, Next::Empty);
    }
    assert_eq!(store.depth("q").await.expect("depth").messages, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_moves_along_and_can_be_dropped_and_is_never_too_old() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = spoilt(&redis).await;
    let mover = Mover {
        queue: "q".into(),
        token: "one".into(),
    };
    store.appoint(&mover).await.expect("appointed");
    // One lane moves behind what stands there already, message by message.
    let there = append(&lane("", 3), NOW, "there");
    store.append("p", vec![there]).await.expect("appended");
    let lanes = [lane("", 1), lane("", 2), lane("", 3)];
    let moved = store.relocate(&mover, "q", "p", &lanes).await;
    assert_eq!(moved.expect("moved"), 5);
    let heads = store.heads("p", &lanes).await.expect("heads");
    assert_eq!(heads.iter().flatten().count(), 3);

    let old = Filter {
        before: Some(u64::MAX >> 12),
        ..Filter::default()
    };
    let withdraw = async |filter: &Filter| {
        let withdrawn = store.withdraw("p", filter, 10, Cause::Expired, LONG).await;
        withdrawn.expect("withdrawn").taken.len()
    };
    assert_eq!(withdraw(&old).await, 4, "what is known to be old");
    assert_eq!(withdraw(&Filter::default()).await, 2);
    let out = store.outgoing("p", 10).await.expect("on its way out");
    let spoilt = out.iter().filter(|one| one.entry.body == NONSENSE);
    assert_eq!((spoilt.count(), out.len()), (2, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_holds_up_neither_a_sweep_nor_lists() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let store = store(&redis);
    up(&store).await;
    for id in ["m1", "m2", "m3"] {
        let failed = change(RowState::Failed, 1, Duration::ZERO);
        let row = Row::new(id, "sms", 1).after(failed).expect("a step");
        let put = store.put(&row, None, Duration::from_millis(1)).await;
        assert_eq!(put.expect("put"), Put::Stored);
    }
    let told = redis.cli(&["set", "vumi:L:r:m2", NONSENSE]).await;
    assert_eq!(told.expect("told"), "OK");
    until("the others are swept", || async {
        StateStore::sweep(&*store).await.expect("swept");
        let gone = ["m1", "m3"].map(|id| store.row(id));
        let gone = futures::future::join_all(gone).await;
        let gone = gone.into_iter().all(|row| row.expect("asked").is_none());
        gone.then_some(())
    })
    .await;
    let error = store.row("m2").await.expect_err("it is still there");
    assert_eq!(error.code, codes::STATE_UNREADABLE);
    assert_eq!(StateStore::sweep(&*store).await.expect("swept"), 0);
    let counted = store.counts().await.expect("counted");
    assert_eq!(counted.values().sum::<u64>(), 1);
    let known = store.in_state("sms", RowState::Failed, 10).await;
    assert_eq!(known.expect("listed"), ["m2"]);
}
