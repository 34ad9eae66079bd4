//! Watches the state store of a worker: tells its component `state`, and why the worker waits while the store is away.

use crate::broker::Durability;
use crate::engine::StoreSnapshot;
use crate::state::{StateStore, StoreHealth};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use std::sync::Arc;

/// What is to be told of a store.
pub(super) struct StoreWatch {
    pub(super) store: Arc<dyn StateStore>,
    pub(super) status: Arc<StatusDesk>,
    /// What a message survives at the broker: moved into a store that keeps less, it would be less safe than before.
    pub(super) broker: Durability,
    pub(super) volatile_allowed: bool,
}

impl StoreWatch {
    /// Reports until the store is closed.
    pub(super) async fn run(self) {
        let mut health = self.store.health();
        loop {
            health.borrow_and_update();
            self.status.report(self.judge(&snapshot(&*self.store)));
            if health.changed().await.is_err() {
                return;
            }
        }
    }

    fn judge(&self, store: &StoreSnapshot) -> StatusReport {
        let report = |level, reason, text| StatusReport::new("state", level, reason, text);
        let name = &store.name;
        if let StoreHealth::Away(why) = &store.health {
            let text = format!("{name} does not answer: {why}");
            return report(StatusLevel::Down, "state_unavailable", text);
        }
        let volatile = store.durability == Durability::Memory;
        if volatile && self.broker != Durability::Memory && !self.volatile_allowed {
            let text = format!(
                "{name} loses what it keeps in a crash: let it write to disk (Redis: appendonly yes; vumi run: --state DIR), or set allowVolatileState"
            );
            return report(StatusLevel::Degraded, "state_not_durable", text);
        }
        let text = format!("{name}, durability {}", store.durability.as_str());
        report(StatusLevel::Ok, "up", text)
    }
}

/// A store as a snapshot shows it.
pub(super) fn snapshot(store: &dyn StateStore) -> StoreSnapshot {
    StoreSnapshot {
        name: store.describe(),
        durability: store.durability(),
        health: store.health().borrow().clone(),
    }
}
