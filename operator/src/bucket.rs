//! How much of something may happen: so many at one time, and so many in a second after that.

use std::sync::{Mutex, PoisonError};
use tokio::time::Instant;

/// A bucket of tokens.
#[derive(Debug)]
pub struct Bucket {
    burst: f64,
    per_second: f64,
    /// How many there are, and when that was so.
    left: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self {
            burst,
            per_second,
            left: Mutex::new((burst, Instant::now())),
        }
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let passed = now.duration_since(left.1).as_secs_f64();
        *left = ((left.0 + passed * self.per_second).min(self.burst), now);
        let may = left.0 >= 1.0;
        if may {
            left.0 -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn what_is_spent_comes_back_with_time() {
        let bucket = Bucket::new(2.0, 1.0);
        assert_eq!(
            [bucket.take(), bucket.take(), bucket.take()],
            [true, true, false]
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([bucket.take(), bucket.take()], [true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            [bucket.take(), bucket.take(), bucket.take()],
            [true, true, false]
        );
    }
}
