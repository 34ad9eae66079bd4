//! The wall clock of the process. It is the machine's, plus what a campaign test let pass: `vumi test` moves Tokio's clock
//! and this one together, so that whatever waits for a moment or a span sees the same time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// How far the machine's clock is behind, in milliseconds.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// The time now.
pub fn now() -> SystemTime {
    SystemTime::now() + Duration::from_millis(AHEAD.load(Ordering::Relaxed))
}

/// Lets time pass for the whole process. Whoever does so moves Tokio's clock as well.
pub fn advance(by: Duration) {
    let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    AHEAD.fetch_add(millis, Ordering::Relaxed);
}
