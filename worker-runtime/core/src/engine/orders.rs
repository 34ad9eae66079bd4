//! Orders for batches, as the transport that obeys them knows them: read once a second. What an order held is let go when
//! the order is lifted.

use super::labels::group_of;
use crate::audit::account_of;
use crate::error::WorkError;
use crate::state::batches::Order;
use crate::state::journal::{Filter, Reason};
use crate::state::{Journal, StateStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Orders are read so often.
const TURN: Duration = match cfg!(test) {
    true => Duration::from_millis(50),
    false => Duration::from_secs(1),
};
/// After a change what is held is looked at in so many turns: what was judged by the orders before may have been on its
/// way into the store.
const LOOKS: u32 = 5;

/// Orders by batch.
type Known = Arc<BTreeMap<String, Order>>;

/// The orders for the batches of one transport.
pub(super) struct Orders {
    store: Arc<dyn StateStore>,
    account: String,
    /// None until they were read.
    known: RwLock<Option<Known>>,
}

impl Orders {
    pub(super) fn new(store: Arc<dyn StateStore>, account: &str) -> Self {
        Self {
            store,
            account: account.to_owned(),
            known: RwLock::default(),
        }
    }

    /// The order in force for a batch, as of a moment ago. Waits for the store only if nothing was read yet.
    pub(super) async fn of(&self, batch: Option<&str>) -> Result<Option<Order>, WorkError> {
        let Some(batch) = batch else {
            return Ok(None);
        };
        let known = match self.known() {
            Some(known) => known,
            None => self.read().await?,
        };
        Ok(known.get(batch).cloned())
    }

    /// Whether an order is in force for a batch, as far as is known.
    pub(super) fn has(&self, batch: Option<&str>) -> bool {
        let known = self.known();
        let known = known.as_ref();
        batch.is_some_and(|batch| known.is_some_and(|orders| orders.contains_key(batch)))
    }

    fn known(&self) -> Option<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }

    async fn read(&self) -> Result<Known, WorkError> {
        let known = Arc::new(self.store.orders(&self.account).await?);
        let mut place = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::clone(&known));
        Ok(known)
    }

    /// Reads orders again and again. Never ends.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut turn = tokio::time::interval(TURN);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut before, mut looks) = (Known::default(), LOOKS);
        loop {
            turn.tick().await;
            let turned = async {
                let known = self.read().await?;
                if known != before {
                    (before, looks) = (Arc::clone(&known), LOOKS);
                }
                if looks > 0 {
                    self.let_go(&known).await?;
                    looks -= 1;
                }
                Ok::<(), WorkError>(())
            };
            if let Err(error) = turned.await {
                tracing::debug!(code = %error.code, reason = %error, "the orders for batches cannot be read");
            }
        }
    }

    /// Makes what is held of batches that are not paused due.
    async fn let_go(&self, orders: &BTreeMap<String, Order>) -> Result<(), WorkError> {
        let paused = orders.iter().filter(|(_, order)| **order == Order::Pause);
        let paused: BTreeSet<String> = paused.map(|(batch, _)| group_of(batch)).collect();
        for queue in Journal::queues(&*self.store).await? {
            if account_of(&queue) != Some(self.account.as_str()) {
                continue;
            }
            for group in self.store.groups(&queue).await? {
                if group.is_empty() || paused.contains(&group) {
                    continue;
                }
                let held = Filter {
                    group: Some(group),
                    reason: Some(Reason::Held),
                    ..Filter::default()
                };
                Journal::release(&*self.store, &queue, &held).await?;
            }
        }
        Ok(())
    }
}
