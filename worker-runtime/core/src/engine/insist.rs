//! Asks the state store until it answers: the one loop for everything that must happen.

use super::backoff::Backoff;
use super::outlet::Unpublished;
use crate::error::WorkError;
use std::future::Future;
use std::time::Duration;

/// Between tries while the store is away.
pub(super) const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));

/// Repeats what fails until it succeeds, fails in a `hopeless` way or is `over`. `halt` ends a wait between two tries.
pub(super) async fn insist<T, F: Future<Output = Result<T, WorkError>>>(
    mut ask: impl FnMut() -> F,
    hopeless: impl Fn(&WorkError) -> bool,
    over: impl Fn() -> bool,
    halt: impl Future<Output = ()>,
) -> Result<T, Unpublished> {
    let mut halt = std::pin::pin!(halt);
    let mut attempt = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if hopeless(&error) => return Err(error.into()),
            Err(_) if over() => return Err(Unpublished::Interrupted),
            Err(_) => attempt += 1,
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN.after(attempt)) => {}
            () = &mut halt => return Err(Unpublished::Interrupted),
        }
        if over() {
            return Err(Unpublished::Interrupted);
        }
    }
}
