//! Whether this operator may write: it holds the lease, and the definitions are not older than itself.

use crate::client::ApiError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Before every write. Closed until the lease opens it.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when the lease is surely ours, by the clock of this machine that never goes back.
    until: Option<Instant>,
    /// Why nothing is written even so.
    read_only: Option<&'static str>,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease is held until then; none means that it is not.
    pub fn hold(&self, until: Option<Instant>) {
        self.state().until = until;
    }

    /// Whether, by the lease, this operator is the one that writes.
    pub fn leads(&self) -> bool {
        self.state()
            .until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Writes nothing, for this reason; none: writes again.
    pub fn read_only(&self, why: Option<&'static str>) {
        self.state().read_only = why;
    }

    /// Whether a write may begin.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Some(why) = self.state().read_only {
            return Err(ApiError::Closed(why));
        }
        match self.leads() {
            true => Ok(()),
            false => Err(ApiError::Closed("another operator leads")),
        }
    }
}
