//! When it is said that something works again: not each time that it does for a moment.

use std::time::Duration;
use tokio::time::Instant;

/// What works again is said once it has worked for so long: a disk that is full takes a little now and then.
pub(super) const STEADY: Duration = match cfg!(test) {
    true => Duration::from_millis(300),
    false => Duration::from_secs(3),
};

/// What was said of something last, and whether it may be said to work again.
#[derive(Default)]
pub(super) struct Steady {
    unwell: bool,
    /// When that may be said.
    again: Option<Instant>,
}

impl Steady {
    /// Whether what is seen now is to be said now.
    pub(super) fn tells(&mut self, unwell: bool) -> bool {
        self.again = (self.unwell && !unwell).then(|| Instant::now() + STEADY);
        let tells = self.again.is_none();
        if tells {
            self.unwell = unwell;
        }
        tells
    }

    /// Returns when it has worked for long enough: what is seen then is said.
    pub(super) async fn works(&mut self) {
        match self.again {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_said_at_once_and_what_works_again_when_it_has_for_long() {
        let mut steady = Steady::default();
        assert!(steady.tells(false));
        assert!(steady.tells(true));
        assert!(!steady.tells(false));
        let waits = async |steady: &mut Steady| {
            let began = Instant::now();
            steady.works().await;
            began.elapsed()
        };
        tokio::time::advance(STEADY / 2).await;
        // It failed meanwhile: the wait begins anew.
        assert!(steady.tells(true));
        assert!(!steady.tells(false));
        assert!(waits(&mut steady).await >= STEADY);
        assert!(steady.tells(false));
    }
}
