//! Messages that may have killed the process that worked on them (R15): each is counted before it is begun, so that one
//! which kills again and again is known and set aside. What is begun again for the first time runs beside others: a lost
//! channel or a killed process brings back everything that was in hand. What was already begun again in a process that
//! ended runs alone, so that what only ran beside a killer is not counted with it once more.

use super::book::{Interrupted, stubborn};
use crate::engine::outlet::Unpublished;
use crate::error::WorkError;
use crate::state::StateStore;
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A message begun in vain in so many lives is set aside.
const CRASHES: u32 = 3;

/// The trials of one consumed queue.
#[derive(Clone)]
pub(in crate::engine) struct Trial {
    store: Arc<dyn StateStore>,
    queue: Arc<str>,
    /// For how long a suspicion is kept.
    keep: Duration,
    /// Of this process: a message that comes again within it, since a channel was lost, has not ended it.
    life: u64,
    room: Arc<RwLock<()>>,
}

/// A suspect.
pub(in crate::engine) struct Suspect {
    id: String,
    at_work: Option<AtWork>,
    guilty: bool,
}

/// A suspect's place among others.
enum Place {
    /// Beside others that have one like it.
    Shared { _held: OwnedRwLockReadGuard<()> },
    /// No other suspect runs.
    Alone { _held: OwnedRwLockWriteGuard<()> },
}

/// Held during a suspect's first attempt.
pub(in crate::engine) struct AtWork {
    place: Place,
    trial: Trial,
    id: String,
}

impl AtWork {
    /// Lets other suspects run while this one only waits. If the process ends meanwhile, that was not its doing.
    pub(in crate::engine) async fn aside<T>(
        at_work: &mut Option<Self>,
        waits: impl Future<Output = T>,
    ) -> T {
        let mut waits = std::pin::pin!(waits);
        if let Some(waited) = waits.as_mut().now_or_never() {
            return waited;
        }
        let Some(Self { place, trial, id }) = at_work.take() else {
            return waits.await;
        };
        let alone = matches!(place, Place::Alone { .. });
        drop(place);
        let (waited, ()) = tokio::join!(waits, trial.spare(&id));
        let place = trial.place(alone).await;
        trial.begin_again(&id).await;
        *at_work = Some(Self { place, trial, id });
        waited
    }
}

impl Suspect {
    /// Whether it was begun too often.
    pub(in crate::engine) fn is_guilty(&self) -> bool {
        self.guilty
    }

    /// Its place among others.
    pub(in crate::engine) fn at_work(&mut self) -> &mut Option<AtWork> {
        &mut self.at_work
    }
}

impl Trial {
    pub(in crate::engine) fn new(
        store: Arc<dyn StateStore>,
        queue: &str,
        keep: Duration,
        life: u64,
    ) -> Self {
        Self {
            store,
            queue: queue.into(),
            keep,
            life,
            room: Arc::default(),
        }
    }

    async fn place(&self, alone: bool) -> Place {
        let room = Arc::clone(&self.room);
        match alone {
            true => Place::Alone {
                _held: room.write_owned().await,
            },
            false => Place::Shared {
                _held: room.read_owned().await,
            },
        }
    }

    /// Counts a message that somebody began before, before it is begun.
    pub(in crate::engine) async fn begin(
        &self,
        id: &str,
        interrupted: Interrupted<'_>,
    ) -> Result<Suspect, Unpublished> {
        let begun_in = stubborn(interrupted, || self.store.begun_in(&self.queue, id)).await?;
        // Counted only once it has its place: what waits for that has killed nobody.
        let alone = begun_in.iter().any(|life| *life != self.life);
        let place = self.place(alone).await;
        if interrupted() {
            return Err(Unpublished::Interrupted);
        }
        let count = stubborn(interrupted, || {
            self.store.suspect(&self.queue, id, self.life, self.keep)
        })
        .await?;
        Ok(Suspect {
            id: id.to_owned(),
            at_work: Some(AtWork {
                place,
                trial: self.clone(),
                id: id.to_owned(),
            }),
            guilty: count >= CRASHES,
        })
    }

    /// It only waits.
    async fn spare(&self, id: &str) {
        unless_stored(id, self.store.spare(&self.queue, id, self.life).await);
    }

    /// It goes on after it waited.
    async fn begin_again(&self, id: &str) {
        let counted = self.store.suspect(&self.queue, id, self.life, self.keep);
        unless_stored(id, counted.await);
    }

    /// Its attempt is over, and it did no harm. If that cannot be stored, it is forgotten later by itself.
    pub(in crate::engine) async fn acquit(&self, suspect: Suspect) {
        let Suspect { id, at_work, .. } = suspect;
        drop(at_work);
        unless_stored(&id, self.store.acquit(&self.queue, &id).await);
    }
}

/// A suspicion more or less for once hurts nobody.
fn unless_stored<T>(id: &str, stored: Result<T, WorkError>) {
    if let Err(error) = stored {
        tracing::debug!(message_id = id, code = %error.code, "what is known of a suspect is not stored");
    }
}
