//! What people are told while a command waits: after a moment of silence and then from time to time, on standard error,
//! so that results stay clean.

use crate::output;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Silence for so long looks like a command that hangs.
pub const SOON: Duration = Duration::from_secs(2);
/// Then it is said so often.
pub const OFTEN: Duration = Duration::from_secs(10);

/// Waits for `work`, and says meanwhile what is waited for; `says` is given how long it takes so far.
pub async fn told<T>(says: impl Fn(Duration) -> String, work: impl Future<Output = T>) -> T {
    told_to(output::note, says, work).await
}

async fn told_to<T>(
    mut tell: impl FnMut(&str),
    says: impl Fn(Duration) -> String,
    work: impl Future<Output = T>,
) -> T {
    meanwhile(async |so_far| tell(&says(so_far)), work).await
}

/// Waits for `work`. Soon, and from then on often, `look` is given how long it takes so far.
pub async fn meanwhile<T>(mut look: impl AsyncFnMut(Duration), work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let (began, mut next) = (Instant::now(), SOON);
    loop {
        let turn = async {
            sleep(next).await;
            look(began.elapsed()).await;
        };
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = turn => {}
        }
        next = OFTEN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_said_at_first_soon_and_then_from_time_to_time() {
        let mut lines = Vec::new();
        let says = |so_far: Duration| format!("{} s", so_far.as_secs());
        let tell = |line: &str| lines.push(line.to_owned());
        told_to(tell, says, sleep(Duration::from_secs(25))).await;
        assert_eq!(lines, ["2 s", "12 s", "22 s"]);
        let nothing = |line: &str| panic!("it was quick: {line}");
        told_to(nothing, says, sleep(Duration::from_secs(1))).await;
    }
}
