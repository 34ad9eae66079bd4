//! The trail of every user message over all hops, for `vumi why`. Hops that are not rows of a ledger are noted here;
//! notes that come together are stored together. A diagnosis, not a guarantee: while the store is away, hops are missing,
//! and counted.

use super::Names;
use super::book::{News, now};
use crate::error::WorkError;
use crate::message::{Fate, Message};
use crate::state::ledger::{Note, RowState, Step};
use crate::state::{Person, StateStore};
use crate::telemetry::WorkerMetrics;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vumi_api::Flow;

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

/// A user message at this worker.
pub(in crate::engine) struct Hop {
    message_id: String,
    person: Option<String>,
}

/// What happened to it here.
pub(in crate::engine) struct Happened {
    state: Option<RowState>,
    news: News,
    caused: Vec<String>,
}

impl Happened {
    /// It caused these messages. Itself among them: it was passed on.
    pub(in crate::engine) fn caused(text: String, caused: Vec<String>) -> Self {
        Self {
            state: None,
            news: News::said(text),
            caused,
        }
    }

    /// It was set aside.
    pub(in crate::engine) fn set_aside(error: &WorkError) -> Self {
        Self {
            state: Some(RowState::Parked),
            news: error.into(),
            caused: Vec::new(),
        }
    }

    /// It ended here, and its sender is told.
    pub(in crate::engine) fn failed(fate: &Fate) -> Self {
        Self {
            state: Some(RowState::Failed),
            news: fate.into(),
            caused: Vec::new(),
        }
    }
}

#[derive(Default)]
struct Waiting {
    notes: Vec<Note>,
    /// Number of the batch that they will be stored with.
    batch: u64,
}

impl Trail {
    /// None where hops are not noted.
    pub(in crate::engine) fn new(
        store: Arc<dyn StateStore>,
        names: &Names,
        metrics: Arc<WorkerMetrics>,
    ) -> Option<Self> {
        let keep = names.trail?;
        Some(Self {
            store,
            worker: names.by.clone(),
            keep,
            metrics,
            waiting: Mutex::new(Waiting {
                notes: Vec::new(),
                batch: 1,
            }),
            stored: watch::Sender::new(0),
            pen: tokio::sync::Mutex::default(),
        })
    }

    /// What names a user message in a note; none for what has no trail.
    pub(in crate::engine) fn hop(flow: Flow, message: &Message) -> Option<Hop> {
        let Message::User(message) = message else {
            return None;
        };
        let user = match flow {
            Flow::Outbound => message.to_addr(),
            Flow::Inbound | Flow::Event => message.from_addr(),
        };
        Some(Hop {
            message_id: message.message_id().to_owned(),
            person: user.map(|address| Person::new(address).key()),
        })
    }

    /// Notes what happened to a user message here. Returns when that is stored.
    pub(in crate::engine) async fn note(&self, hop: Hop, happened: Happened) {
        let Happened {
            state,
            news,
            caused,
        } = happened;
        let note = Note {
            message_id: hop.message_id,
            person: hop.person,
            step: Step {
                at: now(),
                worker: self.worker.clone(),
                state,
                attempt: 0,
                code: news.code,
                class: news.class,
                text: news.text,
                who: news.who,
                caused,
            },
        };
        let batch = {
            let mut waiting = self.lock();
            waiting.notes.push(note);
            waiting.batch
        };
        let mut stored = self.stored.subscribe();
        let done = async { stored.wait_for(|n| *n >= batch).await.map(drop).ok() };
        tokio::select! {
            biased;
            _ = done => {}
            pen = self.pen.lock() => {
                // Whoever had the pen before may have stored this note as well.
                let already = *self.stored.borrow() >= batch;
                if !already {
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
