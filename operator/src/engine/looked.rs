//! What a look at a resource came to, and what the queue does next.

use super::queue::Ended;
use crate::client::ApiError;
use std::time::Duration;

/// What a look came to. The times say when something may have lasted long enough to be told.
#[derive(Debug)]
pub enum Looked {
    /// Everything is as it should be.
    Done(Option<Duration>),
    /// Something has to come into being, or to go.
    Waiting(Duration),
    /// Somebody has to do something.
    Refused(Option<Duration>),
    /// What somebody else had changed was put back. Whoever does that again and again is answered more and more slowly.
    Corrected,
    /// The annotation [`vumi_plan::names::PAUSED`].
    Paused(Option<Duration>),
    /// It is not there, or being deleted: what it owns goes by itself.
    Gone,
    /// A call went wrong.
    Failed(ApiError),
}

impl Looked {
    /// As metrics have it.
    pub fn word(&self) -> &'static str {
        match self {
            Looked::Done(_) => "done",
            Looked::Waiting(_) => "waiting",
            Looked::Refused(_) => "refused",
            Looked::Corrected => "corrected",
            Looked::Paused(_) => "paused",
            Looked::Gone => "gone",
            Looked::Failed(_) => "failed",
        }
    }

    /// What the queue does next.
    pub fn ended(&self) -> Ended {
        match self {
            Looked::Done(again) | Looked::Refused(again) | Looked::Paused(again) => {
                again.map_or(Ended::Well, Ended::Again)
            }
            Looked::Gone => Ended::Well,
            Looked::Waiting(after) => Ended::Again(*after),
            Looked::Corrected => Ended::Failed(None),
            Looked::Failed(ApiError::Closed(_)) => Ended::Dropped,
            Looked::Failed(error) => Ended::Failed(error.retry_after()),
        }
    }
}
