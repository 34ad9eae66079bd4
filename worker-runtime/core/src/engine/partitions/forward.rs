//! Passing a message on to the part of its queue that it belongs to: untouched, confirmed, in the order of its lane.

use super::super::backoff::Backoff;
use super::super::delivery::{Desk, Verdict};
use super::super::lanes::Lane;
use super::super::outlet::Unpublished;
use super::layout::Layout;
use super::plan::Plan;
use crate::broker::RawDelivery;
use crate::message::Message;
use std::sync::Arc;
use std::time::Duration;

const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// What the holder of a divided queue's fence does with its messages.
pub(in crate::engine) struct Forwarder {
    pub(super) plan: Plan,
    pub(super) layout: Arc<Layout>,
}

impl Forwarder {
    /// Passes a message on; nothing is ever given up here, for nothing of it has been tried.
    pub(in crate::engine) async fn pass_on(
        &self,
        desk: &Desk,
        raw: &RawDelivery,
        message: &Message,
        lane: Lane,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        if !self.layout.agreed(raw.generation, interrupted).await {
            return Verdict::Returned;
        }
        let queue = self.plan.target(message, lane);
        let mut attempt = 0;
        loop {
            let error = match desk.outlet.pass_on(raw, &queue, interrupted).await {
                Ok(()) => return Verdict::Done,
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => error,
            };
            attempt += 1;
            desk.worker_metrics.error(&error);
            tracing::warn!(worker = desk.key, queue, code = %error.code, reason = %error, "a message cannot be passed on; trying again");
            tokio::select! {
                () = tokio::time::sleep(AGAIN.after(attempt)) => {}
                () = desk.halt.cancelled() => return Verdict::Returned,
            }
            if interrupted() {
                return Verdict::Returned;
            }
        }
    }
}
