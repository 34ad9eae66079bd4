//! Messages that may have killed the process that worked on them (R15): such are begun one at a time, and counted before,
//! so that one which kills again and again is known and set aside.

use super::book::{Interrupted, stubborn};
use crate::engine::outlet::Unpublished;
use crate::error::WorkError;
use crate::state::StateStore;
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

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
    one: Arc<Mutex<()>>,
}

/// A suspect.
pub(in crate::engine) struct Suspect {
    id: String,
    alone: Option<Alone>,
    guilty: bool,
}

/// Held during a suspect's first attempt: no other suspect runs beside it.
pub(in crate::engine) struct Alone {
    one: OwnedMutexGuard<()>,
    trial: Trial,
    id: String,
}

impl Alone {
    /// Lets other suspects run while this one only waits. If the process ends meanwhile, that was not its doing.
    pub(in crate::engine) async fn aside<T>(
        alone: &mut Option<Self>,
        waits: impl Future<Output = T>,
    ) -> T {
        let mut waits = std::pin::pin!(waits);
        if let Some(waited) = waits.as_mut().now_or_never() {
            return waited;
        }
        let Some(Self { one, trial, id }) = alone.take() else {
            return waits.await;
        };
        drop(one);
        let (waited, ()) = tokio::join!(waits, trial.spare(&id));
        let one = Arc::clone(&trial.one).lock_owned().await;
        trial.begin_again(&id).await;
        *alone = Some(Self { one, trial, id });
        waited
    }
}

impl Suspect {
    /// Whether it was begun too often.
    pub(in crate::engine) fn is_guilty(&self) -> bool {
        self.guilty
    }

    /// What keeps others from running beside it.
    pub(in crate::engine) fn alone(&mut self) -> &mut Option<Alone> {
        &mut self.alone
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
            one: Arc::default(),
        }
    }

    /// Counts a message that somebody began before, before it is begun.
    pub(in crate::engine) async fn begin(
        &self,
        id: &str,
        interrupted: Interrupted<'_>,
    ) -> Result<Suspect, Unpublished> {
        let one = Arc::clone(&self.one).lock_owned().await;
        if interrupted() {
            return Err(Unpublished::Interrupted);
        }
        let count = stubborn(interrupted, || {
            self.store.suspect(&self.queue, id, self.life, self.keep)
        })
        .await?;
        Ok(Suspect {
            id: id.to_owned(),
            alone: Some(Alone {
                one,
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
        let Suspect { id, alone, .. } = suspect;
        drop(alone);
        unless_stored(&id, self.store.acquit(&self.queue, &id).await);
    }
}

/// A suspicion more or less for once hurts nobody.
fn unless_stored<T>(id: &str, stored: Result<T, WorkError>) {
    if let Err(error) = stored {
        tracing::debug!(message_id = id, code = %error.code, "what is known of a suspect is not stored");
    }
}
