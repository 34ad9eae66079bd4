//! Whether a name that somebody typed is one of something here. What is there is named, so that a slip shows.

use super::Reach;
use crate::audit::account_of;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::journal_desk::is_of;
use std::collections::BTreeSet;

/// Names that are listed at most.
const LISTED: usize = 20;

impl Reach {
    /// # Errors
    /// Nobody here consumes the queue or a part of it, and no journal is of it.
    pub(super) async fn knows_queue(&self, queue: &str) -> Result<(), WorkError> {
        let mut known: BTreeSet<String> = self.queues.keys().cloned().collect();
        for store in &self.stores {
            known.extend(store.queues().await?);
        }
        if known.iter().any(|name| is_of(name, queue)) {
            return Ok(());
        }
        is_among("queue", queue, &known)
    }

    /// # Errors
    /// No transport of this name runs here or has rows.
    pub(super) async fn knows_account(&self, account: &str) -> Result<(), WorkError> {
        let consumed = self.queues.keys().filter_map(|queue| account_of(queue));
        let mut known: BTreeSet<String> = consumed.map(str::to_owned).collect();
        for store in &self.stores {
            known.extend(store.counts().await?.into_keys().map(|(name, _)| name));
        }
        is_among("transport", account, &known)
    }
}

fn is_among(what: &str, name: &str, known: &BTreeSet<String>) -> Result<(), WorkError> {
    if known.contains(name) {
        return Ok(());
    }
    let mut names: Vec<&str> = known.iter().map(String::as_str).take(LISTED).collect();
    if known.len() > LISTED {
        names.push("…");
    }
    let there = match names.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are: {}", names.join(", ")),
    };
    Err(WorkError::new(
        ErrorClass::BadInput,
        codes::CONTROL_REQUEST,
        format!("no {what} {name:?} here; {there}"),
    ))
}
