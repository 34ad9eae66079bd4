//! Removes everything that is kept of a person: in state stores and in parking queues; and says what cannot be reached.

use crate::broker::Broker;
use crate::error::WorkError;
use crate::message::glance::Glance;
use crate::parking;
use crate::state::ledger::Query;
use crate::state::{Person, StateStore};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows and entries that a dry run looks at, at most.
const LOOK: usize = 100_000;

/// What was, or would be, removed from one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Which store or queue.
    pub place: String,
    /// What: `sessions`, `journal`, `ledger`, `firstSeen`, `suspects`, `parked`.
    pub what: String,
    /// How many entries.
    pub count: u64,
}

/// What an erasure did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing was removed: it says what would be.
    pub dry_run: bool,
    /// By place.
    pub removed: Vec<Removed>,
    /// What was not looked at or cannot be, in words.
    pub not_reached: Vec<String>,
}

/// Where a person is looked for.
#[derive(Clone, Default)]
pub struct Places {
    /// State stores.
    pub stores: Vec<Arc<dyn StateStore>>,
    /// Consumed queues whose parking queues are searched, each with its broker.
    pub queues: BTreeMap<String, Arc<dyn Broker>>,
}

/// Removes everything of whoever has this address, however it is written, or with `dry_run` says what there is.
pub async fn erase(address: &str, places: &Places, dry_run: bool) -> Result<Report, WorkError> {
    let forms = Person::forms(address);
    let mut report = Report {
        dry_run,
        ..Report::default()
    };
    for (queue, broker) in &places.queues {
        let person = Person::new(address);
        let parked = parking::parked_queue(queue);
        let depth = parking::depth(&**broker, queue).await?;
        let count = parking::of_person(&**broker, queue, &person, !dry_run).await?;
        report.add(&parked, "parked", count);
        if depth > parking::KEPT_LIMIT {
            report.not_reached.push(format!(
                "{parked}: only the first {} of its {depth} messages were looked at; send some back or drop them (`vumi parked`) and do this again",
                parking::KEPT_LIMIT
            ));
        }
    }
    for store in &places.stores {
        let place = store.describe();
        for person in &forms {
            if dry_run {
                count(&**store, person, &mut report, &place).await?;
                continue;
            }
            for erased in store.erase(person).await? {
                report.add(&place, &erased.what, erased.count);
            }
        }
    }
    report.not_reached.extend(beyond(places, dry_run));
    Ok(report)
}

impl Report {
    fn add(&mut self, place: &str, what: &str, count: u64) {
        let mut there = self.removed.iter_mut();
        if let Some(one) = there.find(|one| one.place == place && one.what == what) {
            one.count += count;
            return;
        }
        self.removed.push(Removed {
            place: place.to_owned(),
            what: what.to_owned(),
            count,
        });
    }
}

/// What can be counted without removing it.
async fn count(
    store: &dyn StateStore,
    person: &Person,
    report: &mut Report,
    place: &str,
) -> Result<(), WorkError> {
    let ledger = store.find(&Query::Person(person.key()), LOOK).await?.len();
    report.add(place, "ledger", ledger as u64);
    let mut waiting = 0;
    for queue in store.queues().await? {
        let entries = store.list(&queue, &Default::default(), LOOK).await?;
        let theirs = |body: &[u8]| Glance::of(body).is_of(person);
        waiting += entries.iter().filter(|e| theirs(&e.entry.body)).count();
    }
    report.add(place, "journal", waiting as u64);
    Ok(())
}

fn beyond(places: &Places, dry_run: bool) -> Vec<String> {
    let mut said = Vec::new();
    if places.stores.is_empty() {
        said.push("state stores: none was asked".to_owned());
    } else if dry_run {
        said.push(
            "sessions, answers to providers and suspects: they are counted only when they are removed".into(),
        );
    }
    if places.queues.is_empty() {
        said.push("parking queues: no broker was asked".into());
    }
    said.extend(
        [
            "messages in queues and in hand: a broker cannot be searched; they are gone when they are handled, and what they leave is removed by doing this again",
            "logs: they hold no contents and only hashes of addresses; delete them by their age",
            "the provider and the applications: they keep their own records",
            "what Vumi's own workers keep in Redis, where some run: the scheduler (scheduler#*) until it is due, the failure worker (failures:*) for ever, unless you delete it",
            "what waits in <transport>.failures for Vumi's failure worker, or with that: what it was given with retry.external comes back and is sent; do this again then",
            "files of stores and brokers, and backups: they hold what was removed until they are written anew",
        ]
        .map(str::to_owned),
    );
    said
}
