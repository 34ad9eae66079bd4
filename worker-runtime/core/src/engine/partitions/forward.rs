//! Passing a message on to the part of its queue that it belongs to: untouched, confirmed, in the order of its lane.

use super::super::backoff::Backoff;
use super::super::delivery::{Desk, Verdict};
use super::super::outlet::{Cause, Unpublished};
use crate::broker::RawDelivery;
use std::time::Duration;

const AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

impl Desk {
    /// Passes a message on; nothing is ever given up here, for nothing of it has been tried.
    pub(in crate::engine) async fn pass_on(
        &self,
        raw: &RawDelivery,
        queue: &str,
        cause: Cause<'_>,
    ) -> Verdict {
        let mut attempt = 0;
        loop {
            let error = match self.outlet.pass_on(raw, queue, cause).await {
                Ok(()) => return Verdict::Done,
                Err(Unpublished::Interrupted) => return Verdict::Returned,
                Err(Unpublished::Failed(error)) => error,
            };
            attempt += 1;
            self.worker_metrics.error(&error);
            tracing::warn!(worker = self.key, queue, code = %error.code, reason = %error, "a message cannot be passed on; trying again");
            tokio::select! {
                () = tokio::time::sleep(AGAIN.after(attempt)) => {}
                () = self.halt.cancelled() => return Verdict::Returned,
            }
            if (cause.interrupted)() {
                return Verdict::Returned;
            }
        }
    }
}
