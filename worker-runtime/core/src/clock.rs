//! The wall clock of the process. It is the machine's, plus what a campaign test let pass: `vumi test` moves Tokio's clock
//! and this one together, so that whatever waits for a moment or a span sees the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How far the machine's clock is behind, in milliseconds.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// Stands instead of the machine's clock, in milliseconds since 1970, if a test stopped that: so that what happens follows
/// from its seed alone. Such a test has a process of its own.
#[cfg(test)]
static STOPPED: AtomicU64 = AtomicU64::new(0);

/// From now on time passes only by [`advance`].
#[cfg(test)]
pub(crate) fn stop() {
    set(1_800_000_000_000);
}

/// The same, at this time in milliseconds since 1970.
#[cfg(test)]
pub(crate) fn set(millis: u64) {
    AHEAD.store(0, Ordering::Relaxed);
    STOPPED.store(millis, Ordering::Relaxed);
}

fn machine() -> SystemTime {
    #[cfg(test)]
    if let stopped @ 1.. = STOPPED.load(Ordering::Relaxed) {
        return SystemTime::UNIX_EPOCH + Duration::from_millis(stopped);
    }
    SystemTime::now()
}

/// The time now.
pub fn now() -> SystemTime {
    machine() + Duration::from_millis(AHEAD.load(Ordering::Relaxed))
}

/// A span in milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Lets time pass for the whole process. Whoever does so moves Tokio's clock as well.
pub fn advance(by: Duration) {
    AHEAD.fetch_add(millis(by), Ordering::Relaxed);
}
