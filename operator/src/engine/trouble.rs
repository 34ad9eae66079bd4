//! Calls that went wrong, and when people are told of them.

use super::Engine;
use super::store::Key;
use crate::client::ApiError;

/// Failures in a row that may pass by themselves: from this one on they are told.
const LASTING: u32 = 3;

/// A call that went wrong.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What could not be done, as the beginning of a sentence.
    what: String,
    /// What was said.
    pub error: ApiError,
}

impl Trouble {
    /// This could not be done.
    pub fn new(what: String, error: ApiError) -> Self {
        Self { what, error }
    }

    /// What could not be done, and why.
    pub fn sentence(&self) -> String {
        format!("{}: {}", self.what, self.error)
    }

    /// Whether the status is to tell of it: at once of what the API server refuses, and of anything else once so many looks in a
    /// row have failed. To be asked once for each look.
    pub fn is_to_be_told(&self, engine: &Engine, key: &Key, uid: &str) -> bool {
        let failures = engine.recall.with(key, uid, |known| {
            known.failures = known.failures.saturating_add(1);
            known.failures
        });
        self.error.is_about_the_object() || failures >= LASTING
    }
}
