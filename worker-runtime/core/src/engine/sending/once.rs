//! Messages of a provider that come again are recognised by its id (R7): reserve, publish, commit with the answer.

use super::book::{Interrupted, stubborn};
use crate::codes::{self, Code};
use crate::engine::outlet::Unpublished;
use crate::error::{ErrorClass, WorkError};
use crate::state::first_seen::{MAX_ANSWER, Reserved};
use crate::state::{FirstSeen, Person, StateStore};
use crate::telemetry::WorkerMetrics;
use crate::worker::Taken;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::Resource;

/// How long publishing may take; after that, whoever reserved it is taken for dead.
const HOLD: Duration = Duration::from_secs(30);
/// How long a repeat waits for the one that is being published before it is asked to come again.
const WAIT: Duration = Duration::from_secs(2);
/// While it waits, the store is asked so often.
const ASK: Duration = Duration::from_millis(50);
/// What is kept of a message that will not be answered: this, and the code that says why. No answer begins so.
const UNANSWERED: u8 = 0;

/// What was seen of one transport.
pub(in crate::engine) struct Once {
    store: Arc<dyn StateStore>,
    scope: String,
    window: Duration,
    bound: u64,
    metrics: Arc<WorkerMetrics>,
}

impl Once {
    pub(in crate::engine) fn new(
        store: Arc<dyn StateStore>,
        resource: &Resource,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let dedupe = resource.transport().and_then(|t| t.dedupe.clone());
        let dedupe = dedupe.unwrap_or_default();
        Self {
            store,
            scope: resource.transport_name().to_owned(),
            window: dedupe.window(),
            bound: dedupe.max_entries().into(),
            metrics,
        }
    }

    /// Takes the right to publish the message with this id, unless it was published before: then it is counted as a
    /// repeat.
    pub(in crate::engine) async fn reserve(&self, id: &str) -> Result<Taken, WorkError> {
        let ask = || self.store.reserve(&self.scope, id, HOLD);
        let taken = self.settled(ask).await?;
        if taken != Taken::Now {
            self.metrics.duplicates.inc();
        }
        Ok(taken)
    }

    /// What is known of the message with this id. Takes nothing and counts nothing, so it may be asked often.
    pub(in crate::engine) async fn look(&self, id: &str) -> Result<Taken, WorkError> {
        self.settled(|| self.store.look(&self.scope, id)).await
    }

    /// Asks until nobody is publishing it any more.
    async fn settled<F>(&self, ask: impl Fn() -> F) -> Result<Taken, WorkError>
    where
        F: Future<Output = Result<Reserved, WorkError>>,
    {
        let began = tokio::time::Instant::now();
        loop {
            match ask().await? {
                Reserved::First => return Ok(Taken::Now),
                Reserved::Seen(answer) => {
                    return Ok(match answer.strip_prefix(&[UNANSWERED]) {
                        Some(code) => Taken::Unanswered(
                            Code::named(&String::from_utf8_lossy(code))
                                .unwrap_or(codes::HOLDER_GONE),
                        ),
                        None => Taken::Before(answer),
                    });
                }
                Reserved::Pending(left) if began.elapsed() >= WAIT => {
                    return Err(WorkError::new(
                        ErrorClass::Throttled(Some(left.min(WAIT))),
                        codes::DEDUPE_PENDING,
                        "the same message is being taken over; please try again",
                    ));
                }
                Reserved::Pending(left) => tokio::time::sleep(left.min(ASK)).await,
            }
        }
    }

    /// It is published, or its answer is known better now. The message is with the broker, so nothing is undone if the
    /// store cannot be reached: then a repeat comes out again, with the same id.
    pub(in crate::engine) async fn commit(
        &self,
        id: &str,
        answer: Bytes,
        person: Option<&Person>,
        interrupted: Interrupted<'_>,
    ) {
        let kept = match answer.len() > MAX_ANSWER {
            true => Bytes::new(),
            false => answer,
        };
        let put = stubborn(interrupted, || {
            let store = &self.store;
            store.commit(
                &self.scope,
                id,
                kept.clone(),
                person,
                self.window,
                self.bound,
            )
        });
        match tokio::time::timeout(WAIT, put).await {
            Ok(Ok(evicted)) => self.metrics.evicted.inc_by(evicted),
            Ok(Err(Unpublished::Failed(error))) => {
                tracing::warn!(code = %error.code, reason = %error, "what was taken over is not remembered");
            }
            Ok(Err(Unpublished::Interrupted)) | Err(_) => {
                tracing::warn!("what was taken over is not remembered: the store does not answer");
            }
        }
    }

    /// The message with this id will not be answered, for the reason that this code names, unless it was answered
    /// before. Waits for the store, since nobody would say so again.
    pub(in crate::engine) async fn unanswered(
        &self,
        id: &str,
        code: &str,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let mut kept = vec![UNANSWERED];
        kept.extend_from_slice(code.as_bytes());
        let kept = Bytes::from(kept);
        let evicted = stubborn(interrupted, || {
            let (store, kept) = (&self.store, kept.clone());
            store.commit(&self.scope, id, kept, None, self.window, self.bound)
        });
        self.metrics.evicted.inc_by(evicted.await?);
        Ok(())
    }

    /// It was not published.
    pub(in crate::engine) async fn release(&self, id: &str) {
        // What cannot be released is free again after the hold.
        let _ = tokio::time::timeout(
            WAIT,
            FirstSeen::release(self.store.as_ref(), &self.scope, id),
        )
        .await;
    }
}
