//! What people do with messages that wait in a journal (R3): list, count, release, drop.

use crate::audit::account_of;
use crate::codes;
use crate::engine::{group_of, is_part};
use crate::error::WorkError;
use crate::message::Timestamp;
use crate::message::glance::Glance;
use crate::state::StateStore;
use crate::state::batches::Order;
use crate::state::journal::{Cause, Filter, Lane, Listed, Outgoing, Reason};
use crate::state::ledger::RowState;
use crate::withdraw::{Ended, Ending, Withdrawal};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Messages that are counted for a question, at most.
pub const COUNTED: usize = 10_000;
/// Messages taken out in one step.
const BATCH: usize = 200;
/// Whoever took messages out has so long to tell their senders; then somebody else does.
const LEASE: Duration = Duration::from_secs(60);

/// How a message ends that is taken out.
fn ending(cause: Cause) -> &'static Ending {
    match cause {
        Cause::Dropped => &Ending {
            state: RowState::Cancelled,
            code: codes::JOURNAL_DROPPED,
            text: "a person dropped it from the journal",
        },
        Cause::Expired => &Ending {
            state: RowState::Expired,
            code: codes::JOURNAL_EXPIRED,
            text: "it waited in the journal as long as it may",
        },
    }
}

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
    /// When the broker first delivered it: milliseconds since 1970; 0 if that cannot be read.
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
    /// Messages among them that stay held, because somebody paused their batch: a release leaves them alone.
    #[serde(default)]
    pub held: u64,
    /// Lanes of those.
    #[serde(default)]
    pub held_lanes: u64,
}

impl Counted {
    /// Without what a release leaves alone; as it is where more than were counted may be meant.
    pub fn released(self) -> Self {
        if self.more {
            return self;
        }
        Self {
            messages: self.messages.saturating_sub(self.held),
            lanes: self.lanes.saturating_sub(self.held_lanes),
            ..self
        }
    }
}

/// What a release did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Lanes that are due now.
    pub lanes: u64,
    /// What stays held, because somebody paused its batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused: Vec<Paused>,
}

/// Messages that wait because their batch is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paused {
    /// Name of the transport.
    pub account: String,
    /// The label.
    pub batch: String,
    /// How many messages; at [`COUNTED`] there may be more.
    pub messages: u64,
}

/// What a drop did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// Messages removed.
    pub done: u64,
    /// Messages left alone because a worker has them in hand.
    #[serde(default)]
    pub in_hand: u64,
    /// Outbound ones whose sender got an event.
    pub told: u64,
    /// Outbound ones whose sender got none.
    pub untold: u64,
    /// Why it stopped early, if it did. What was not removed still waits; who was not told yet will be.
    pub stopped: Option<String>,
}

/// Whether `name` is the queue itself, or one of those that it is divided into.
pub fn is_of(name: &str, queue: &str) -> bool {
    let rest = name.strip_prefix(queue);
    let part = rest.and_then(|rest| rest.strip_prefix('.'));
    rest == Some("") || part.is_some_and(is_part)
}

/// Queues with a journal: one with its classes and partitions, or all.
pub async fn queues(store: &dyn StateStore, queue: Option<&str>) -> Result<Vec<String>, WorkError> {
    let mut queues = store.queues().await?;
    queues.retain(|name| queue.is_none_or(|queue| is_of(name, queue)));
    Ok(queues)
}

/// Messages that wait, of one queue (its classes and partitions included) or of all, at most `limit` per queue.
pub async fn list(
    store: &dyn StateStore,
    queue: Option<&str>,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Summary>, WorkError> {
    let mut listed = Vec::new();
    for queue in queues(store, queue).await? {
        let entries = store.list(&queue, filter, limit).await?;
        listed.extend(entries.into_iter().map(Summary::from));
    }
    Ok(listed)
}

/// How many messages of one journal match, and how many of them stay held in a paused batch.
pub async fn count(
    store: &dyn StateStore,
    queue: &str,
    filter: &Filter,
) -> Result<Counted, WorkError> {
    let mut counted = matching(store, queue, filter).await?;
    for group in paused(store, queue).await?.into_keys() {
        if let Some(of_group) = of_group(filter, &group) {
            let held = matching(store, queue, &of_group).await?;
            counted.held += held.messages.min(COUNTED as u64);
            counted.held_lanes += held.lanes;
        }
    }
    Ok(counted)
}

/// Paused batches, by the group in which each waits.
async fn paused(
    store: &dyn StateStore,
    queue: &str,
) -> Result<BTreeMap<String, String>, WorkError> {
    let orders = match account_of(queue) {
        Some(account) if !account.is_empty() => store.orders(account).await?,
        // Only transports obey orders.
        _ => BTreeMap::new(),
    };
    let paused = orders
        .into_iter()
        .filter(|(_, order)| *order == Order::Pause);
    Ok(paused.map(|(batch, _)| (group_of(&batch), batch)).collect())
}

/// What is meant of one group; none if another one is named.
fn of_group(filter: &Filter, group: &str) -> Option<Filter> {
    let named = filter.group.as_deref().unwrap_or(group);
    (named == group).then(|| Filter {
        group: Some(group.to_owned()),
        ..filter.clone()
    })
}

async fn matching(
    store: &dyn StateStore,
    queue: &str,
    filter: &Filter,
) -> Result<Counted, WorkError> {
    if *filter == Filter::default() {
        let depth = store.depth(queue).await?;
        return Ok(Counted {
            messages: depth.messages,
            lanes: depth.lanes,
            ..Counted::default()
        });
    }
    let entries = store.list(queue, filter, COUNTED + 1).await?;
    let lanes: BTreeSet<&Lane> = entries.iter().map(|entry| &entry.lane).collect();
    Ok(Counted {
        messages: entries.len() as u64,
        lanes: lanes.len() as u64,
        more: entries.len() > COUNTED,
        ..Counted::default()
    })
}

/// Makes the lanes of the matching messages of one journal due, into `released`; but for those of paused batches, which
/// their transport would hold again at once.
pub async fn release(
    store: &dyn StateStore,
    queue: &str,
    filter: &Filter,
    released: &mut Released,
) -> Result<(), WorkError> {
    let paused = paused(store, queue).await?;
    if paused.is_empty() {
        released.lanes += crate::state::Journal::release(store, queue, filter).await?;
        return Ok(());
    }
    for group in store.groups(queue).await? {
        let Some(of_group) = of_group(filter, &group) else {
            continue;
        };
        let Some(batch) = paused.get(&group) else {
            released.lanes += crate::state::Journal::release(store, queue, &of_group).await?;
            continue;
        };
        let account = account_of(queue).unwrap_or_default();
        let held = matching(store, queue, &of_group).await?;
        released.hold(account, batch, held.messages.min(COUNTED as u64));
    }
    Ok(())
}

impl Released {
    fn hold(&mut self, account: &str, batch: &str, messages: u64) {
        if messages == 0 {
            return;
        }
        let mut known = self.paused.iter_mut();
        match known.find(|one| one.account == account && one.batch == batch) {
            Some(one) => one.messages += messages,
            None => self.paused.push(Paused {
                account: account.to_owned(),
                batch: batch.to_owned(),
                messages,
            }),
        }
    }
}

/// Removes the matching messages of one journal for good, but for those that a worker has in hand. The rows of outbound
/// ones end, and their senders are told if `withdrawal` has a broker. Each is out of the journal before it ends, so that
/// no worker sends it meanwhile; what a crash or a lost broker leaves behind is for [`finish`].
pub async fn drop(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    filter: &Filter,
) -> Result<Dropped, WorkError> {
    take_out(store, withdrawal, queue, filter, Cause::Dropped).await
}

/// Removes messages whose time came, or that came first, longer than `keep` ago, as [`drop`] does.
pub async fn expire(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    keep: Duration,
) -> Result<Dropped, WorkError> {
    let before = (Timestamp::now().epoch() - keep.as_secs_f64()) * 1e3;
    let filter = Filter {
        before: Some(before as u64),
        ..Filter::default()
    };
    take_out(store, withdrawal, queue, &filter, Cause::Expired).await
}

/// Ends what was taken out before and whose sender may not know.
pub async fn finish(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
) -> Result<Dropped, WorkError> {
    let mut dropped = Dropped::default();
    while dropped.stopped.is_none() {
        let adopted = store.adopt(queue, BATCH, LEASE).await?;
        if adopted.is_empty() {
            break;
        }
        end(store, withdrawal, queue, adopted, &mut dropped).await?;
    }
    Ok(dropped)
}

async fn take_out(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    filter: &Filter,
    cause: Cause,
) -> Result<Dropped, WorkError> {
    let mut dropped = Dropped::default();
    while dropped.stopped.is_none() {
        let withdrawn = store.withdraw(queue, filter, BATCH, cause, LEASE).await?;
        dropped.in_hand = withdrawn.in_hand;
        if withdrawn.taken.is_empty() {
            break;
        }
        end(store, withdrawal, queue, withdrawn.taken, &mut dropped).await?;
    }
    Ok(dropped)
}

/// Ends messages that are out, and then forgets them. Stops at the first that fails.
async fn end(
    store: &dyn StateStore,
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    outgoing: Vec<Outgoing>,
    dropped: &mut Dropped,
) -> Result<(), WorkError> {
    dropped.done += outgoing.len() as u64;
    let mut ended = Vec::with_capacity(outgoing.len());
    for one in &outgoing {
        match end_one(withdrawal, queue, one, dropped).await {
            Ok(()) => ended.push(one.id),
            // It is out, and stays on record for who can read its row.
            Err(error) if error.code == codes::STATE_UNREADABLE => {
                dropped.untold += 1;
                tracing::warn!(code = %error.code, queue, number = one.id, reason = %error, "its sender cannot be told");
            }
            Err(error) => {
                let rest = outgoing.len() - ended.len();
                dropped.stopped = Some(format!(
                    "{error}; the senders of {rest} removed messages are told once that works"
                ));
                break;
            }
        }
    }
    store.forget(queue, &ended).await
}

async fn end_one(
    withdrawal: &Withdrawal<'_>,
    queue: &str,
    outgoing: &Outgoing,
    dropped: &mut Dropped,
) -> Result<(), WorkError> {
    let ending = ending(outgoing.cause);
    let id = Glance::of(&outgoing.entry.body).id().unwrap_or_default();
    match account_of(queue).filter(|_| !id.is_empty()) {
        Some(account) => match withdrawal.end(account, &id, ending).await? {
            Ended::Told => dropped.told += 1,
            Ended::Untold => dropped.untold += 1,
            Ended::Before => {}
        },
        None if !id.is_empty() => withdrawal.note(&id, ending).await,
        None => {}
    }
    tracing::warn!(
        code = ending.code.name,
        queue,
        message_id = id,
        waited_for = outgoing.entry.about.code,
        "removed a message from the journal"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn the_parts_of_a_queue_are_of_it() {
        let queue = "sms.outbound";
        for name in [
            queue,
            "sms.outbound.bulk",
            "sms.outbound.p3",
            "sms.outbound.bulk.p3",
        ] {
            assert!(is_of(name, queue), "{name}");
        }
        for name in [
            "sms.outbound2",
            "sms.inbound",
            "sms.outbound.za.outbound",
            "sms",
        ] {
            assert!(!is_of(name, queue), "{name}");
        }
    }
}
