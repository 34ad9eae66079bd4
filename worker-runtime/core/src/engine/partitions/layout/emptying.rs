//! Reading old parts to the end, alone.

use super::super::super::backlog::Backlog;
use super::super::super::consumer::Phase;
use super::super::super::delivery::Desk;
use super::super::crew::Crew;
use super::*;
use crate::reasons;
use crate::status::{StatusLevel, StatusReport};
use futures::FutureExt;
use tokio::time::Instant;
use vumi_api::Kind;

/// Between two looks at what is left in the old parts.
const LOOK: Duration = Duration::from_millis(500);
/// The parts must have been empty for so long: what the broker had on its way to us is here by then.
const QUIET: Duration = Duration::from_secs(1);

impl Layout {
    /// Has all these parts for itself until nothing is left in them. The fence of each part proves that nobody else holds
    /// a message of it, and nobody else passes messages on, since this replica holds the fence of the queue.
    pub(super) async fn empty(self: &Arc<Self>, parts: BTreeSet<String>) -> Result<(), WorkError> {
        let component = format!("partitions of {}", self.plan.queue());
        let text = "its queue was divided differently before: what waits in the former partitions or classes is finished \
                    first, and new messages wait; what waits in the journal moves along";
        tracing::warn!(queue = self.plan.queue(), "the {component}: {text}");
        let report = StatusReport::new(
            component.as_str(),
            StatusLevel::Degraded,
            reasons::REDIVIDING,
            text,
        );
        self.status.report(report);
        match &self.readers {
            None => self.emptied_and_moved(&parts, true).await?,
            Some(readers) => self.emptied_by(readers, &parts).await?,
        }
        let report = StatusReport::new(
            component.as_str(),
            StatusLevel::Ok,
            reasons::DIVIDED,
            "as they should be",
        );
        self.status.report(report);
        Ok(())
    }

    /// Once nothing is left in the queues of these parts, moves what is left in their journals.
    async fn emptied_and_moved(
        &self,
        parts: &BTreeSet<String>,
        order: bool,
    ) -> Result<(), WorkError> {
        let _alone = self.emptied(parts, order).await;
        if order {
            self.alone.send_replace(Some(Alone {
                parts: parts.clone(),
                closed: true,
            }));
            let mut here = self.here.subscribe();
            let _ = here.wait_for(|here| here.posts == 0).await;
        }
        self.move_journals(parts).await
    }

    /// Reads parts for as long as there is something in their queues.
    async fn emptied_by(
        self: &Arc<Self>,
        readers: &Parts,
        parts: &BTreeSet<String>,
    ) -> Result<(), WorkError> {
        let plan = Plan::former(self.plan.queue(), parts);
        let phase = watch::Sender::new(Phase::Run);
        let halt = readers.desk.halt.child_token();
        let desk = Desk {
            counters: Arc::clone(&self.leftover),
            halt: halt.clone(),
            ..(*readers.desk).clone()
        };
        let backlog = Arc::new(Backlog::new(Kind::Dispatcher, readers.backlog.limit()));
        let mode = match readers.mode {
            // Nobody waits for a fence where no order is kept.
            OrderingMode::None => OrderingMode::None,
            _ => OrderingMode::PerUser,
        };
        let readers = Parts {
            desk: Arc::new(desk),
            phase: phase.subscribe(),
            mode,
            ..readers.clone()
        };
        let (crew, _) = Crew::new(readers, plan, Arc::clone(self), backlog);
        let mut crew = crew.run().boxed();
        let moved = tokio::select! {
            // The worker stops.
            () = &mut crew => return std::future::pending().await,
            moved = self.emptied_and_moved(parts, mode != OrderingMode::None) => moved,
        };
        phase.send_replace(Phase::Drain);
        halt.cancel();
        crew.await;
        moved
    }

    /// Returns once nothing is left in the queues of these parts. In `order`, this replica alone must have read them to
    /// the end, and has them for itself until what is returned is dropped.
    async fn emptied(&self, parts: &BTreeSet<String>, order: bool) -> Option<Lonely<'_>> {
        let alone = order.then(|| {
            self.alone.send_replace(Some(Alone {
                parts: parts.clone(),
                closed: false,
            }));
            Lonely(&self.alone)
        });
        let mut quiet: Option<(Instant, u64)> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let here = self.here.borrow().clone();
            let mut still = here.in_hand == 0;
            still &= !order || (self.leads() && here.reads.is_superset(parts));
            for part in parts {
                if !still {
                    break;
                }
                still = self.is_empty(part).await;
            }
            quiet = match quiet {
                _ if !still => None,
                Some((since, received)) if received == here.received => {
                    if since.elapsed() >= QUIET {
                        return alone;
                    }
                    Some((since, received))
                }
                _ => Some((Instant::now(), here.received)),
            };
        }
    }

    /// Whether nothing waits in the queue of a part. An error is never zero.
    async fn is_empty(&self, part: &str) -> bool {
        let depth = self.broker.depth(&queue_of(self.plan.queue(), part)).await;
        matches!(depth, Ok(Some(depth)) if depth.ready == 0)
    }
}

/// While it lives, this replica wants to have the parts for itself.
struct Lonely<'l>(&'l watch::Sender<Option<Alone>>);

impl Drop for Lonely<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}
