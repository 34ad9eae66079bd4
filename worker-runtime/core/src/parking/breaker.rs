//! When to stop: a worker that parks most of what it gets, or keeps too much, pauses until a person resumes it.

/// Finished messages that the breaker looks back on.
const WINDOW: u32 = 100;
/// Parked messages among them that trip it.
const PARKED_OF_WINDOW: u32 = 50;
/// Messages kept in the parking queues of a worker that trip it.
pub const KEPT_LIMIT: u64 = 10_000;

/// Why the breaker tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// 50 of the last 100 finished messages were parked.
    Rate,
    /// 10 000 parked messages are kept.
    Kept,
}

impl Trip {
    /// For status and log, one sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Trip::Rate => "50 of the last 100 messages were parked",
            Trip::Kept => "10000 parked messages are kept",
        }
    }
}

/// The park-rate breaker of one worker. Stays tripped until [`Breaker::reset`].
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    /// One bit for each of the last 100 finished messages, set if it was parked.
    window: u128,
    tripped: Option<Trip>,
}

impl Breaker {
    /// A closed breaker that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A message is finished: done or parked. Says whether the breaker is tripped now.
    pub fn record(&mut self, parked: bool) -> Option<Trip> {
        self.window = (self.window << 1 | u128::from(parked)) & ((1 << WINDOW) - 1);
        if self.window.count_ones() >= PARKED_OF_WINDOW {
            self.tripped.get_or_insert(Trip::Rate);
        }
        self.tripped
    }

    /// The parking queues of the worker hold `kept` messages. Says whether the breaker is tripped now.
    pub fn record_kept(&mut self, kept: u64) -> Option<Trip> {
        if kept >= KEPT_LIMIT {
            self.tripped.get_or_insert(Trip::Kept);
        }
        self.tripped
    }

    /// Why it is tripped, if it is.
    pub fn tripped(&self) -> Option<Trip> {
        self.tripped
    }

    /// A person says go on: forgets the window. Too many kept trip it again at the next [`Breaker::record_kept`].
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_at_the_fiftieth_parked_and_not_before() {
        let mut breaker = Breaker::new();
        for _ in 0..49 {
            assert_eq!(breaker.record(true), None);
        }
        assert_eq!(breaker.record(true), Some(Trip::Rate));
    }

    #[test]
    fn looks_back_on_one_hundred() {
        let mut breaker = Breaker::new();
        for _ in 0..49 {
            breaker.record(true);
        }
        for _ in 0..51 {
            assert_eq!(breaker.record(false), None);
        }
        // The window is full; each further message pushes one of the parked ones out.
        for _ in 0..49 {
            assert_eq!(breaker.record(true), None);
        }
        assert_eq!(breaker.record(false), None);

        let mut alternating = Breaker::new();
        let trip = (0..100).position(|n| alternating.record(n % 2 == 0).is_some());
        assert_eq!(trip, Some(98), "the fiftieth of ninety-nine");
    }

    #[test]
    fn stays_tripped_until_reset() {
        let mut breaker = Breaker::new();
        for _ in 0..50 {
            breaker.record(true);
        }
        for _ in 0..200 {
            assert_eq!(breaker.record(false), Some(Trip::Rate));
        }
        breaker.reset();
        assert_eq!(breaker.tripped(), None);
        assert_eq!(breaker.record(true), None, "the window is forgotten");
    }

    #[test]
    fn trips_when_too_many_are_kept_and_again_after_a_reset() {
        let mut breaker = Breaker::new();
        assert_eq!(breaker.record_kept(9_999), None);
        assert_eq!(breaker.record_kept(10_000), Some(Trip::Kept));
        assert_eq!(breaker.record_kept(0), Some(Trip::Kept));
        breaker.reset();
        assert_eq!(breaker.record_kept(0), None);
        assert_eq!(breaker.record_kept(10_001), Some(Trip::Kept));
    }
}
