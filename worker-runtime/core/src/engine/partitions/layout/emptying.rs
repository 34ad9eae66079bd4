//! Reading old parts to the end, alone.

use super::held::HeldParts;
use super::*;

/// Between two looks at what is left in the old parts.
const LOOK: Duration = Duration::from_millis(500);
/// The parts must have been empty for so long: what the broker had on its way to us is here by then.
const QUIET: Duration = Duration::from_secs(1);

impl Layout {
    /// Has all these parts read until nothing is left in them, moves what waits in their journals, and writes down how the
    /// queue is divided now. The fence of each part proves that nobody else holds a message of it, and nobody else passes
    /// messages on, since this replica holds the fence of the queue.
    pub(super) async fn redivide(&self, parts: &BTreeSet<String>) -> Result<(), WorkError> {
        if !self.fails.load(Ordering::SeqCst) {
            let text = "its queue was divided differently before: what waits in the former partitions or classes is \
                        finished first, and new messages wait; what waits in the journal moves along";
            tracing::warn!(
                queue = self.plan.queue(),
                "the {}: {text}",
                self.component()
            );
            self.complain(StatusLevel::Degraded, reasons::REDIVIDING, text);
        }
        let redivided = self.redivided(parts).await;
        self.fails.store(redivided.is_err(), Ordering::SeqCst);
        redivided
    }

    async fn redivided(&self, parts: &BTreeSet<String>) -> Result<(), WorkError> {
        let (alone, former) = (Wish(&self.alone), Wish(&self.former));
        let alone_with = |closed| WantedParts {
            parts: parts.clone(),
            closed,
        };
        if self.plan.parts().is_empty() {
            former.is(parts.clone());
        }
        if self.mode != OrderingMode::None {
            alone.is(alone_with(false));
        }
        self.emptied(parts).await;
        self.here.send_modify(|here| here.left = false);
        alone.is(alone_with(true));
        let _ = self.here.subscribe().wait_for(|here| here.left).await;
        let fences = HeldParts::take(self, parts).await?;
        let mover = self.appointed().await?;
        // Whoever was frozen before it was appointed learns here that its connection is gone, and the fences with it.
        self.read().await?;
        fences.check()?;
        self.move_journals(parts, &fences, &mover).await?;
        // Its readers end before anything may be read again.
        drop(former);
        fences.check()?;
        self.write().await
    }

    /// Returns once nothing is left in the queues of these parts. Where order is kept, this replica alone must have read
    /// them to the end.
    async fn emptied(&self, parts: &BTreeSet<String>) {
        let order = self.mode != OrderingMode::None;
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
                        return;
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

/// What others here are asked for while it lives.
struct Wish<'l, T>(&'l watch::Sender<Option<T>>);

impl<T> Wish<'_, T> {
    fn is(&self, wish: T) {
        self.0.send_replace(Some(wish));
    }
}

impl<T> Drop for Wish<'_, T> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}
