//! Batches in the embedded store: a count per state, moved in the transaction that moves a row, and the orders.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View};
use super::keys::{Key, Parts, fits, pack, tag, unpack};
use super::ledger::{number, state_of};
use crate::error::WorkError;
use crate::state::batches::{BatchCounts, Batches, Order};
use crate::state::ledger::Row;
use async_trait::async_trait;
use std::collections::BTreeMap;

const COUNT: Failure = Failure::Damaged("a count of a batch");
const ORDER: Failure = Failure::Damaged("an order for a batch");

/// Counts a row of a batch in or out.
pub(super) fn count(tx: &mut Tx<'_>, row: &Row, by: i64) -> Result<(), Failure> {
    let Some(batch) = &row.batch else {
        return Ok(());
    };
    let key = Key::new(tag::BATCH).name(&row.account).name(batch);
    let key = key.byte(number(row.state));
    let before = match tx.get(Space::Index, &key)? {
        Some(value) => unpack::<1>(&value).ok_or(COUNT)?[0],
        None => 0,
    };
    match before.saturating_add_signed(by) {
        0 => tx.remove(Space::Index, key),
        count => tx.insert(Space::Index, key, pack([count])),
    }
    Ok(())
}

#[async_trait]
impl Batches for EmbeddedStore {
    async fn set_order(
        &self,
        account: &str,
        batch: &str,
        order: Option<&Order>,
    ) -> Result<(), WorkError> {
        fits([account, batch])?;
        let key = Key::new(tag::ORDER).name(account).name(batch);
        let order = order.cloned();
        self.write(move |tx| {
            match order {
                Some(order) => {
                    let value = serde_json::to_vec(&order).map_err(|_| ORDER)?;
                    tx.insert(Space::Index, &key, value);
                }
                None => tx.remove(Space::Index, &key),
            }
            Ok(())
        })
        .await
    }

    async fn orders(&self, account: &str) -> Result<BTreeMap<String, Order>, WorkError> {
        fits([account])?;
        let under = Key::new(tag::ORDER).name(account);
        self.read(move |look| {
            let mut orders = BTreeMap::new();
            for item in look.all(Space::Index, &under) {
                let (key, value) = item.into_inner()?;
                let mut parts = Parts::of(&key);
                let batch = parts.name().and_then(|_| parts.name()).ok_or(ORDER)?;
                let order = serde_json::from_slice(&value).map_err(|_| ORDER)?;
                orders.insert(batch.to_owned(), order);
            }
            Ok(orders)
        })
        .await
    }

    async fn all_orders(&self) -> Result<BTreeMap<(String, String), Order>, WorkError> {
        self.read(|look| {
            let mut orders = BTreeMap::new();
            for item in look.all(Space::Index, &Key::new(tag::ORDER)) {
                let (key, value) = item.into_inner()?;
                let mut parts = Parts::of(&key);
                let account = parts.name().ok_or(ORDER)?.to_owned();
                let batch = parts.name().ok_or(ORDER)?.to_owned();
                let order = serde_json::from_slice(&value).map_err(|_| ORDER)?;
                orders.insert((account, batch), order);
            }
            Ok(orders)
        })
        .await
    }

    async fn batches(&self) -> Result<BatchCounts, WorkError> {
        self.read(|look| {
            let mut counts = BatchCounts::new();
            for item in look.all(Space::Index, &Key::new(tag::BATCH)) {
                let (key, value) = item.into_inner()?;
                let mut parts = Parts::of(&key);
                let account = parts.name().ok_or(COUNT)?.to_owned();
                let batch = parts.name().ok_or(COUNT)?.to_owned();
                // One of a later version is not counted.
                let Some(state) = parts.byte().and_then(state_of) else {
                    continue;
                };
                let [count] = unpack(&value).ok_or(COUNT)?;
                let states = counts.entry((account, batch)).or_default();
                states.insert(state, count);
            }
            Ok(counts)
        })
        .await
    }
}
