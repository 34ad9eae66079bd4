//! What people do with batches (P28): count them by what became of their messages, and give and lift orders.

use crate::audit::account_of;
use crate::engine::group_of;
use crate::error::WorkError;
use crate::state::StateStore;
use crate::state::batches::Order;
use crate::state::journal::{Filter, Reason};
use crate::state::ledger::RowState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One batch of one transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Name of the transport.
    pub account: String,
    /// The label.
    pub batch: String,
    /// The order in force.
    pub order: Option<Order>,
    /// Messages by state.
    pub rows: BTreeMap<RowState, u64>,
}

impl Summary {
    /// Messages that an order still reaches.
    pub fn open(&self) -> u64 {
        let open = [RowState::Accepted, RowState::Queued, RowState::Held];
        self.rows_in(&open)
    }

    /// Messages that are with the peer, or may be.
    pub fn out(&self) -> u64 {
        self.rows_in(&[RowState::Sending, RowState::Sent, RowState::Unknown])
    }

    /// Messages in any of these states.
    pub fn rows_in(&self, states: &[RowState]) -> u64 {
        let counts = states.iter().filter_map(|state| self.rows.get(state));
        counts.sum()
    }
}

/// Batches that have messages or an order; of one label and one transport if those are given.
pub async fn list(
    store: &dyn StateStore,
    batch: Option<&str>,
    account: Option<&str>,
) -> Result<Vec<Summary>, WorkError> {
    let mut found: BTreeMap<(String, String), Summary> = BTreeMap::new();
    let summary = |(account, batch): &(String, String)| Summary {
        account: account.clone(),
        batch: batch.clone(),
        order: None,
        rows: BTreeMap::new(),
    };
    for (key, rows) in store.batches().await? {
        let one = Summary {
            rows,
            ..summary(&key)
        };
        found.insert(key, one);
    }
    for (key, order) in store.all_orders().await? {
        let one = summary(&key);
        found.entry(key).or_insert(one).order = Some(order);
    }
    let meant = |one: &Summary| {
        batch.is_none_or(|batch| one.batch == batch)
            && account.is_none_or(|account| one.account == account)
    };
    Ok(found.into_values().filter(meant).collect())
}

/// Puts an order in force, or lifts it, and makes what was held due: it is judged anew.
pub async fn order(
    store: &dyn StateStore,
    account: &str,
    batch: &str,
    order: Option<&Order>,
) -> Result<(), WorkError> {
    store.set_order(account, batch, order).await?;
    let now = order.map_or_else(|| "lifted".to_owned(), Order::to_string);
    tracing::info!(account, batch, order = now, "an order for a batch");
    if order == Some(&Order::Pause) {
        return Ok(());
    }
    for queue in crate::state::Journal::queues(store).await? {
        if account_of(&queue) == Some(account) {
            let held = Filter {
                group: Some(group_of(batch)),
                reason: Some(Reason::Held),
                ..Filter::default()
            };
            crate::state::Journal::release(store, &queue, &held).await?;
        }
    }
    Ok(())
}
