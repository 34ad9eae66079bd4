//! Token buckets shared by the replicas of a worker (P13, R20), and their arithmetic. Redis does the same in
//! `redis/lua/bucket_lib.lua`: `redis/rate_limits_test.rs` compares them answer by answer, and the state suite holds all to
//! one promise.

use crate::clock::millis;
use crate::error::WorkError;
use async_trait::async_trait;
use std::time::Duration;

/// How fast a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Tokens a second; above zero.
    pub per_second: f64,
    /// Most tokens it holds; at least the largest cost.
    pub burst: f64,
}

/// Operations on token buckets. `key` names an account, and a sender where limits are by sender.
#[async_trait]
pub trait RateLimits: Send + Sync + 'static {
    /// Takes `cost` tokens if they are there; else how long until they may be. Nothing is reserved for who waits.
    async fn take(
        &self,
        key: &str,
        cost: u32,
        bucket: Bucket,
    ) -> Result<Option<Duration>, WorkError>;

    /// The peer asked to slow down: no tokens for `pause`. The speed at which it was asked is taken for the peer's limit:
    /// the bucket then fills at nine tenths of it, regains a twentieth of its full speed with every second up to 97 % of
    /// that limit, stays there for two minutes, and then feels its way up by a hundredth a second. Asked again within half
    /// a second after a pause, it is much too fast and halves its speed. It keeps at least a tenth of the full speed.
    /// Asked again during a pause, only the pause grows.
    async fn slow_down(&self, key: &str, pause: Duration, bucket: Bucket) -> Result<(), WorkError>;

    /// Share of the full speed at which a bucket fills now: 1 when nobody asked to slow down.
    async fn pace(&self, key: &str) -> Result<f64, WorkError>;
}

/// Share of the full speed that is left at least when the peer asks to slow down.
const SLOWEST: f64 = 0.1;
/// Of the speed at which the peer asked, so much is gone on with, and so much is gone back to and stayed at.
const DIP: f64 = 0.9;
const EDGE: f64 = 0.97;
/// Whoever is asked so soon after a pause was much too fast.
const SETTLED: u64 = 500;
/// Share of the full speed that comes back with every second, up to where it stays.
const RECOVERY: f64 = 0.05;
/// How many seconds after a pause more is tried than the peer once refused, and how much more with every second.
const REST: f64 = 120.0;
const CREEP: f64 = 0.01;
/// Longest wait that is told.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A bucket at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Below zero: a debt.
    pub(crate) tokens: f64,
    /// The moment: milliseconds of the clock of whoever keeps it.
    pub(crate) at: u64,
    /// No tokens before: milliseconds likewise.
    pub(crate) paused: u64,
    /// Share of the full speed at `paused`, from where it recovers.
    pub(crate) pace: f64,
    /// Share of the full speed at which it stays for a while: just below what the peer refused. At least `pace`.
    pub(crate) hold: f64,
}

impl Level {
    pub(crate) fn full(bucket: Bucket, now: u64) -> Self {
        Self {
            tokens: bucket.burst,
            at: now,
            paused: 0,
            pace: 1.0,
            hold: 1.0,
        }
    }

    /// How many seconds after the pause it is back where it stays, and when it goes on from there.
    fn turns(self) -> (f64, f64) {
        let back = (self.hold - self.pace) / RECOVERY;
        (back, back.max(REST))
    }

    /// Share of the full speed at a moment. A clock that was set back has not made it slower.
    pub(crate) fn pace(self, now: u64) -> f64 {
        let back = self.at.saturating_sub(now);
        let time = seconds(now.saturating_sub(self.paused.saturating_sub(back)));
        let (back, on) = self.turns();
        match time < back {
            true => self.pace + RECOVERY * time,
            false => (self.hold + CREEP * (time - on).max(0.0)).min(1.0),
        }
    }

    /// How many seconds of full speed lie between the end of the pause and a moment.
    fn speed_until(self, moment: u64) -> f64 {
        let time = seconds(moment.saturating_sub(self.paused));
        let (back, on) = self.turns();
        let slope = |from: f64, gain: f64, time: f64| from * time + gain * time * time / 2.0;
        let creep = (time - on).clamp(0.0, (1.0 - self.hold) / CREEP);
        slope(self.pace, RECOVERY, time.min(back))
            + self.hold * (time.min(on) - back).max(0.0)
            + slope(self.hold, CREEP, creep)
            + (time - on - creep).max(0.0)
    }

    /// The bucket now. A clock that was set back takes nothing away and gives nothing.
    pub(crate) fn after(mut self, bucket: Bucket, now: u64) -> Self {
        if now < self.at {
            self.paused = self.paused.saturating_sub(self.at - now);
        } else {
            let speed = self.speed_until(now) - self.speed_until(self.at);
            self.tokens += bucket.per_second * speed;
        }
        self.tokens = self.tokens.min(bucket.burst);
        self.at = now;
        self
    }

    /// Takes `cost` tokens now, if they are there; else how long until they may be. What costs more than the bucket holds
    /// waits until it is full, and leaves a debt.
    pub(crate) fn take(&mut self, cost: u32, bucket: Bucket, now: u64) -> Option<Duration> {
        *self = self.after(bucket, now);
        let cost = f64::from(cost);
        let needed = cost.min(bucket.burst);
        if now < self.paused || self.tokens < needed {
            return Some(self.until(needed, bucket));
        }
        self.tokens -= cost;
        None
    }

    /// The peer asked to slow down.
    pub(crate) fn slow_down(&mut self, pause: Duration, bucket: Bucket, now: u64) {
        *self = self.after(bucket, now);
        let pace = self.pace(now);
        if pace >= 1.0 || now >= self.paused.saturating_add(SETTLED) {
            self.hold = (pace * EDGE).max(SLOWEST);
            self.pace = (pace * DIP).max(SLOWEST);
        } else if now >= self.paused {
            self.pace = (pace / 2.0).max(SLOWEST);
        }
        self.paused = self.paused.max(now.saturating_add(millis(pause)));
        self.tokens = self.tokens.min(0.0);
    }

    /// From when on it is like a bucket that nobody knows: full, and at full speed.
    pub(crate) fn forgotten(self, bucket: Bucket) -> u64 {
        let full = millis(self.until(bucket.burst, bucket));
        let (back, on) = self.turns();
        let recovery = match self.hold < 1.0 {
            true => on + (1.0 - self.hold) / CREEP,
            false => back,
        };
        let recovered = self.paused.saturating_add((recovery * 1000.0) as u64);
        self.at.saturating_add(full).max(recovered)
    }

    /// Until there may be so many tokens.
    fn until(self, tokens: f64, bucket: Bucket) -> Duration {
        let lacking = (tokens - self.tokens).max(0.0);
        let begin = self.at.max(self.paused);
        // It only gets faster meanwhile.
        let fill = lacking / (bucket.per_second * self.pace(begin));
        let fill = Duration::try_from_secs_f64(fill).unwrap_or(LONGEST_WAIT);
        let pause = Duration::from_millis(begin - self.at);
        // Moments are whole milliseconds.
        (pause + fill + Duration::from_millis(1)).min(LONGEST_WAIT)
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: Bucket = Bucket {
        per_second: 10.0,
        burst: 5.0,
    };

    #[test]
    fn a_slowed_bucket_recovers_as_told() {
        let level = Level {
            tokens: 0.0,
            at: 1000,
            paused: 3000,
            pace: 0.5,
            hold: 0.8,
        };
        assert_eq!(level.after(BUCKET, 3000).tokens, 0.0);
        for (at, pace) in [
            (2000, 0.5),
            (5000, 0.6),
            (9000, 0.8),
            (123_000, 0.8),
            (133_000, 0.9),
            (143_000, 1.0),
            (999_000, 1.0),
        ] {
            assert!((level.pace(at) - pace).abs() < 1e-9, "at {at}");
        }
        assert_eq!(level.forgotten(BUCKET), 143_000);
        // One second from 0.5 to 0.55 of ten a second.
        let after = level.after(
            Bucket {
                burst: 99.0,
                ..BUCKET
            },
            4000,
        );
        assert!((after.tokens - 5.25).abs() < 1e-9, "{}", after.tokens);
    }

    #[test]
    fn what_the_peer_refused_is_taken_for_its_limit() {
        let mut level = Level::full(BUCKET, 0);
        level.slow_down(Duration::from_secs(1), BUCKET, 10_000);
        assert_eq!((level.pace, level.hold, level.paused), (0.9, 0.97, 11_000));
        // What was under way when it asked.
        level.slow_down(Duration::from_secs(2), BUCKET, 10_300);
        assert_eq!((level.pace, level.hold, level.paused), (0.9, 0.97, 12_300));
        // Too fast by far: what is known of the limit stays.
        level.slow_down(Duration::ZERO, BUCKET, 12_300);
        assert_eq!((level.pace, level.hold), (0.45, 0.97));
        // Ten seconds later it is at 0.95.
        level.slow_down(Duration::ZERO, BUCKET, 22_300);
        assert!((level.hold - 0.95 * EDGE).abs() < 1e-9 && (level.pace - 0.95 * DIP).abs() < 1e-9);
    }

    proptest! {
        /// Whatever the steps, what was filled is at most what time allows, and the told wait is enough.
        #[test]
        fn filling_in_steps_is_filling_at_once(
            pace in 0.1f64..1.0,
            more in 0.0f64..1.0,
            paused in 0u64..5_000,
            steps in proptest::collection::vec(0u64..30_000, 1..20),
        ) {
            let wide = Bucket { per_second: 10.0, burst: 1e9 };
            let hold = pace + (1.0 - pace) * more;
            let begin = Level { tokens: 0.0, at: 0, paused, pace, hold };
            let (mut level, mut now) = (begin, 0);
            for step in steps {
                now += step;
                level = level.after(wide, now);
            }
            let at_once = begin.after(wide, now).tokens;
            prop_assert!((level.tokens - at_once).abs() < 1e-6);
            prop_assert!(level.tokens <= 10.0 * now as f64 / 1000.0 + 1e-6);
            let wait = millis(level.until(level.tokens + 3.0, wide));
            prop_assert!(level.after(wide, now + wait).tokens >= level.tokens + 3.0);
        }

        #[test]
        fn a_clock_set_back_gives_nothing(tokens in 0.0f64..5.0, at in 0u64..10_000, now in 0u64..10_000) {
            let level = Level { tokens, at: at.max(now), paused: 0, pace: 1.0, hold: 1.0 };
            prop_assert_eq!(level.after(BUCKET, now).tokens, tokens);
        }
    }
}
