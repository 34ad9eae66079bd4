//! What people do with messages that wait in a journal (R3): list, count, release, drop.

use crate::audit::account_of;
use crate::codes;
use crate::error::WorkError;
use crate::message::glance::Glance;
use crate::state::StateStore;
use crate::state::journal::{Filter, Lane, Listed, Reason};
use crate::state::ledger::RowState;
use crate::withdraw::{Ended, Ending, Withdrawal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Messages that are counted for a question, and dropped by one command, at most.
pub const COUNTED: usize = 10_000;
/// Messages dropped in one step.
const BATCH: usize = 200;

const DROPPED: Ending = Ending {
    state: RowState::Cancelled,
    code: codes::JOURNAL_DROPPED,
    text: "a person dropped it from the journal",
};

/// A message that waits, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Queue that it was consumed from.
    pub queue: String,
    /// Number by which it is released or dropped.
    pub id: u64,
    /// Its lane, 16 hex digits.
    pub lane: String,
    /// Group of its lane; empty where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its place in the lane; 0 is the head.
    pub place: u64,
    /// When its lane is due: milliseconds since 1970; none when it waits to be released.
    pub due: Option<u64>,
    /// Why it waits.
    pub reason: Reason,
    /// When the broker first delivered it: milliseconds since 1970.
    pub since: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Code of the last error; empty if there was none.
    pub code: String,
    /// Its sentence.
    pub text: String,
    /// `message_id`, if the body could be read.
    pub message_id: Option<String>,
    /// Hash of the recipient, if the body could be read.
    pub to_addr: Option<String>,
    /// Hash of the sender, if the body could be read.
    pub from_addr: Option<String>,
    /// Bytes of the body.
    pub size: usize,
}

impl From<Listed> for Summary {
    fn from(listed: Listed) -> Self {
        let seen = Glance::of(&listed.entry.body);
        let about = listed.entry.about;
        Self {
            queue: listed.queue,
            id: listed.id,
            lane: format!("{:016x}", listed.lane.number),
            group: listed.lane.group,
            place: listed.place,
            due: listed.due,
            reason: about.reason,
            since: about.since,
            attempts: about.attempts,
            code: about.code,
            text: about.text,
            message_id: seen.id(),
            to_addr: seen.to_addr(),
            from_addr: seen.from_addr(),
            size: listed.entry.body.len(),
        }
    }
}

/// How many messages are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Messages.
    pub messages: u64,
    /// Their lanes.
    pub lanes: u64,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// What a drop did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// Messages removed.
    pub done: u64,
    /// Outbound ones whose sender got an event.
    pub told: u64,
    /// Outbound ones whose sender got none.
    pub untold: u64,
    /// Why it stopped early, if it did; what was not done still waits.
    pub stopped: Option<String>,
}

/// Messages that wait, of one queue or of all, at most `limit` per queue.
pub async fn list(
    store: &dyn StateStore,
    queue: Option<&str>,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Summary>, WorkError> {
    let queues = match queue {
        Some(queue) => vec![queue.to_owned()],
        None => store.queues().await?,
    };
    let mut listed = Vec::new();
    for queue in queues {
        let entries = store.list(&queue, filter, limit).await?;
        listed.extend(entries.into_iter().map(Summary::from));
    }
    Ok(listed)
}

/// How many messages match.
pub async fn count(
    store: &dyn StateStore,
    queue: &str,
    filter: &Filter,
) -> Result<Counted, WorkError> {
    if *filter == Filter::default() {
        let depth = store.depth(queue).await?;
        return Ok(Counted {
            messages: depth.messages,
            lanes: depth.lanes,
            more: false,
        });
    }
    let entries = store.list(queue, filter, COUNTED + 1).await?;
    let lanes: BTreeSet<&Lane> = entries.iter().map(|entry| &entry.lane).collect();
    Ok(Counted {
        messages: entries.len() as u64,
        lanes: lanes.len() as u64,
        more: entries.len() > COUNTED,
    })
}

/// Removes the matching messages for good. The rows of outbound ones end, and their senders are told if `withdrawal` has
/// a broker. Stops at the first that fails; done again it finishes.
pub async fn drop(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    filter: &Filter,
) -> Result<Dropped, WorkError> {
    let mut dropped = Dropped::default();
    loop {
        let entries = store.list(queue, filter, BATCH).await?;
        if entries.is_empty() {
            return Ok(dropped);
        }
        let mut ids = Vec::with_capacity(entries.len());
        for entry in &entries {
            match end(withdrawal, queue, entry, &mut dropped).await {
                Ok(()) => ids.push(entry.id),
                Err(error) => {
                    dropped.stopped = Some(error.to_string());
                    break;
                }
            }
        }
        let exactly = Filter {
            ids: Some(ids),
            ..Filter::default()
        };
        let removed = store.remove(queue, &exactly, BATCH).await?;
        dropped.done += removed.len() as u64;
        // What others took away meanwhile would be listed no more; what stays would be listed for ever.
        if dropped.stopped.is_some() || removed.is_empty() {
            return Ok(dropped);
        }
    }
}

/// Ends one message before it is removed, so that a crash in between leaves it in the journal.
async fn end(
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    entry: &Listed,
    dropped: &mut Dropped,
) -> Result<(), WorkError> {
    let id = Glance::of(&entry.entry.body).id().unwrap_or_default();
    match account_of(queue).filter(|_| !id.is_empty()) {
        Some(account) => match withdrawal.end(account, &id, &DROPPED).await? {
            Ended::Told => dropped.told += 1,
            Ended::Untold => dropped.untold += 1,
            Ended::Before => {}
        },
        None if !id.is_empty() => withdrawal.note(&id, &DROPPED).await,
        None => {}
    }
    tracing::warn!(
        code = codes::JOURNAL_DROPPED.name,
        queue,
        message_id = id,
        waited_for = entry.entry.about.code,
        "dropped a message from the journal"
    );
    Ok(())
}
