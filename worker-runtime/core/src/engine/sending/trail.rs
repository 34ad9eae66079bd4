//! The trail of every user message over all hops, for `vumi why`. Hops that are not rows of a ledger are noted here, beside
//! the messages: nobody waits for a note, since whatever is published and not acknowledged yet comes twice after a crash.
//! Notes that come together are stored together. A diagnosis, not a guarantee: while the store is away, and when the process
//! is killed, hops are missing; those that the store did not take are counted.

use super::Names;
use super::book::{News, now};
use crate::error::{ErrorClass, WorkError};
use crate::message::{Fate, Message};
use crate::state::ledger::{Note, RowState, Step};
use crate::state::{Person, StateStore};
use crate::telemetry::WorkerMetrics;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vumi_api::Flow;

/// A store that does not answer holds nobody longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Notes that wait for the store. Whoever would make more of them waits before it publishes, not after.
const ROOM: u32 = 4096;
/// Notes that are stored together: a few milliseconds of a store.
const BATCH: usize = 500;

/// The notes of one worker.
pub(in crate::engine) struct Trail {
    store: Arc<dyn StateStore>,
    worker: String,
    keep: Duration,
    metrics: Arc<WorkerMetrics>,
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

/// The place of a note that will be made.
#[must_use = "it is taken for what is noted next"]
pub(in crate::engine) struct Place(Option<OwnedSemaphorePermit>);

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
    holder: Option<String>,
}

impl Happened {
    /// It caused these messages. Itself among them: it was passed on.
    pub(in crate::engine) fn caused(text: String, caused: Vec<String>) -> Self {
        Self {
            state: None,
            news: News::said(text),
            caused,
            holder: None,
        }
    }

    /// What it belongs to is held here: replies find this replica by its reply queue.
    pub(in crate::engine) fn held(self, holder: Option<String>) -> Self {
        Self { holder, ..self }
    }

    /// It was set aside.
    pub(in crate::engine) fn set_aside(error: &WorkError) -> Self {
        Self {
            state: Some(RowState::Parked),
            news: error.into(),
            caused: Vec::new(),
            holder: None,
        }
    }

    /// It ended here, and its sender is told.
    pub(in crate::engine) fn failed(fate: &Fate) -> Self {
        Self {
            state: Some(RowState::Failed),
            news: fate.into(),
            caused: Vec::new(),
            holder: None,
        }
    }
}

#[derive(Default)]
struct Waiting {
    notes: Vec<Note>,
    /// Their places, which are free once they are stored.
    places: Vec<OwnedSemaphorePermit>,
    /// Somebody stores them.
    writing: bool,
}

impl Waiting {
    /// What is stored next; if nothing is, nobody stores any more.
    fn take(&mut self, most: usize) -> Option<(Vec<Note>, Vec<OwnedSemaphorePermit>)> {
        let count = self.notes.len().min(most);
        self.writing = count > 0;
        let notes = self.notes.drain(..count).collect();
        let places = self.places.drain(..count).collect();
        self.writing.then_some((notes, places))
    }

    /// Forgets what waits; how much.
    fn forget(&mut self) -> usize {
        self.places.clear();
        self.notes.drain(..).count()
    }
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
            room: Arc::new(Semaphore::new(ROOM as usize)),
            waiting: Mutex::default(),
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

    /// Waits for a place among the notes that are not stored yet, if there are very many.
    pub(in crate::engine) async fn place(&self) -> Place {
        let room = Arc::clone(&self.room).acquire_owned();
        let place = tokio::time::timeout(PATIENCE, room).await;
        Place(place.ok().and_then(Result::ok))
    }

    /// Notes what happened to a user message here; it is stored soon.
    pub(in crate::engine) fn note(self: &Arc<Self>, place: Place, hop: Hop, happened: Happened) {
        let Some(place) = place.0 else {
            self.metrics.trail_lost.inc();
            return;
        };
        let Happened {
            state,
            news,
            caused,
            holder,
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
                holder,
            },
        };
        let mut waiting = self.lock();
        waiting.notes.push(note);
        waiting.places.push(place);
        if !std::mem::replace(&mut waiting.writing, true) {
            let trail = Arc::clone(self);
            tokio::spawn(async move { trail.store().await });
        }
    }

    /// Stores what waits, until nothing does.
    async fn store(&self) {
        loop {
            let Some((notes, _places)) = self.lock().take(BATCH) else {
                return;
            };
            let put = AssertUnwindSafe(self.store.note(&notes, self.keep)).catch_unwind();
            let put = tokio::time::timeout(PATIENCE, put).await;
            let lost = match put {
                Ok(Ok(Ok(()))) => continue,
                // It has something against these.
                Ok(Ok(Err(error))) if error.class != ErrorClass::Connect => notes.len(),
                // Nor are those that came meanwhile stored, since others wait for their places.
                _ => notes.len() + self.lock().forget(),
            };
            self.metrics.trail_lost.inc_by(lost as u64);
        }
    }

    /// Waits until everything that was noted is stored, or lost.
    pub(in crate::engine) async fn stored(&self) {
        // All places are free then.
        let _ = self.room.acquire_many(ROOM).await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
