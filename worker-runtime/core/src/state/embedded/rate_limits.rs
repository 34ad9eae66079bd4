//! Token buckets in the embedded store. They need not survive power loss: whoever comes back from that has waited.

use super::EmbeddedStore;
use super::disk::{Failure, Space, Tx, View};
use super::keys::{Key, fits, pack, tag, unpack};
use super::sweep::{self, NEVER};
use crate::error::WorkError;
use crate::state::rate_limits::{Bucket, Level, RateLimits};
use async_trait::async_trait;
use std::time::Duration;

fn key(name: &str) -> Key {
    Key::new(tag::BUCKET).name(name)
}

fn get(view: &impl View, key: &[u8]) -> Result<Option<(Level, u64)>, Failure> {
    let Some(value) = view.get(Space::Index, key)? else {
        return Ok(None);
    };
    // One that an earlier version wrote is as good as none.
    let Some([tokens, at, paused, pace, hold, ends]) = unpack(&value) else {
        return Ok(None);
    };
    let level = Level {
        tokens: f64::from_bits(tokens),
        at,
        paused,
        pace: f64::from_bits(pace),
        hold: f64::from_bits(hold),
    };
    Ok(Some((level, ends)))
}

fn set(tx: &mut Tx<'_>, key: &Key, before: Option<u64>, level: Level, bucket: Bucket) {
    let ends = level.forgotten(bucket).min(NEVER - 1);
    let Level {
        tokens,
        at,
        paused,
        pace,
        hold,
    } = level;
    let (tokens, pace, hold) = (tokens.to_bits(), pace.to_bits(), hold.to_bits());
    let value = pack([tokens, at, paused, pace, hold, ends]);
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
            let mut level = old.map_or(Level::full(bucket, now), |(level, _)| level);
            let wait = level.take(cost, bucket, now);
            if wait.is_none() {
                set(tx, &key, old.map(|(_, ends)| ends), level, bucket);
            }
            Ok(wait)
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
            let mut level = old.map_or(Level::full(bucket, now), |(level, _)| level);
            level.slow_down(pause, bucket, now);
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
