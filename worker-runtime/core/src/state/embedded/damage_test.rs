//! One record that cannot be read among others: it stops nothing but itself.

use super::disk::Space;
use super::keys::{Key, tag};
use super::{EmbeddedStore, EmbeddedStoreOptions, ledger};
use crate::codes;
use crate::state::journal::{
    About, Append, Cause, Claimed, Due, Entry, Filter, Lane, Mover, Next, Reason, Step,
};
use crate::state::ledger::{Change, Note, Put, Row, RowState};
use crate::state::{Journal, Ledger, StateStore};
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);
const NONSENSE: &[u8] = b"\xffno record of ours";

impl EmbeddedStore {
    /// Writes over an entry of a journal, in the place of the one with this number.
    pub(crate) async fn spoil_entry(&self, queue: &str, lane: &Lane, id: u64) {
        let key = Key::new(tag::ENTRY).name(queue).name(&lane.group);
        self.spoil(key.number(lane.number).number(id)).await;
    }

    /// Writes over the row of a message; its indexes stay.
    pub(crate) async fn spoil_row(&self, message_id: &str) {
        self.spoil(ledger::row_key(message_id)).await;
    }

    async fn spoil(&self, key: Key) {
        let spoilt = self.write(move |tx| {
            tx.insert(Space::Records, key, NONSENSE);
            Ok(())
        });
        spoilt.await.unwrap();
    }
}

fn store() -> Arc<EmbeddedStore> {
    EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap()
}

fn lane(number: u64) -> Lane {
    Lane {
        group: String::new(),
        number,
    }
}

fn message(number: u64, body: &'static str) -> Append {
    let about = About {
        reason: Reason::Backoff,
        since: 1_700_000_000_000,
        attempts: 1,
        counted: 1,
        code: String::new(),
        text: String::new(),
        routing_key: "q".into(),
        amqp_message_id: None,
    };
    Append {
        lane: lane(number),
        due: Due::After(Duration::ZERO),
        entry: Entry {
            about,
            body: body.into(),
        },
    }
}

fn body(claimed: &Claimed) -> &[u8] {
    &claimed.entry.body
}

/// A journal with a spoilt entry in the middle of one lane, and another one alone in a lane.
async fn spoilt() -> Arc<EmbeddedStore> {
    let store = store();
    let messages = [(1, "a"), (1, "?"), (1, "b"), (2, "c"), (3, "?")];
    let messages = messages.map(|(number, body)| message(number, body));
    store.append("q", messages.into()).await.unwrap();
    for listed in store.list("q", &Filter::default(), 10).await.unwrap() {
        if &listed.entry.body[..] == b"?" {
            store.spoil_entry("q", &listed.lane, listed.id).await;
        }
    }
    store
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_holds_up_no_other() {
    let store = spoilt().await;
    let listed = store.list("q", &Filter::default(), 10).await.unwrap();
    let reasons: Vec<Reason> = listed.iter().map(|one| one.entry.about.reason).collect();
    let (good, bad) = (Reason::Backoff, Reason::Unreadable);
    assert_eq!(reasons, [good, bad, good, good, bad]);
    let unreadable = Filter {
        reason: Some(bad),
        ..Filter::default()
    };
    let found = store.list("q", &unreadable, 10).await.unwrap();
    assert!(found.iter().all(|one| one.entry.body == NONSENSE));
    assert_eq!(found.len(), 2);
    let code = codes::STATE_UNREADABLE;
    assert!(found.iter().all(|one| one.entry.about.code == code.name));

    let heads = store.claim("q", "", 10, LONG).await.unwrap();
    let [a, c, alone] = &heads[..] else {
        panic!("{heads:?}");
    };
    assert_eq!(
        (body(a), body(c), body(alone)),
        (&b"a"[..], &b"c"[..], NONSENSE)
    );
    let done = async |head: &Claimed| {
        let step = store.step("q", &head.lane, head.id, Step::Done, LONG);
        step.await.unwrap()
    };
    let Next::Head(second) = done(a).await else {
        panic!("the spoilt one follows");
    };
    assert_eq!(second.entry.flaw().map(|flaw| flaw.code), Some(code));
    assert_eq!(body(&second), NONSENSE);
    let Next::Head(third) = done(&second).await else {
        panic!("b follows");
    };
    assert_eq!(body(&third), b"b");
    for head in [&third, c, alone] {
        assert_eq!(done(head).await, Next::Empty);
    }
    assert_eq!(store.depth("q").await.unwrap().messages, 0);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_moves_along_and_can_be_dropped_and_is_never_too_old() {
    let store = spoilt().await;
    let mover = Mover {
        queue: "q".into(),
        token: "one".into(),
    };
    store.appoint(&mover).await.unwrap();
    let lanes = [lane(1), lane(2), lane(3)];
    let moved = store.relocate(&mover, "q", "p", &lanes).await.unwrap();
    assert_eq!(moved, 5);
    let heads = store.heads("p", &lanes).await.unwrap();
    let flawed: Vec<bool> = heads
        .iter()
        .flatten()
        .map(|head| head.flaw().is_some())
        .collect();
    assert_eq!(flawed, [false, false, true]);

    let old = Filter {
        before: Some(u64::MAX),
        ..Filter::default()
    };
    let withdraw = async |filter: &Filter| {
        let withdrawn = store.withdraw("p", filter, 10, Cause::Expired, LONG).await;
        withdrawn.unwrap().taken.len()
    };
    assert_eq!(withdraw(&old).await, 3, "what is known to be old");
    assert_eq!(withdraw(&Filter::default()).await, 2);
    let out = store.outgoing("p", 10).await.unwrap();
    let spoilt = out.iter().filter(|one| one.entry.body == NONSENSE).count();
    assert_eq!((out.len(), spoilt), (5, 2));
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_neither_a_sweep_nor_notes() {
    let store = store();
    let ids = ["m1", "m2", "m3"];
    for id in ids {
        let change = Change {
            step: crate::state::ledger::Step::of_a_person(0, codes::LEDGER_RESENT, "for the test"),
            state: RowState::Failed,
            patience: Duration::ZERO,
            remote_id: None,
            told: Vec::new(),
        };
        let row = Row::new(id, "sms", 1).after(change).unwrap();
        let put = store.put(&row, None, Duration::ZERO).await;
        assert_eq!(put.unwrap(), Put::Stored);
    }
    store.spoil_row("m2").await;
    store.spoil(ledger::trail_key("t1")).await;
    let notes = ["t1", "t2"].map(|id| Note {
        message_id: id.into(),
        person: None,
        step: crate::state::ledger::Step::of_a_person(0, codes::LEDGER_RESENT, "for the test"),
    });
    store.note(&notes, LONG).await.unwrap();
    assert_eq!(store.trail("t2").await.unwrap().len(), 1);

    let mut swept = 0;
    while swept < 2 {
        swept += StateStore::sweep(&*store).await.unwrap();
    }
    assert_eq!(swept, 2);
    for id in ["m1", "m3"] {
        assert_eq!(store.row(id).await.unwrap(), None);
    }
    let error = store.row("m2").await.unwrap_err();
    assert_eq!(error.code, codes::STATE_UNREADABLE, "it is still there");
    assert_eq!(StateStore::sweep(&*store).await.unwrap(), 0);
    assert_eq!(store.counts().await.unwrap().values().sum::<u64>(), 1);
}
