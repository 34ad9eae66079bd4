//! Token buckets in the embedded store. They need not survive power loss: whoever comes back from that has waited.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View, millis};
use super::keys::{Key, fits, pack, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::rate_limits::{Bucket, RateLimits};
use async_trait::async_trait;
use std::time::Duration;

const BUCKET: Failure = Failure::Damaged("a token bucket");

/// Share of the full speed that is left at least when the peer asks to slow down.
const SLOWEST: f64 = 0.1;
/// Share of the full speed that comes back with every second.
const RECOVERY: f64 = 0.05;
/// Longest wait that is told.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A bucket at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level {
    tokens: f64,
    /// The moment: milliseconds since 1970.
    at: u64,
    /// No tokens before: milliseconds since 1970.
    paused: u64,
    /// Share of the full speed at `paused`, from where it recovers.
    pace: f64,
}

impl Level {
    fn full(bucket: Bucket, now: u64) -> Self {
        Self {
            tokens: bucket.burst,
            at: now,
            paused: 0,
            pace: 1.0,
        }
    }

    /// Share of the full speed at a moment.
    fn pace(self, now: u64) -> f64 {
        (self.pace + RECOVERY * seconds(now.saturating_sub(self.paused))).min(1.0)
    }

    /// How many seconds of full speed lie between the end of the pause and a moment.
    fn speed_until(self, moment: u64) -> f64 {
        let time = seconds(moment.saturating_sub(self.paused));
        let ramp = time.min((1.0 - self.pace) / RECOVERY);
        self.pace * ramp + RECOVERY * ramp * ramp / 2.0 + (time - ramp)
    }

    /// The bucket now. A clock that was set back takes nothing away and gives nothing.
    fn after(mut self, bucket: Bucket, now: u64) -> Self {
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

fn key(name: &str) -> Key {
    Key::new(tag::BUCKET).name(name)
}

fn get(view: &impl View, key: &[u8]) -> Result<Option<(Level, u64)>, Failure> {
    let Some(value) = view.get(Space::Index, key)? else {
        return Ok(None);
    };
    let [tokens, at, paused, pace, ends] = unpack(&value).ok_or(BUCKET)?;
    let level = Level {
        tokens: f64::from_bits(tokens),
        at,
        paused,
        pace: f64::from_bits(pace),
    };
    Ok(Some((level, ends)))
}

fn set(tx: &mut Tx<'_>, key: &Key, before: Option<u64>, level: Level, bucket: Bucket) {
    // From then on it is like one that nobody knows: full, and at full speed.
    let full = millis(level.until(bucket.burst, bucket));
    let recovered = level.paused + ((1.0 - level.pace) / RECOVERY * 1000.0) as u64;
    let ends = level.at.saturating_add(full).max(recovered).min(NEVER - 1);
    let Level {
        tokens,
        at,
        paused,
        pace,
    } = level;
    let value = pack([tokens.to_bits(), at, paused, pace.to_bits(), ends]);
    tx.insert(Space::Index, key, value);
    sweep::remind(tx, key.as_ref(), before, ends);
}

/// When a bucket may be forgotten.
pub(super) fn ends(view: &impl View, key: &[u8]) -> Result<Option<u64>, Failure> {
    Ok(get(view, key)?.map(|(_, ends)| ends))
}

#[async_trait]
impl RateLimits for EmbeddedStore {
    async fn take(
        &self,
        name: &str,
        cost: u32,
        bucket: Bucket,
    ) -> Result<Option<Duration>, WorkError> {
        fits([name])?;
        let key = key(name);
        self.write_relaxed(move |tx| {
            let now = tx.now();
            let old = get(tx, key.as_ref())?;
            let level = old.map_or(Level::full(bucket, now), |(level, _)| level);
            let mut level = level.after(bucket, now);
            let cost = f64::from(cost);
            // What costs more than the bucket holds waits until it is full, and leaves a debt.
            let needed = cost.min(bucket.burst);
            if now < level.paused || level.tokens < needed {
                return Ok(Some(level.until(needed, bucket)));
            }
            level.tokens -= cost;
            set(tx, &key, old.map(|(_, ends)| ends), level, bucket);
            Ok(None)
        })
        .await
    }

    async fn slow_down(
        &self,
        name: &str,
        pause: Duration,
        bucket: Bucket,
    ) -> Result<(), WorkError> {
        fits([name])?;
        let key = key(name);
        self.write_relaxed(move |tx| {
            let now = tx.now();
            let old = get(tx, key.as_ref())?;
            let level = old.map_or(Level::full(bucket, now), |(level, _)| level);
            let mut level = level.after(bucket, now);
            level.pace = (level.pace(now) / 2.0).max(SLOWEST);
            level.paused = level.paused.max(now.saturating_add(millis(pause)));
            level.tokens = level.tokens.min(0.0);
            set(tx, &key, old.map(|(_, ends)| ends), level, bucket);
            Ok(())
        })
        .await
    }

    async fn pace(&self, name: &str) -> Result<f64, WorkError> {
        fits([name])?;
        let key = key(name);
        self.read(move |look| {
            let level = get(look, key.as_ref())?;
            Ok(level.map_or(1.0, |(level, _)| level.pace(look.now())))
        })
        .await
    }
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
        };
        assert_eq!(level.after(BUCKET, 3000).tokens, 0.0);
        assert_eq!(level.pace(2000), 0.5);
        assert_eq!(level.pace(5000), 0.6);
        assert_eq!(level.pace(60_000), 1.0);
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

    proptest! {
        /// Whatever the steps, what was filled is at most what time allows, and the told wait is enough.
        #[test]
        fn filling_in_steps_is_filling_at_once(
            pace in 0.1f64..1.0,
            paused in 0u64..5_000,
            steps in proptest::collection::vec(0u64..3_000, 1..20),
        ) {
            let wide = Bucket { per_second: 10.0, burst: 1e9 };
            let begin = Level { tokens: 0.0, at: 0, paused, pace };
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
            let level = Level { tokens, at: at.max(now), paused: 0, pace: 1.0 };
            prop_assert_eq!(level.after(BUCKET, now).tokens, tokens);
        }
    }
}
