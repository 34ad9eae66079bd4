//! Who is sending a message, and what ends that: where order is kept, its user's next messages wait for it.

use crate::engine;
use crate::error::WorkError;
use crate::state::StateStore;
use crate::state::ledger::Row;
use serde::{Deserialize, Serialize};

/// Who is sending a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sender {
    /// Kind and name of the worker, an `@`, and its replica.
    pub name: String,
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// Whether its process gives signs of life.
    pub lives: bool,
    /// When it is over at the latest.
    pub until: u64,
}

impl Sender {
    /// Who is sending the message of a row, as far as nobody knows what came of it.
    pub(crate) async fn of(row: &Row, store: &dyn StateStore) -> Result<Option<Self>, WorkError> {
        let (Some(sender), Some(until)) = (engine::sender(row), engine::sent_until(row)) else {
            return Ok(None);
        };
        let Some(step) = row.steps.last() else {
            return Ok(None);
        };
        let lives = store.lives(sender).await?;
        Ok(Some(Self {
            name: step.worker.clone(),
            since: step.at,
            lives,
            // Who is gone is given no more time.
            until: row.deadline.filter(|_| !lives).unwrap_or(until),
        }))
    }
}
