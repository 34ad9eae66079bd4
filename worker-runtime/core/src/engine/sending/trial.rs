//! Messages that may have killed the process that worked on them (R15): such are begun one at a time, and counted before,
//! so that one which kills again and again is known and set aside.

use super::book::{Interrupted, stubborn};
use crate::engine::outlet::Unpublished;
use crate::state::StateStore;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A message begun in vain in so many lives is set aside.
const CRASHES: u32 = 3;

/// The trials of one consumed queue.
#[derive(Clone)]
pub(in crate::engine) struct Trial {
    store: Arc<dyn StateStore>,
    queue: String,
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
pub(in crate::engine) struct Alone(OwnedMutexGuard<()>);

impl Alone {
    /// Lets other suspects run while this one only waits.
    pub(in crate::engine) async fn aside<T>(
        alone: &mut Option<Self>,
        waits: impl Future<Output = T>,
    ) -> T {
        let one = alone.take();
        let one = one.map(|alone| Arc::clone(OwnedMutexGuard::mutex(&alone.0)));
        let waited = waits.await;
        if let Some(one) = one {
            *alone = Some(Self(one.lock_owned().await));
        }
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
            queue: queue.to_owned(),
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
        let alone = Arc::clone(&self.one).lock_owned().await;
        if interrupted() {
            return Err(Unpublished::Interrupted);
        }
        let count = stubborn(interrupted, || {
            self.store.suspect(&self.queue, id, self.life, self.keep)
        })
        .await?;
        Ok(Suspect {
            id: id.to_owned(),
            alone: Some(Alone(alone)),
            guilty: count >= CRASHES,
        })
    }

    /// Its attempt is over, and it did no harm. If that cannot be stored, it is forgotten later by itself.
    pub(in crate::engine) async fn acquit(&self, suspect: Suspect) {
        let Suspect { id, alone, .. } = suspect;
        drop(alone);
        if let Err(error) = self.store.acquit(&self.queue, &id).await {
            tracing::debug!(message_id = id, code = %error.code, "an acquittal is not stored");
        }
    }
}
