//! Batches: messages with one label, counted by state, and the order that is in force for them.

use super::ledger::RowState;
use crate::error::WorkError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vumi_api::shared::Class;

/// What is to be done with messages of a batch that are not sent yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Order {
    /// They are held until the order is lifted.
    Pause,
    /// They end; their senders are told.
    Cancel,
    /// They are given to this transport.
    Reroute(String),
    /// They are given to this class.
    Reclass(Class),
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Order::Pause => f.write_str("paused"),
            Order::Cancel => f.write_str("cancelled"),
            Order::Reroute(to) => write!(f, "rerouted to {to}"),
            Order::Reclass(to) => write!(f, "moved to class {}", to.as_str()),
        }
    }
}

/// Rows of batches: account and label → state → how many.
pub type BatchCounts = BTreeMap<(String, String), BTreeMap<RowState, u64>>;

/// Operations on batches. An account is the name of a transport, as in the ledger.
#[async_trait]
pub trait Batches: Send + Sync + 'static {
    /// Puts an order in force for a batch, in place of the one before, or lifts it.
    async fn set_order(
        &self,
        account: &str,
        batch: &str,
        order: Option<&Order>,
    ) -> Result<(), WorkError>;

    /// Orders in force, by label.
    async fn orders(&self, account: &str) -> Result<BTreeMap<String, Order>, WorkError>;

    /// All orders in force, by account and label.
    async fn all_orders(&self) -> Result<BTreeMap<(String, String), Order>, WorkError>;

    /// Every batch that has rows.
    async fn batches(&self) -> Result<BatchCounts, WorkError>;
}
