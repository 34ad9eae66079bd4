//! Waiting times between attempts: exponential, with jitter, for everything in this workspace that tries again.

use std::time::Duration;

/// Exponential back-off.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// Smallest part of the full waiting time.
    least: f64,
}

impl Backoff {
    /// Doubles from `initial` up to `max`. Between half and all of it is waited: never near zero, so that a failing
    /// peer is not hammered.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            least: 0.5,
        }
    }

    /// Waits anything from nothing to all of it: for many who lost the same broker at the same moment (S5).
    pub const fn with_full_jitter(self) -> Self {
        Self { least: 0.0, ..self }
    }

    /// The waiting time after the `attempt`-th failure (from 1): a random part of `initial × 2^(attempt − 1)`, which is
    /// at most `max`.
    pub fn after(self, attempt: u32) -> Duration {
        let factor = 1u32 << attempt.saturating_sub(1).min(20);
        let full = self.initial.saturating_mul(factor).min(self.max);
        full.mul_f64(self.least + (1.0 - self.least) * chance())
    }
}

/// A random share.
fn chance() -> f64 {
    #[cfg(test)]
    if let Some(chance) = seeded::chance() {
        return chance;
    }
    rand::random()
}

/// Waiting times that follow from a seed, for tests whose schedules do.
#[cfg(test)]
pub(crate) mod seeded {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::cell::RefCell;

    thread_local! {
        static DICE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
    }

    /// From now on on this thread.
    pub(crate) fn seed(seed: u64) {
        DICE.set(Some(StdRng::seed_from_u64(seed)));
    }

    pub(super) fn chance() -> Option<f64> {
        DICE.with_borrow_mut(|dice| dice.as_mut().map(|dice| dice.random()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [(u32, f64); 6] = [
        (1, 1.0),
        (2, 2.0),
        (3, 4.0),
        (4, 8.0),
        (5, 10.0),
        (u32::MAX, 10.0),
    ];

    fn waits(backoff: Backoff, attempt: u32) -> Vec<f64> {
        (0..100)
            .map(|_| backoff.after(attempt).as_secs_f64())
            .collect()
    }

    #[test]
    fn waiting_times_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        for (attempt, full) in FULL {
            for wait in waits(backoff, attempt) {
                assert!((full / 2.0..=full).contains(&wait), "{attempt}: {wait}");
            }
        }
    }

    #[test]
    fn full_jitter_spreads_over_all_of_the_time() {
        let backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(10)).with_full_jitter();
        for (attempt, full) in FULL {
            let waits = waits(backoff, attempt);
            assert!(waits.iter().all(|wait| *wait <= full), "{attempt}");
            assert!(waits.iter().any(|wait| *wait < full / 2.0), "{attempt}");
            assert!(waits.iter().any(|wait| *wait > full / 2.0), "{attempt}");
        }
    }
}
