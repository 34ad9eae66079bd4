//! What children said, and whether a store has all that was answered to them.

use super::{ACCOUNT, BATCH, QUEUE, ROWS};
use crate::state_suite::{LONG, text};
use std::collections::{BTreeMap, BTreeSet};
use vumi_core::state::embedded::EmbeddedStore;
use vumi_core::state::first_seen::Reserved;
use vumi_core::state::journal::{Filter, Lane};
use vumi_core::state::ledger::{Query, RowState};
use vumi_core::state::{FirstSeen, Journal, Ledger, Sessions};

type Heard = BTreeMap<String, Vec<String>>;

/// What a child said in pairs of numbers.
fn pairs(heard: &Heard, what: &str) -> BTreeSet<(u64, u64)> {
    let said = heard.get(what).into_iter().flatten();
    said.map(|line| {
        let (a, b) = line.split_once(' ').expect("two numbers");
        (a.parse().expect("a number"), b.parse().expect("a number"))
    })
    .collect()
}

/// Everything that children said, over all rounds.
#[derive(Default)]
pub(super) struct Said {
    appended: BTreeSet<(u64, u64)>,
    removing: BTreeSet<(u64, u64)>,
    removed: BTreeSet<(u64, u64)>,
    pub(super) stored: BTreeMap<u64, u64>,
    seen: Vec<String>,
    created: Vec<String>,
}

impl Said {
    pub(super) fn hear(&mut self, mut heard: Heard) {
        self.appended.extend(pairs(&heard, "appended"));
        self.removing.extend(pairs(&heard, "removing"));
        self.removed.extend(pairs(&heard, "removed"));
        for (row, version) in pairs(&heard, "stored") {
            let highest = self.stored.entry(row).or_default();
            *highest = version.max(*highest);
        }
        self.seen = heard.remove("seen").unwrap_or_default();
        self.created = heard.remove("created").unwrap_or_default();
    }

    /// Every answered operation is there, and none is half done.
    pub(super) async fn check(&self, store: &EmbeddedStore, in_flight: u64) {
        self.check_journal(store).await;
        self.check_ledger(store, in_flight).await;
        for id in &self.seen {
            let found = FirstSeen::reserve(store, ACCOUNT, id, LONG)
                .await
                .expect("reserve");
            assert_eq!(found, Reserved::Seen(id.clone().into_bytes().into()));
        }
        for id in &self.created {
            let session = store.load(ACCOUNT, id).await.expect("load");
            assert!(session.is_some(), "session {id} was created and is lost");
        }
    }

    async fn check_journal(&self, store: &EmbeddedStore) {
        let listed = store
            .list(QUEUE, &Filter::default(), usize::MAX)
            .await
            .expect("list");
        let depth = store.depth(QUEUE).await.expect("depth");
        let mut lanes: BTreeMap<Lane, Vec<u64>> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for one in &listed {
            let n = std::str::from_utf8(&one.entry.body).expect("text");
            lanes
                .entry(one.lane.clone())
                .or_default()
                .push(n.parse().expect("a number"));
            assert!(ids.insert(one.id), "an id twice");
        }
        let counted = (listed.len() as u64, lanes.len() as u64);
        assert_eq!(
            (depth.messages, depth.lanes),
            counted,
            "counts are the contents"
        );
        let mut there = BTreeSet::new();
        for (lane, numbers) in &lanes {
            assert!(
                numbers.is_sorted_by(|a, b| a < b),
                "order, no repeats: {numbers:?}"
            );
            there.extend(numbers.iter().map(|n| (lane.number, *n)));
        }
        for (lane, first) in &self.appended {
            for n in *first..*first + BATCH {
                let gone = self.removing.contains(&(*lane, n));
                assert!(
                    gone || there.contains(&(*lane, n)),
                    "{lane}/{n} was appended and is lost"
                );
            }
        }
        for removed in &self.removed {
            assert!(
                !there.contains(removed),
                "{removed:?} was removed and is there"
            );
        }
        // All of a batch or nothing: its last is there if any is, since they leave from the front.
        for (lane, n) in &there {
            let last = n - (n - 1) % BATCH + BATCH - 1;
            assert!(
                there.contains(&(*lane, last)),
                "half of the batch of {lane}/{n}"
            );
        }
        // Every lane can be had, with its head.
        store.reclaim(QUEUE).await.expect("reclaim");
        let heads = store
            .claim(QUEUE, "", usize::MAX, LONG)
            .await
            .expect("claim");
        assert_eq!(heads.len(), lanes.len(), "every lane is due");
        for head in heads {
            assert_eq!(
                text(&head).parse::<u64>().expect("a number"),
                lanes[&head.lane][0]
            );
        }
        store.reclaim(QUEUE).await.expect("reclaim");
    }

    async fn check_ledger(&self, store: &EmbeddedStore, in_flight: u64) {
        let mut counts = BTreeMap::new();
        for number in 0..ROWS {
            let id = format!("row {number}");
            let said = self.stored.get(&number).copied().unwrap_or(0);
            let Some(row) = store.row(&id).await.expect("row") else {
                assert_eq!(said, 0, "{id} was stored and is lost");
                continue;
            };
            let versions = said..=said + in_flight;
            assert!(
                versions.contains(&row.version),
                "{id}: {} of {versions:?}",
                row.version
            );
            *counts.entry((ACCOUNT.to_owned(), row.state)).or_insert(0) += 1;
            let in_state = store
                .in_state(ACCOUNT, row.state, 100)
                .await
                .expect("in state");
            assert!(in_state.contains(&id));
            let remote = row.remote_id.clone().expect("set");
            let found = store
                .by_remote_id(ACCOUNT, &remote)
                .await
                .expect("by remote id");
            assert_eq!(found.as_ref(), Some(&row));
            let person = Query::Person(format!("person {number}"));
            assert_eq!(store.find(&person, 9).await.expect("find"), [id]);
        }
        assert_eq!(store.counts().await.expect("counts"), counts);
        for state in RowState::ALL {
            let indexed = store.in_state(ACCOUNT, state, 100).await.expect("in state");
            let counted = counts
                .get(&(ACCOUNT.to_owned(), state))
                .copied()
                .unwrap_or(0);
            assert_eq!(indexed.len() as u64, counted, "{state:?}");
        }
    }
}
