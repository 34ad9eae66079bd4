//! Batches: a hash of counts by state for each, moved by the script that moves a row, and a hash of orders per transport.

use super::RedisStore;
use super::errors::unreadable;
use super::keys::{name, part};
use super::script::script;
use crate::error::WorkError;
use crate::state::batches::{BatchCounts, Batches, Order};
use crate::state::ledger::RowState;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};

fn read(json: &str) -> Result<Order, WorkError> {
    serde_json::from_str(json).map_err(|_| unreadable("an order"))
}

#[async_trait]
impl Batches for RedisStore {
    async fn set_order(
        &self,
        account: &str,
        batch: &str,
        order: Option<&Order>,
    ) -> Result<(), WorkError> {
        let mut call = self.ledger(script!("set_order"));
        call.arg(part(account)).arg(part(batch));
        if let Some(order) = order {
            call.arg(serde_json::to_string(order).map_err(|_| unreadable("an order"))?);
        }
        self.link.script(&call).await
    }

    async fn orders(&self, account: &str) -> Result<BTreeMap<String, Order>, WorkError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.orders(account));
        let orders: HashMap<String, String> = self.link.command(&command).await?;
        let orders = orders
            .into_iter()
            .map(|(batch, json)| Ok((name(&batch), read(&json)?)));
        orders.collect()
    }

    async fn all_orders(&self) -> Result<BTreeMap<(String, String), Order>, WorkError> {
        let call = self.ledger(script!("all_orders"));
        let orders: Vec<(String, String, String)> = self.link.script(&call).await?;
        let orders = orders
            .into_iter()
            .map(|(account, batch, json)| Ok(((name(&account), name(&batch)), read(&json)?)));
        orders.collect()
    }

    async fn batches(&self) -> Result<BatchCounts, WorkError> {
        let call = self.ledger(script!("ledger_lib", "batches"));
        let rows: Vec<(String, String, String, u64)> = self.link.script(&call).await?;
        let mut counts = BatchCounts::new();
        for (account, batch, state, count) in rows {
            let state = RowState::ALL.into_iter().find(|s| s.as_str() == state);
            let state = state.ok_or_else(|| unreadable("a state"))?;
            let states = counts.entry((name(&account), name(&batch))).or_default();
            states.insert(state, count);
        }
        Ok(counts)
    }
}
