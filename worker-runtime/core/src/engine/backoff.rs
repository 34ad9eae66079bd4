//! Waiting times between attempts: exponential with full jitter, for messages in their lanes and for the loops of the
//! engine.

use std::time::Duration;
use vumi_api::shared::Retry;

/// Exponential back-off.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
}

impl Backoff {
    /// Doubles from `initial` up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max }
    }

    /// The waiting time after the `attempt`-th failure (from 1): between half and all of `initial × 2^(attempt − 1)`,
    /// at most `max`. Never near zero, so that a failing peer is not hammered.
    pub fn after(self, attempt: u32) -> Duration {
        let factor = 1u32 << attempt.saturating_sub(1).min(20);
        let full = self.initial.saturating_mul(factor).min(self.max);
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

/// What a manifest says about retries, with defaults.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    pub(super) max_attempts: u32,
    pub(super) backoff: Backoff,
    /// Longest time in its lane, from the first attempt.
    pub(super) hold_limit: Duration,
}

impl RetryPolicy {
    pub(super) fn new(retry: Option<&Retry>, hold_limit: Duration) -> Self {
        let backoff = retry.and_then(|r| r.backoff.as_ref());
        let or = |d: Option<vumi_api::Duration>, default| d.map_or(default, |d| d.0);
        Self {
            max_attempts: retry.and_then(|r| r.max_attempts).unwrap_or(10),
            backoff: Backoff::new(
                or(backoff.and_then(|b| b.initial), Duration::from_secs(1)),
                or(backoff.and_then(|b| b.max), Duration::from_secs(300)),
            ),
            hold_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for (attempt, full) in [
            (1, 1.0),
            (2, 2.0),
            (3, 4.0),
            (4, 8.0),
            (5, 10.0),
            (99, 10.0),
        ] {
            let wait = backoff.after(attempt).as_secs_f64();
            assert!(
                (full / 2.0..=full).contains(&wait),
                "attempt {attempt}: {wait}"
            );
        }
    }
}
