//! Whether the operator lives and is ready: what `/healthz` and `/readyz` say.

use crate::cluster::Definitions;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Without a sign of life for this time, something hangs.
const SILENCE: Duration = Duration::from_secs(60);

/// What is known of the operator itself.
pub struct Health {
    beat: Mutex<Instant>,
    /// What the watches have not told yet; none once they all have.
    awaited: Mutex<Vec<String>>,
    definitions: watch::Receiver<Definitions>,
}

impl Health {
    /// It begins to live; nothing is known yet.
    pub fn new(definitions: watch::Receiver<Definitions>) -> Self {
        Self {
            beat: Mutex::new(Instant::now()),
            awaited: Mutex::new(vec!["the first answers".into()]),
            definitions,
        }
    }

    /// A sign of life.
    pub fn beat(&self) {
        *lock(&self.beat) = Instant::now();
    }

    /// What is still awaited of the watches.
    pub fn await_kinds(&self, kinds: Vec<String>) {
        *lock(&self.awaited) = kinds;
    }

    /// Whether it lives.
    ///
    /// # Errors
    /// Why not.
    pub fn live(&self) -> Result<(), String> {
        let silent = lock(&self.beat).elapsed();
        match silent > SILENCE {
            true => Err(format!("no sign of life for {} s", silent.as_secs())),
            false => Ok(()),
        }
    }

    /// Whether it could lead: everything is watched, under definitions that are not too old.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        match &*self.definitions.borrow() {
            Definitions::Unknown => return Err("the definitions (CRDs) are not known yet".into()),
            Definitions::Older(what) => {
                return Err(format!(
                    "the definitions (CRDs) are older than this operator, they lack {what}: upgrade them; until then nothing is written"
                ));
            }
            Definitions::Current => {}
        }
        let awaited = lock(&self.awaited);
        match awaited.is_empty() {
            true => Ok(()),
            false => Err(format!("waiting for the watches of {}", awaited.join(", "))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
