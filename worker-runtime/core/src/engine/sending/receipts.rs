//! What the peer says about a message after it was handed over: late answers and receipts. They move the row, and its
//! sender is told what is new.

use super::book::{Book, Interrupted};
use super::{Sending, Unpublished, standing};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::{DeliveryStatus, Event, EventType};
use crate::outcome::{Receipt, ReceiptOutcome};
use crate::state::ledger::Row;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Events remembered as told: peers repeat receipts soon.
const REMEMBERED: usize = 4096;

/// Ids of events that this process told lately, oldest first.
#[derive(Default)]
pub(super) struct Lately(Mutex<VecDeque<String>>);

impl Lately {
    fn has(&self, id: &str) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().any(|known| known == id)
    }

    pub(super) fn add(&self, id: String) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() == REMEMBERED {
            told.pop_front();
        }
        told.push_back(id);
    }
}

impl Sending {
    /// Takes a receipt over. `Ok` means that the ledger and the broker have it; else the peer is to repeat it.
    pub(in crate::engine) async fn receipt(
        &self,
        receipt: Receipt,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let row = match &self.book {
            Some(book) => book
                .reported(&receipt, interrupted)
                .await?
                .filter(|row| row.account == book.account()),
            None => None,
        };
        let known = row.as_ref().map(|row| row.message_id.as_str());
        let Some(id) = receipt.message_id.as_deref().or(known) else {
            return Err(WorkError::new(
                ErrorClass::RemoteTemporary,
                codes::RECEIPT_UNMATCHED,
                "no message has this id of the peer, or several have: it may come before the answer that names it",
            )
            .into());
        };
        let attempt = row.as_ref().map_or(1, |row| row.attempt);
        let said = self.event(event_of(&receipt, id, attempt));
        let (Some(book), Some(row)) = (&self.book, row) else {
            return self.tell(vec![said], interrupted).await;
        };
        let judged = row.verdict().is_some();
        if receipt.outcome == ReceiptOutcome::Pending && !judged && !row.state.is_final() {
            // What becomes of it, the answer or a later report says.
            let is_said = |event: &Event| event.event_id() == said.event_id();
            if self.lately.has(said.event_id()) || standing::told(&row).iter().any(is_said) {
                self.metrics.suppressed.inc();
                return Ok(());
            }
            return self.tell(vec![said], interrupted).await;
        }
        let before = AtomicUsize::new(0);
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                let told = match standing::being_told(row).is_some() {
                    // Perhaps nobody told it: its process may have ended.
                    true => 0,
                    false => row.told.len().saturating_sub(row.told_before),
                };
                before.store(told, Ordering::Relaxed);
                self.received(book, row, &said, &receipt)
            })
            .await?;
        let mut known = standing::told(&row);
        let tell = match moved {
            // What was told before is none of this receipt's.
            true => known.split_off(before.into_inner().min(known.len())),
            // A repeat: perhaps another process moved the row, and died before it told.
            false if known.iter().any(|e| e.event_id() == said.event_id()) => {
                known.retain(|event| !self.lately.has(event.event_id()));
                known
            }
            false => Vec::new(),
        };
        if tell.is_empty() {
            self.metrics.suppressed.inc();
            return Ok(());
        }
        self.tell(tell, interrupted).await?;
        self.settle(book, &row, None, interrupted).await.map(drop)
    }

    /// A row after a receipt; none if it says nothing new, or comes after the end.
    fn received(&self, book: &Book, row: &Row, said: &Event, receipt: &Receipt) -> Option<Row> {
        let verdict = row.verdict().map(|event| event.event_type());
        let ends = |last: Event| standing::leads_to(&last, true).is_final();
        if verdict == Some(EventType::Nack) || standing::being_told(row).is_some_and(ends) {
            return None;
        }
        let is_end = matches!(
            receipt.outcome,
            ReceiptOutcome::Delivered | ReceiptOutcome::Failed(_)
        );
        let mut all = Vec::new();
        if is_end && verdict.is_none() {
            // The answer was lost, or is slower than the receipt; the peer has the message all the same.
            let remote = receipt.remote_id.as_deref().or(row.remote_id.as_deref());
            all.push(self.event(Event::ack(
                &row.message_id,
                remote.unwrap_or(&row.message_id),
            )));
        }
        all.push(said.clone());
        // Not every peer repeats a receipt: the keeper finds what nobody was told of.
        let mut next = self.answered(book, row, &all, false)?;
        next.remote_id = next.remote_id.or_else(|| receipt.remote_id.clone());
        Some(next)
    }
}

/// The event that a receipt makes.
fn event_of(receipt: &Receipt, id: &str, attempt: u32) -> Event {
    let remote = receipt.remote_id.as_deref().unwrap_or_default();
    let report = |status| Event::delivery_report(id, remote, status);
    match &receipt.outcome {
        ReceiptOutcome::Accepted => Event::ack(id, receipt.remote_id.as_deref().unwrap_or(id)),
        ReceiptOutcome::Refused(refusal) => Event::nack(id, &refusal.clone().fate(attempt)),
        ReceiptOutcome::Pending => report(DeliveryStatus::Pending),
        ReceiptOutcome::Delivered => report(DeliveryStatus::Delivered),
        ReceiptOutcome::Failed(refusal) => {
            let mut event = report(DeliveryStatus::Failed);
            event.set_fate(&refusal.clone().fate(attempt));
            event
        }
    }
}
