//! What one queue's journal asks of the state store. What must happen is repeated until it does, or until it is no longer
//! ours to do.

use super::exit::Exit;
use super::hold;
use crate::engine::insist::insist;
use crate::engine::store_watch::Trouble;
use crate::error::WorkError;
use crate::state::Journal;
use crate::state::journal::{Append, Claimed, Depth, Filter, Lane as Place, Next, Step};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A claim that nobody prolongs ends after this: another replica goes on.
pub(super) const LEASE: Duration = Duration::from_secs(60);

pub(super) struct Access {
    pub(super) queue: String,
    pub(super) exit: Arc<Exit>,
    pub(super) trouble: Trouble,
    /// Fires when nothing is to be tried again.
    pub(super) halt: CancellationToken,
}

/// Heads that were claimed.
pub(super) struct Taken {
    pub(super) heads: Vec<Claimed>,
    /// Until something else can be claimed; none if nothing waits for a time.
    pub(super) next: Option<Duration>,
}

impl Access {
    fn journal(&self) -> &dyn Journal {
        &*self.exit.store
    }

    /// Whether times in the store are not this machine's.
    pub(super) fn has_own_clock(&self) -> bool {
        self.exit.store.has_own_clock()
    }

    /// Ends every claim of the queue and reads which lanes hold something.
    pub(super) async fn open(&self, term: u64) -> Option<Vec<Place>> {
        self.insist(Some(term), || async {
            self.journal().reclaim(&self.queue).await?;
            self.journal().lanes(&self.queue).await
        })
        .await
    }

    /// Which lanes hold something.
    pub(super) async fn lanes(&self) -> Option<Vec<Place>> {
        self.noted(self.journal().lanes(&self.queue).await).ok()
    }

    /// False if it was given up.
    pub(super) async fn append(&self, term: Option<u64>, messages: Vec<Append>) -> bool {
        if self.is_over(term) {
            // Whoever has the fence now may have read already what is there.
            return false;
        }
        let append = || self.journal().append(&self.queue, messages.clone());
        self.insist(term, append).await.is_some()
    }

    pub(super) async fn step(&self, term: u64, place: &Place, id: u64, step: Step) -> Option<Next> {
        let step = || {
            self.journal()
                .step(&self.queue, place, id, step.clone(), LEASE)
        };
        self.insist(Some(term), step).await
    }

    /// Claims up to `limit` lanes that are due. Groups are served in turn: `turn` says whose it is.
    /// `anew` ends every other claim before.
    pub(super) async fn claim(
        &self,
        limit: usize,
        turn: usize,
        anew: bool,
    ) -> Result<Taken, WorkError> {
        let claim = async {
            if anew {
                self.journal().reclaim(&self.queue).await?;
            }
            let groups = self.journal().groups(&self.queue).await?;
            let mut heads = Vec::new();
            for n in 0..groups.len() {
                let group = &groups[(turn + n) % groups.len()];
                let share = (limit - heads.len()).div_ceil(groups.len() - n);
                if share > 0 {
                    let claimed = self.journal().claim(&self.queue, group, share, LEASE);
                    heads.extend(claimed.await?);
                }
            }
            let next = match heads.len() >= limit {
                true => Some(Duration::ZERO),
                false => self.journal().next_due(&self.queue).await?,
            };
            Ok(Taken { heads, next })
        };
        self.noted(claim.await)
    }

    /// Ends claims.
    pub(super) async fn release(&self, term: u64, places: Vec<Place>) {
        let release = || self.journal().renew(&self.queue, &places, Duration::ZERO);
        self.insist(Some(term), release).await;
    }

    /// Makes due what waits for nothing but its turn or its next attempt, not for a time of its own.
    pub(super) async fn hurry(&self) {
        let hurry = || async {
            for group in self.journal().groups(&self.queue).await? {
                if !hold::has_own_times(&group) {
                    let filter = Filter {
                        group: Some(group),
                        ..Filter::default()
                    };
                    self.journal().release(&self.queue, &filter).await?;
                }
            }
            Ok(())
        };
        self.insist(None, hurry).await;
    }

    /// Prolongs claims.
    pub(super) async fn renew(&self, places: Vec<Place>) {
        let renewed = self.journal().renew(&self.queue, &places, LEASE).await;
        // What could not be prolonged may run out; then a message is handled twice, which is allowed.
        let _ = self.noted(renewed);
    }

    pub(super) async fn depth(&self) -> Option<Depth> {
        self.noted(self.journal().depth(&self.queue).await).ok()
    }

    /// Repeats an operation until it succeeds; none once `term` is over or nothing is to be tried again.
    pub(super) async fn insist<T, F>(
        &self,
        term: Option<u64>,
        operation: impl Fn() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, WorkError>>,
    {
        let ask = || async { self.noted(operation().await) };
        let over = || self.is_over(term);
        let done = insist(ask, |_| false, over, self.halt.cancelled()).await;
        done.ok()
    }

    fn is_over(&self, term: Option<u64>) -> bool {
        term.is_some_and(|term| term != self.exit.term())
    }

    fn noted<T>(&self, result: Result<T, WorkError>) -> Result<T, WorkError> {
        let failed = result.as_ref().err();
        if self.exit.operation(failed.is_some()) {
            self.trouble.note(&self.queue, failed);
        }
        result
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.trouble.note(&self.queue, None);
    }
}
