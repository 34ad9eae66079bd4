//! What a process decides about how its workers run: names, bounds of a stop, pauses between failures.

use crate::backoff::Backoff;
use crate::engine::StopLimits;
use crate::outside::Outside;
use std::time::Duration;

/// How a process wants its workers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this replica, unique on the broker; a worker that is built again gets a number after it.
    pub instance: String,
    /// `system_id` of heartbeats.
    pub system_id: String,
    /// Bounds of a stop.
    pub limits: StopLimits,
    /// When a worker that failed or does not build is tried again.
    pub restart: Restart,
    /// How often brokers' addresses and held workers are looked at again.
    pub recheck: Duration,
    /// How often what was kept long enough is put out.
    pub sweep: Duration,
    /// Where calls of its workers to others go.
    pub outside: Outside,
}

/// Back-off of one worker.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Pauses between failures.
    pub backoff: Backoff,
    /// A run this long counts as good: the next failure is the first again.
    pub good_after: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            good_after: Duration::from_secs(60),
        }
    }
}
