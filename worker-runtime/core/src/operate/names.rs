//! Whether a name that somebody typed is one of something here. What is there is named, so that a slip shows.

use super::Reach;
use crate::audit::account_of;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::journal_desk::is_of;
use crate::resend::{self, Chosen, Summary};
use std::collections::BTreeSet;
use vumi_api::names::nearest;

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
        is_among("transport", account, &self.accounts().await?)
    }

    /// Transports that run here or have rows.
    pub(super) async fn accounts(&self) -> Result<BTreeSet<String>, WorkError> {
        let consumed = self.queues.keys().filter_map(|queue| account_of(queue));
        let mut known: BTreeSet<String> = consumed.map(str::to_owned).collect();
        for store in &self.stores {
            known.extend(store.counts().await?.into_keys().map(|(name, _)| name));
        }
        Ok(known)
    }

    /// Whether the names by which messages were chosen are of something here; for when none was found.
    ///
    /// # Errors
    /// No such transport or batch; or no message has that failure class or code, and others would have been meant.
    pub(super) async fn knows_chosen(&self, chosen: &Chosen, force: bool) -> Result<(), WorkError> {
        if let Some(account) = &chosen.account {
            self.knows_account(account).await?;
        }
        if let Some(batch) = &chosen.batch {
            let mut known = BTreeSet::new();
            for store in &self.stores {
                known.extend(store.batches().await?.into_keys().map(|(_, batch)| batch));
            }
            is_among("batch", batch, &known)?;
        }
        let without_code = Chosen {
            code: None,
            ..chosen.clone()
        };
        if let Some(class) = &chosen.class {
            let without_both = Chosen {
                class: None,
                ..without_code.clone()
            };
            let known = self.found(&without_both, force, |one| one.class).await?;
            is_said_of_some("failure class", class, &known)?;
        }
        if let Some(code) = &chosen.code {
            let known = self.found(&without_code, force, |one| one.code).await?;
            is_said_of_some("code", code, &known)?;
        }
        Ok(())
    }

    /// What is said in this field of the messages that are chosen.
    async fn found(
        &self,
        chosen: &Chosen,
        force: bool,
        field: fn(Summary) -> String,
    ) -> Result<BTreeSet<String>, WorkError> {
        let mut known = BTreeSet::new();
        for store in &self.stores {
            let listed = resend::list(&**store, chosen, force).await?;
            known.extend(listed.into_iter().map(field));
        }
        known.remove("");
        Ok(known)
    }
}

/// As [`is_among`]; where there is nothing to compare with, another name is wrong, or none.
fn is_said_of_some(what: &str, name: &str, known: &BTreeSet<String>) -> Result<(), WorkError> {
    match known.is_empty() {
        true => Ok(()),
        false => is_among(what, name, known),
    }
}

fn is_among(what: &str, name: &str, known: &BTreeSet<String>) -> Result<(), WorkError> {
    match known.contains(name) {
        true => Ok(()),
        false => Err(WorkError::new(
            ErrorClass::BadInput,
            codes::CONTROL_REQUEST,
            format!("no {what} {name:?} here; {}", there(name, known)),
        )),
    }
}

/// What there is, for somebody who named something else, with the one that may have been meant.
pub(super) fn there(name: &str, known: &BTreeSet<String>) -> String {
    if known.is_empty() {
        return "there is none".to_owned();
    }
    let mut names: Vec<&str> = known.iter().map(String::as_str).take(LISTED).collect();
    if known.len() > LISTED {
        names.push("…");
    }
    let all = names.join(", ");
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("there are: {all}; did you mean {near}?"),
        None => format!("there are: {all}"),
    }
}
