//! The trail of every user message over all hops, for `vumi why`. Hops that are not rows of a ledger are noted here;
//! notes that come together are stored together. A diagnosis, not a guarantee: while the store is away, hops are missing,
//! and counted.

use super::book::now;
use crate::state::StateStore;
use crate::state::ledger::{Note, Step};
use crate::state::Person;
use crate::telemetry::WorkerMetrics;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vumi_api::Flow;
use crate::message::UserMessage;

/// A store that does not answer holds nobody longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The notes of one worker.
pub(in crate::engine) struct Trail {
    store: Arc<dyn StateStore>,
    worker: String,
    keep: Duration,
    metrics: Arc<WorkerMetrics>,
    waiting: Mutex<Waiting>,
    /// Number of the last batch that is stored, or lost.
    stored: watch::Sender<u64>,
    /// Held by who stores.
    pen: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    notes: Vec<Note>,
    /// Number of the batch that they will be stored with.
    batch: u64,
}

impl Trail {
    pub(in crate::engine) fn new(
        store: Arc<dyn StateStore>,
        worker: &str,
        instance: &str,
        keep: Duration,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            store,
            worker: format!("{worker}@{instance}"),
            keep,
            metrics,
            waiting: Mutex::new(Waiting { notes: Vec::new(), batch: 1 }),
            stored: watch::Sender::new(0),
            pen: tokio::sync::Mutex::default(),
        }
    }

    /// Notes what happened to a user message here, and what it caused. Returns when that is stored.
    pub(in crate::engine) async fn note(
        &self,
        flow: Flow,
        message: &UserMessage,
        code: &str,
        text: &str,
        caused: Vec<String>,
    ) {
        let user = match flow {
            Flow::Outbound => message.to_addr(),
            Flow::Inbound | Flow::Event => message.from_addr(),
        };
        let note = Note {
            message_id: message.message_id().to_owned(),
            person: user.map(|address| Person::new(address).key()),
            step: Step {
                at: now(),
                worker: self.worker.clone(),
                state: None,
                attempt: 0,
                code: code.to_owned(),
                class: String::new(),
                text: text.to_owned(),
                who: String::new(),
                caused,
            },
        };
        let batch = {
            let mut waiting = self.lock();
            waiting.notes.push(note);
            waiting.batch
        };
        let mut stored = self.stored.subscribe();
        tokio::select! {
            biased;
            _ = stored.wait_for(|n| *n >= batch) => {}
            pen = self.pen.lock() => {
                // Whoever had the pen before may have stored this note as well.
                if *stored.borrow() < batch {
                    self.store(batch).await;
                }
                drop(pen);
            }
        }
    }

    async fn store(&self, batch: u64) {
        let notes = {
            let mut waiting = self.lock();
            waiting.batch = batch + 1;
            std::mem::take(&mut waiting.notes)
        };
        let put = tokio::time::timeout(PATIENCE, self.store.note(&notes, self.keep)).await;
        if !matches!(put, Ok(Ok(()))) {
            self.metrics.trail_lost.inc_by(notes.len() as u64);
        }
        self.stored.send_replace(batch);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
