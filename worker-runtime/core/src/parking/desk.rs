//! What people do with parked messages: list, show, requeue, drop. Each takes the parking queue exclusively on a shelf,
//! and what it did not remove returns to the queue in order.

use super::{Envelope, parked_id, parked_queue};
use crate::audit::account_of;
use crate::broker::{
    Broker, Confirmation, Publication, PublicationClass, RawDelivery, Receipt, Shelf,
};
use crate::codes;
use crate::error::WorkError;
use crate::message::glance::Glance;
use crate::message::{Timestamp, UserMessage, random_id};
use crate::state::Person;
use crate::state::ledger::RowState;
use crate::withdraw::{Ending, Withdrawal};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Messages looked at by one command, when it does not say less.
const SHELF_LIMIT: usize = super::KEPT_LIMIT as usize;
/// Publications whose confirmations are awaited together.
const BATCH: usize = 100;

/// Which parked messages are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    /// All of them.
    All,
    /// Those with this code.
    Code(String),
    /// Those with these ids.
    Ids(Vec<String>),
}

impl Selection {
    /// Whether a message with this id, parked with this code, is meant.
    pub fn takes(&self, id: &str, code: &str) -> bool {
        match self {
            Selection::All => true,
            Selection::Code(wanted) => wanted == code,
            Selection::Ids(ids) => ids.iter().any(|wanted| wanted == id),
        }
    }
}

/// A parked message without its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Id for [`Selection::Ids`]; the same in every listing.
    pub id: String,
    /// Queue it came from.
    pub origin: String,
    /// Registered code.
    pub code: String,
    /// One sentence.
    pub reason: String,
    /// Label of the error class.
    pub class: String,
    /// Worker that parked it.
    pub worker: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it was parked: seconds since 1970; 0 if not known.
    pub time: f64,
    /// `message_id` or `event_id`, if the body could be read.
    pub message_id: Option<String>,
    /// Hash of the recipient, if the body could be read.
    pub to_addr: Option<String>,
    /// Hash of the sender, if the body could be read.
    pub from_addr: Option<String>,
    /// Bytes of the original body.
    pub size: usize,
}

/// A parked message with its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// What a listing shows of it.
    pub summary: Summary,
    /// All of it.
    pub envelope: Envelope,
}

/// What a requeue or drop did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handled {
    /// Messages that left the parking queue.
    pub done: usize,
    /// Messages seen and kept.
    pub kept: usize,
    /// Why it stopped early, if it did; what was not done is still parked.
    pub stopped: Option<String>,
}

/// Up to `limit` messages parked of the queue `consumed`, oldest first, without content.
pub async fn list(
    broker: &dyn Broker,
    consumed: &str,
    limit: usize,
) -> Result<Vec<Summary>, WorkError> {
    let Some(shelf) = take(broker, consumed, limit).await? else {
        return Ok(Vec::new());
    };
    let summaries = shelf
        .messages()
        .iter()
        .map(|delivery| read(consumed, delivery).summary)
        .collect();
    shelf.close().await;
    Ok(summaries)
}

/// The message `id` with its content; none if it is not there.
pub async fn show(
    broker: &dyn Broker,
    consumed: &str,
    id: &str,
) -> Result<Option<Parked>, WorkError> {
    let Some(shelf) = take(broker, consumed, SHELF_LIMIT).await? else {
        return Ok(None);
    };
    let found = shelf
        .messages()
        .iter()
        .find(|delivery| parked_id(&delivery.body) == id)
        .map(|delivery| read(consumed, delivery));
    shelf.close().await;
    Ok(found)
}

/// Publishes the selected messages to the queues they came from, as they were but for attempts counted in them. Each leaves
/// the parking queue only after its publication is confirmed, so a crash in between repeats it and loses nothing. Stops at
/// the first that fails.
pub async fn requeue(
    broker: &dyn Broker,
    consumed: &str,
    selection: &Selection,
) -> Result<Handled, WorkError> {
    let Some(mut shelf) = take(broker, consumed, SHELF_LIMIT).await? else {
        return Ok(Handled::default());
    };
    let mut handled = Handled::default();
    let takes = |parked: &Parked| selection.takes(&parked.summary.id, &parked.envelope.code);
    let chosen = choose(shelf.as_ref(), consumed, takes);
    for batch in chosen.chunks(BATCH) {
        let mut waiting: Vec<(u64, &str, Receipt)> = Vec::with_capacity(batch.len());
        for (tag, envelope) in batch {
            let receipt = broker.publish(back(envelope)).await;
            waiting.push((*tag, &envelope.origin, receipt));
        }
        // The whole batch is on its way: every confirmed one is removed even when another fails.
        for (tag, origin, receipt) in waiting {
            let outcome = match refusal(origin, receipt.confirmation().await) {
                None => shelf.remove(tag).await.map_err(|e| e.text),
                Some(why) => Err(why),
            };
            match outcome {
                Ok(()) => handled.done += 1,
                Err(why) => {
                    handled.stopped.get_or_insert(why);
                }
            }
        }
        if handled.stopped.is_some() {
            break;
        }
    }
    Ok(finish(shelf, handled).await)
}

/// How a message ends that a person drops.
const DROPPED: Ending = Ending {
    state: RowState::Cancelled,
    code: codes::PARKED_DROPPED,
    text: "it was set aside, and a person dropped it",
};

/// How a message ends that was kept long enough.
const EXPIRED: Ending = Ending {
    state: RowState::Expired,
    code: codes::PARKED_EXPIRED,
    text: "it was set aside, and nobody sent it back in time",
};

/// Removes the selected messages for good. Outbound ones end, and their senders are told, as `withdrawal` can.
pub async fn drop(
    broker: &dyn Broker,
    withdrawal: &Withdrawal<'_>,
    consumed: &str,
    selection: &Selection,
) -> Result<Handled, WorkError> {
    let takes = |parked: &Parked| selection.takes(&parked.summary.id, &parked.envelope.code);
    remove(broker, consumed, takes, Some((withdrawal, &DROPPED))).await
}

/// Removes messages that were parked longer than `keep` ago, as [`drop`] does.
pub async fn expire(
    broker: &dyn Broker,
    withdrawal: &Withdrawal<'_>,
    consumed: &str,
    keep: Duration,
) -> Result<Handled, WorkError> {
    let before = Timestamp::now().epoch() - keep.as_secs_f64();
    // Of what has no envelope nobody knows the age.
    let takes = |parked: &Parked| parked.envelope.time > 0.0 && parked.envelope.time < before;
    remove(broker, consumed, takes, Some((withdrawal, &EXPIRED))).await
}

/// How many messages from or to a person are parked; with `remove`, they are removed, and nobody is told.
pub async fn of_person(
    broker: &dyn Broker,
    consumed: &str,
    person: &Person,
    remove_them: bool,
) -> Result<u64, WorkError> {
    let theirs = |parked: &Parked| Glance::of(&parked.envelope.body).is_of(person);
    if remove_them {
        let handled = remove(broker, consumed, theirs, None).await?;
        return match handled.stopped {
            None => Ok(handled.done as u64),
            Some(why) => Err(WorkError::new(
                crate::error::ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                why,
            )),
        };
    }
    let Some(shelf) = take(broker, consumed, SHELF_LIMIT).await? else {
        return Ok(0);
    };
    let all = shelf.messages().iter();
    let count = all.filter(|delivery| theirs(&read(consumed, delivery)));
    let count = count.count() as u64;
    shelf.close().await;
    Ok(count)
}

/// Removes what `takes` chooses. The message ends first, so that a crash in between leaves it parked.
async fn remove(
    broker: &dyn Broker,
    consumed: &str,
    takes: impl Fn(&Parked) -> bool,
    end: Option<(&Withdrawal<'_>, &Ending)>,
) -> Result<Handled, WorkError> {
    let Some(mut shelf) = take(broker, consumed, SHELF_LIMIT).await? else {
        return Ok(Handled::default());
    };
    let mut handled = Handled::default();
    for (tag, envelope) in choose(shelf.as_ref(), consumed, takes) {
        let (account, id) = (account_of(consumed), envelope.message_id.as_deref());
        let ended = match (end, account, id) {
            (Some((withdrawal, ending)), Some(account), Some(id)) => {
                withdrawal.end(account, id, ending).await.map(|_| ())
            }
            (Some((withdrawal, ending)), None, Some(id)) => {
                withdrawal.note(id, ending).await;
                Ok(())
            }
            _ => Ok(()),
        };
        let removed = match ended {
            Ok(()) => shelf.remove(tag).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            handled.stopped = Some(error.text);
            break;
        }
        handled.done += 1;
        tracing::warn!(
            code = end.map_or("erased", |(_, ending)| ending.code.name),
            queue = consumed,
            message_id = id.unwrap_or_default(),
            parked_for = envelope.code.as_str(),
            "removed a parked message"
        );
    }
    Ok(finish(shelf, handled).await)
}

/// How many messages are parked of the queue.
pub(crate) async fn depth(broker: &dyn Broker, consumed: &str) -> Result<u64, WorkError> {
    let ready = broker.ready(&parked_queue(consumed)).await?;
    Ok(ready.into())
}

/// None if nothing was ever parked of the queue.
async fn take(
    broker: &dyn Broker,
    consumed: &str,
    limit: usize,
) -> Result<Option<Box<dyn Shelf>>, WorkError> {
    let queue = parked_queue(consumed);
    if broker.depth(&queue).await?.is_none() {
        return Ok(None);
    }
    broker.shelf(&queue, limit).await.map(Some)
}

async fn finish(shelf: Box<dyn Shelf>, mut handled: Handled) -> Handled {
    handled.kept = shelf.messages().len().saturating_sub(handled.done);
    shelf.close().await;
    handled
}

fn choose(
    shelf: &dyn Shelf,
    consumed: &str,
    takes: impl Fn(&Parked) -> bool,
) -> Vec<(u64, Envelope)> {
    shelf
        .messages()
        .iter()
        .map(|delivery| (delivery.tag, read(consumed, delivery)))
        .filter(|(_, parked)| takes(parked))
        .map(|(tag, parked)| (tag, parked.envelope))
        .collect()
}

fn read(consumed: &str, delivery: &RawDelivery) -> Parked {
    let envelope = Envelope::decode(&delivery.body)
        .unwrap_or_else(|problem| Envelope::foreign(consumed, delivery, &problem));
    let seen = Glance::of(&envelope.body);
    let summary = Summary {
        id: parked_id(&delivery.body),
        origin: envelope.origin.clone(),
        code: envelope.code.clone(),
        reason: envelope.reason.clone(),
        class: envelope.class.clone(),
        worker: envelope.worker.clone(),
        attempts: envelope.attempts,
        time: envelope.time,
        message_id: envelope.message_id.clone(),
        to_addr: seen.to_addr(),
        from_addr: seen.from_addr(),
        size: envelope.body.len(),
    };
    Parked { summary, envelope }
}

/// A publication of its own: whoever finished the message before does not take it for that one. Its attempts begin anew, those
/// that Vumi's failure worker counted in it too.
fn back(envelope: &Envelope) -> Publication {
    let body = match UserMessage::decode(&envelope.body) {
        Ok(mut message) if message.retries() > 0 => {
            message.forget_retries();
            message.encode()
        }
        _ => envelope.body.clone(),
    };
    Publication {
        exchange: String::new(),
        routing_key: envelope.origin.clone(),
        body,
        message_id: Some(random_id()),
        class: PublicationClass::Direct,
    }
}

/// Why the broker did not take a message back; none if it did.
fn refusal(origin: &str, confirmation: Confirmation) -> Option<String> {
    match confirmation {
        Confirmation::Confirmed => None,
        Confirmation::Returned(_) => Some(format!(
            "queue {origin:?} does not exist; start its consumer and requeue again"
        )),
        Confirmation::Nacked => Some(format!(
            "the broker refused a message for {origin:?}; it may be overloaded, requeue again later"
        )),
        Confirmation::Lost => Some(
            "the connection to the broker ended; requeue again, what was confirmed is not repeated"
                .into(),
        ),
    }
}
