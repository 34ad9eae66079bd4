//! Puts out what was kept long enough: in the state stores of a process, in its journals and in its parking queues.

use super::Supervisor;
use crate::error::WorkError;
use crate::operate::Reach;
use crate::state::StateStore;
use crate::{journal_desk, parking};
use std::sync::Weak;
use std::time::Duration;

/// A store is swept so often in one turn, as long as it finds something; each time is bounded by itself.
const ROUNDS: u32 = 10;

/// Sweeps every so often, until the supervisor is gone or stops.
pub(super) async fn run(supervisor: Weak<Supervisor>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(supervisor) = supervisor.upgrade() else {
            return;
        };
        let stopping = supervisor.stopping().clone();
        tokio::select! {
            () = stopping.cancelled() => return,
            () = supervisor.sweep() => {}
        }
    }
}

impl Supervisor {
    async fn sweep(&self) {
        for (identity, store) in self.stores() {
            for _ in 0..ROUNDS {
                match store.sweep().await {
                    Ok(0) => break,
                    Ok(removed) => tracing::debug!(store = identity, removed, "swept"),
                    Err(error) => {
                        tracing::debug!(store = identity, %error, "the store cannot be swept now");
                        break;
                    }
                }
            }
        }
        let reach = self.reach().await;
        for store in &reach.stores {
            if let Err(error) = self.expire_journals(&**store, &reach).await {
                tracing::debug!(store = store.describe(), %error, "journals cannot be looked through now");
            }
        }
        for resource in self.resources() {
            let Some(keep) = resource.settings().retention.parked else {
                continue;
            };
            if let Err(error) = self.expire_parked(&resource, keep.0).await {
                tracing::warn!(worker = resource.key(), %error, "parked messages cannot be looked through now");
            }
        }
    }

    /// Ends what waits in our queues' journals for too long, and what somebody took out of them without telling its sender.
    async fn expire_journals(
        &self,
        store: &dyn StateStore,
        reach: &Reach,
    ) -> Result<(), WorkError> {
        for queue in store.queues().await? {
            let Some(at) = reach.consumed(&queue) else {
                continue;
            };
            let withdrawal = reach.withdrawal(&queue);
            let mut all = vec![journal_desk::finish(store, &withdrawal, &queue).await?];
            if let Some(keep) = at.journal {
                let expired = journal_desk::expire(store, &withdrawal, &queue, keep).await?;
                let metrics = self.telemetry().worker(&at.worker).queue(&queue);
                metrics.journal_expired.inc_by(expired.done);
                all.push(expired);
            }
            for why in all.into_iter().filter_map(|dropped| dropped.stopped) {
                tracing::warn!(
                    queue,
                    why,
                    "expiring what waits in the journal stopped early"
                );
            }
        }
        Ok(())
    }

    /// Ends what was parked of a worker's queues longer ago than `keep`.
    async fn expire_parked(
        &self,
        resource: &vumi_api::Resource,
        keep: Duration,
    ) -> Result<(), WorkError> {
        let reach = self.reach().await;
        let broker = self.broker_of(resource).await?;
        let topology = resource.topology();
        for port in topology.intake.iter().chain(&topology.replies) {
            let queue = port.queue();
            let handled =
                parking::expire(&*broker, &reach.withdrawal(&queue), &queue, keep).await?;
            if let Some(why) = handled.stopped {
                tracing::warn!(queue, why, "expiring parked messages stopped early");
            }
        }
        Ok(())
    }
}
