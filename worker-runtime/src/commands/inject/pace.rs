//! `--rate`: when the next message may go.

use std::time::Duration;
use tokio::time::Instant;

/// After a wait, for input or for the broker, no more than this is caught up: a rate is a promise to whoever receives.
const CAUGHT_UP: Duration = Duration::from_millis(100);
/// Whoever asks for less than one message in this time gets one.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Messages one after the other, so many a second.
pub struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// `rate` messages a second, from `now` on.
    pub fn new(rate: f64, now: Instant) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate);
        Self {
            interval: interval.unwrap_or(LONGEST).min(LONGEST),
            due: now,
        }
    }

    /// When the next message may go, which then counts as sent.
    pub fn next(&mut self, now: Instant) -> Instant {
        let earliest = now.checked_sub(CAUGHT_UP).unwrap_or(now);
        let due = self.due.max(earliest);
        self.due = due + self.interval;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_in_time_is_not_sent_at_once() {
        let began = Instant::now();
        let (mut now, mut pace) = (began, Pace::new(50.0, began));
        for _ in 0..=100 {
            now = now.max(pace.next(now));
        }
        assert_eq!(now - began, Duration::from_secs(2));
        now += Duration::from_secs(3600);
        let at_once = (0..10_000).take_while(|_| pace.next(now) <= now).count();
        assert!(at_once <= 6, "a tenth of a second of it: {at_once}");
    }

    #[test]
    fn a_rate_of_next_to_nothing_is_one() {
        let now = Instant::now();
        let mut pace = Pace::new(f64::MIN_POSITIVE, now);
        assert_eq!(pace.next(now), now);
        assert!(pace.next(now) > now + Duration::from_secs(86_400));
    }
}
