//! Signs of life in the embedded store. All who give them are of its own process, and end with it: memory is enough.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Until when each worker's last sign is good.
#[derive(Default)]
pub(super) struct Signs(Mutex<HashMap<String, Instant>>);

impl Signs {
    pub(super) fn given(&self, worker: &str, hold: Duration) {
        let now = Instant::now();
        let mut signs = self.lock();
        // Each version of a worker has a name of its own.
        signs.retain(|_, until| *until > now);
        signs.insert(worker.to_owned(), now + hold);
    }

    pub(super) fn is_good(&self, worker: &str) -> bool {
        let now = Instant::now();
        self.lock().get(worker).is_some_and(|until| *until > now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
