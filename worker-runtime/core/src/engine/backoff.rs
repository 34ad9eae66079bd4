//! How often and how long a message is tried again in its lane, as its manifest says.

pub(super) use crate::backoff::Backoff;
use std::time::Duration;
use vumi_api::shared::Retry;

/// What a manifest says about retries, with defaults.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    pub(super) max_attempts: u32,
    pub(super) backoff: Backoff,
    /// Longest time from the first delivery to the last attempt.
    pub(super) max_age: Duration,
    /// Longest time in its lane, from the first attempt.
    pub(super) hold_limit: Duration,
    /// Vumi's failure worker makes the later attempts.
    pub(super) external: bool,
}

impl RetryPolicy {
    pub(super) fn new(retry: Option<&Retry>, max_attempts: u32, hold_limit: Duration) -> Self {
        let backoff = retry.and_then(|r| r.backoff.as_ref());
        let or = |d: Option<vumi_api::Duration>, default| d.map_or(default, |d| d.0);
        Self {
            max_attempts,
            backoff: Backoff::new(
                or(backoff.and_then(|b| b.initial), Duration::from_secs(1)),
                or(backoff.and_then(|b| b.max), Duration::from_secs(300)),
            ),
            max_age: or(retry.and_then(|r| r.max_age), Retry::MAX_AGE),
            hold_limit,
            external: retry.is_some_and(Retry::is_external),
        }
    }
}
