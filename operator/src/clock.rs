//! The time that statuses are written by.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock(Option<(Timestamp, Instant)>);

impl Clock {
    /// The machine's.
    pub fn machine() -> Self {
        Self(None)
    }

    /// One that moves as Tokio's does, which may be moved by hand.
    pub fn of_tokio() -> Self {
        Self(Some((Timestamp::now(), Instant::now())))
    }

    /// The time.
    pub fn now(self) -> Timestamp {
        match self.0 {
            None => Timestamp::now(),
            Some((began, at)) => {
                let passed = SignedDuration::try_from(at.elapsed()).unwrap_or_default();
                began.checked_add(passed).unwrap_or(began)
            }
        }
    }
}
