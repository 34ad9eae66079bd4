//! What a row says is to be done with its message. Pure: rows in, decisions out.

use crate::codes;
use crate::message::{DeliveryStatus, Event, EventType, FateState};
use crate::state::ledger::{Row, RowState};

/// What is to be done with a message that has this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be sent.
    Free,
    /// Being sent, without an answer: found by a later attempt, nobody knows whether the peer has it.
    Lost,
    /// What its sender was told is all there is to do: it is sent, it has ended, or a receipt is waited for.
    Told,
    /// It was set aside.
    SetAside,
}

/// What is to be done.
pub(super) fn standing(row: &Row) -> Standing {
    match row.state {
        _ if verdict(row).is_some() => Standing::Told,
        RowState::Accepted | RowState::Queued | RowState::Held => Standing::Free,
        RowState::Sending => Standing::Lost,
        RowState::Parked => Standing::SetAside,
        _ => Standing::Told,
    }
}

/// Everything that its sender was told.
pub(super) fn told(row: &Row) -> Vec<Event> {
    let events = row.told.iter();
    events
        .filter_map(|body| Event::decode(body.as_bytes()).ok())
        .collect()
}

/// The one ack or nack that its sender was told.
pub(super) fn verdict(row: &Row) -> Option<Event> {
    let mut told = told(row).into_iter();
    told.find(|event| event.event_type() != EventType::DeliveryReport)
}

/// Whether its sender is still being told: the ack or nack is written down, and the state that follows from it is not.
pub(super) fn is_telling(row: &Row) -> bool {
    let waiting = matches!(
        row.state,
        RowState::Accepted
            | RowState::Queued
            | RowState::Held
            | RowState::Sending
            | RowState::Unknown
    );
    waiting && verdict(row).is_some()
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

/// Whether sending it now may give the peer a second copy.
pub(super) fn may_double(row: &Row) -> bool {
    let again = codes::FATE_SENT_AGAIN.name;
    let of = |state: RowState| row.steps.iter().rev().any(|s| s.state == Some(state));
    match row.steps.last() {
        Some(last) if last.code == again => true,
        // Set aside between the first byte and the answer, and sent back by a person.
        Some(last) => {
            last.state == Some(RowState::Parked) && of(RowState::Sending) && {
                let before = row.steps.iter().rev().nth(1);
                before.is_some_and(|step| step.state == Some(RowState::Sending))
            }
        }
        None => false,
    }
}

/// Whether it waits for the replica that holds its request.
pub(super) fn is_forwarded(row: &Row) -> bool {
    let last = row.steps.last();
    row.state == RowState::Queued && last.is_some_and(|s| s.code == codes::REPLY_FORWARDED.name)
}
