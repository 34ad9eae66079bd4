//! What a row says is to be done with its message. Pure: rows in, decisions out.

use super::patience;
use crate::codes;
use crate::message::{DeliveryStatus, Event, EventType, FateState};
use crate::state::ledger::{Row, RowState, Step};

/// What is to be done with a message that has this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be sent.
    Free,
    /// Being sent. Found by another attempt, it is under way elsewhere, or its answer is lost.
    Begun,
    /// What its sender was told is all there is to do: it is sent, it has ended, or a receipt is waited for.
    Told,
    /// It was set aside.
    SetAside,
}

/// What is to be done.
pub(super) fn standing(row: &Row) -> Standing {
    match row.state {
        _ if row.verdict().is_some() => Standing::Told,
        RowState::Accepted | RowState::Queued | RowState::Held => Standing::Free,
        RowState::Sending => Standing::Begun,
        RowState::Parked => Standing::SetAside,
        _ => Standing::Told,
    }
}

/// Whether it waits, or was set aside: then somebody may decide that it ends. What a peer may have is not ended so.
pub(crate) fn may_be_withdrawn(row: &Row) -> bool {
    matches!(standing(row), Standing::Free | Standing::SetAside)
}

/// Who is sending it, by its signs of life.
pub(crate) fn sender(row: &Row) -> Option<&str> {
    let begun = begun(row)?;
    Some(row.sender.as_deref().unwrap_or(&begun.worker))
}

/// The step with which somebody began to send it, if nobody knows what came of that.
fn begun(row: &Row) -> Option<&Step> {
    row.steps
        .last()
        .filter(|_| standing(row) == Standing::Begun)
}

/// Until when whoever sends it is waited for at most, however well that lives: milliseconds since 1970.
pub(crate) fn sent_until(row: &Row) -> Option<u64> {
    let most = crate::clock::millis(patience::SENDING);
    begun(row).map(|step| step.at.saturating_add(most))
}

/// What its sender was told since a person had it sent again, or ever.
pub(super) fn told(row: &Row) -> Vec<Event> {
    row.told_now().collect()
}

/// What the sender of a message that has its ack or nack was told, or is to be told again; empty for others.
pub(crate) fn told_with_verdict(row: &Row) -> Vec<Event> {
    match row.verdict() {
        Some(_) => told(row),
        None => Vec::new(),
    }
}

/// What its sender was told before that.
pub(super) fn told_before(row: &Row) -> Vec<Event> {
    events(row.told.iter().take(row.told_before))
}

fn events<'t>(told: impl Iterator<Item = &'t String>) -> Vec<Event> {
    told.filter_map(|body| Event::decode(body.as_bytes()).ok())
        .collect()
}

/// What its sender is still being told, the last of it: it is written down, and the state that follows from it is not.
pub(super) fn being_told(row: &Row) -> Option<Event> {
    if row.state.is_final() {
        return None;
    }
    let last = row.told_now().last()?;
    // Whether receipts are expected makes no difference to what is not over.
    (leads_to(&last, true) != row.state && row.verdict().is_some()).then_some(last)
}

/// Where an event leads.
pub(super) fn leads_to(event: &Event, receipts: bool) -> RowState {
    match (event.event_type(), event.delivery_status()) {
        (EventType::Nack, _)
            if event
                .fate()
                .is_some_and(|fate| fate.state == FateState::Cancelled) =>
        {
            RowState::Cancelled
        }
        (EventType::Nack, _) | (EventType::DeliveryReport, Some(DeliveryStatus::Failed)) => {
            RowState::Failed
        }
        (EventType::DeliveryReport, Some(DeliveryStatus::Delivered)) => RowState::Delivered,
        _ if receipts => RowState::Sent,
        _ => RowState::SentFinal,
    }
}

/// Whether sending it now may give the peer a second copy: what followed the last attempt says whether the peer may have
/// that one.
pub(crate) fn may_double(row: &Row) -> bool {
    let began = |step: &Step| step.state == Some(RowState::Sending);
    let Some(attempt) = row.steps.iter().rposition(began) else {
        return false;
    };
    let since = &row.steps[attempt + 1..];
    let is_unknown = |step: &Step| step.code == codes::FATE_UNKNOWN.name;
    let failed = |step: &Step| step.state == Some(RowState::Failed) && !is_unknown(step);
    if since.iter().any(failed) {
        return false;
    }
    since.first().is_some_and(|step| match step.state {
        // Tried again: by policy although nobody knew, or because the peer had not taken it.
        Some(RowState::Queued | RowState::Held) => step.code == codes::FATE_SENT_AGAIN.name,
        _ => true,
    })
}

/// The reply queue of the replica that has the only copy of what waits.
pub(super) fn holder(row: &Row) -> Option<&str> {
    row.holder
        .as_deref()
        .filter(|_| standing(row) == Standing::Free)
}
