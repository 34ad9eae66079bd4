//! What the simulated network has yet to say of messages that it took: receipts, each told at its time, and again until it is
//! taken over. All of them are one task, and there is room for so many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use vumi_core::outcome::Receipt;
use vumi_core::worker::WorkerContext;

/// Receipts that may be under way.
pub(crate) const MOST: usize = 100_000;
/// Of those, so many are told at one time.
const TOGETHER: usize = 100;
/// Before one that is not taken over is told again: this, twice this, up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// So often is one told that is not taken over, once the worker stops.
const LAST_TRIES: u32 = 6;

/// Receipts under way.
pub(crate) struct Receipts {
    room: Arc<Semaphore>,
    /// Counts those under way.
    under_way: TaskTracker,
    sooner_or_later: mpsc::Sender<Pending>,
    task: TaskTracker,
    /// Fires when those that are not taken over are given up.
    ended: CancellationToken,
}

/// Room for one receipt.
pub(crate) struct Place {
    _room: OwnedSemaphorePermit,
    _counted: TaskTrackerToken,
}

struct Pending {
    at: Instant,
    receipt: Receipt,
    /// How often it was told and not taken over, and how often of that since the worker stops.
    tries: u32,
    last_tries: u32,
    _place: Place,
}

impl Receipts {
    pub(crate) fn new(cx: Arc<WorkerContext>) -> Self {
        Self::with_room(cx, MOST)
    }

    fn with_room(cx: Arc<WorkerContext>, most: usize) -> Self {
        // Who sends has a place, so there is always room in the channel.
        let (sooner_or_later, received) = mpsc::channel(most);
        let (task, ended) = (TaskTracker::new(), CancellationToken::new());
        let teller = Teller {
            cx,
            ended: ended.clone(),
            waiting: BTreeMap::new(),
            number: 0,
            telling: JoinSet::new(),
        };
        task.spawn(teller.run(received));
        task.close();
        Self {
            room: Arc::new(Semaphore::new(most)),
            under_way: TaskTracker::new(),
            sooner_or_later,
            task,
            ended,
        }
    }

    /// Room for one more; none if too many are under way.
    pub(crate) fn place(&self) -> Option<Place> {
        Some(Place {
            _room: Arc::clone(&self.room).try_acquire_owned().ok()?,
            _counted: self.under_way.token(),
        })
    }

    /// Tells a receipt `after` a while; at once if the worker stops before, since nobody else knows of it.
    pub(crate) fn later(&self, place: Place, receipt: Receipt, after: Duration) {
        let pending = Pending {
            at: Instant::now() + after,
            receipt,
            tries: 0,
            last_tries: 0,
            _place: place,
        };
        // Nobody hears it once all is closed: then nothing is told any more.
        let _ = self.sooner_or_later.try_send(pending);
    }

    /// Waits until none is under way.
    pub(crate) async fn all_told(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }

    /// Gives up those that are not taken over, and waits for those that are being told.
    pub(crate) async fn close(&self) {
        self.ended.cancel();
        self.task.wait().await;
    }
}

/// How long one waits that was told so often.
fn again(tries: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tries.saturating_sub(1));
    AGAIN.0.saturating_mul(factor).min(AGAIN.1)
}

/// The task that tells them.
struct Teller {
    cx: Arc<WorkerContext>,
    ended: CancellationToken,
    /// By their time, and a number that no two have.
    waiting: BTreeMap<(Instant, u64), Pending>,
    number: u64,
    /// Those that are being told; what comes back is one that was not taken over.
    telling: JoinSet<Option<Pending>>,
}

impl Teller {
    async fn run(mut self, mut received: mpsc::Receiver<Pending>) {
        let mut open = true;
        let mut closing = false;
        loop {
            self.tell_due();
            if !open && self.waiting.is_empty() && self.telling.is_empty() {
                return;
            }
            let has_room = self.telling.len() < TOGETHER;
            let next = self.waiting.first_key_value().map(|((at, _), _)| *at);
            let due = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
            tokio::select! {
                () = self.ended.cancelled() => break,
                () = self.cx.closing().cancelled(), if !closing => {
                    closing = true;
                    let now = Instant::now();
                    for (_, pending) in std::mem::take(&mut self.waiting) {
                        self.wait(pending, now);
                    }
                }
                pending = received.recv(), if open => match pending {
                    Some(pending) => {
                        let at = if closing { Instant::now() } else { pending.at };
                        self.wait(pending, at);
                    }
                    None => open = false,
                },
                Some(told) = self.telling.join_next() => {
                    // One that panicked is not told again.
                    if let Ok(Some(pending)) = told {
                        self.not_taken(pending, closing);
                    }
                }
                () = due, if has_room && next.is_some() => {}
            }
        }
        self.waiting.clear();
        while self.telling.join_next().await.is_some() {}
    }

    fn wait(&mut self, mut pending: Pending, at: Instant) {
        pending.at = at;
        self.number += 1;
        self.waiting.insert((at, self.number), pending);
    }

    /// Tells those whose time has come, as many as there may be together.
    fn tell_due(&mut self) {
        let now = Instant::now();
        while self.telling.len() < TOGETHER {
            let Some(first) = self.waiting.first_entry() else {
                return;
            };
            if first.key().0 > now {
                return;
            }
            let (pending, cx) = (first.remove(), Arc::clone(&self.cx));
            self.telling.spawn(async move {
                let told = cx.receipt(pending.receipt.clone()).await;
                told.is_err().then_some(pending)
            });
        }
    }

    fn not_taken(&mut self, mut pending: Pending, closing: bool) {
        pending.tries += 1;
        pending.last_tries += u32::from(closing);
        let wait = match closing {
            true if pending.last_tries >= LAST_TRIES => return,
            true => AGAIN.0,
            false => again(pending.tries),
        };
        self.wait(pending, Instant::now() + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vumi_core::codes;
    use vumi_core::conformance::stand_in::{StandIn, resource};
    use vumi_core::error::{ErrorClass, WorkError};
    use vumi_core::outcome::ReceiptOutcome;

    fn receipt(n: usize) -> Receipt {
        Receipt {
            message_id: Some(n.to_string()),
            remote_id: None,
            outcome: ReceiptOutcome::Delivered,
        }
    }

    fn receipts(stand_in: &Arc<StandIn>, most: usize) -> (Receipts, CancellationToken) {
        let manifest =
            json!({"kind": "Transport", "metadata": {"name": "n"}, "spec": {"devNull": {}}});
        let closing = CancellationToken::new();
        let cx = stand_in.context(resource(&manifest).unwrap(), "one", closing.clone());
        (Receipts::with_room(cx, most), closing)
    }

    fn refused() -> WorkError {
        WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, "away")
    }

    #[tokio::test(start_paused = true)]
    async fn each_comes_at_its_time_and_there_is_room_for_so_many() {
        let stand_in = StandIn::new();
        let (receipts, _closing) = receipts(&stand_in, 3 * TOGETHER);
        let hour = Duration::from_secs(3600);
        for n in 0..3 * TOGETHER {
            let after = if n == 0 { hour / 2 } else { hour };
            receipts.later(receipts.place().unwrap(), receipt(n), after);
        }
        assert!(receipts.place().is_none());
        tokio::time::sleep(hour * 3 / 4).await;
        assert_eq!(stand_in.receipts().len(), 1);
        drop(receipts.place().expect("the first one has left its place"));
        receipts.all_told().await;
        assert_eq!(stand_in.receipts().len(), 3 * TOGETHER);
        receipts.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_none_is_told_again_and_less_often() {
        let waits: Vec<_> = [1, 2, 3, 7, 8, 100].map(|n| again(n).as_millis()).to_vec();
        assert_eq!(waits, [500, 1000, 2000, 32_000, 60_000, 60_000]);
        let stand_in = StandIn::new();
        stand_in.refuse_receipts(Some(refused()));
        let (receipts, _closing) = receipts(&stand_in, 10);
        receipts.later(receipts.place().unwrap(), receipt(1), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        stand_in.refuse_receipts(None);
        let began = Instant::now();
        receipts.all_told().await;
        assert!(began.elapsed() <= AGAIN.1, "{:?}", began.elapsed());
        assert_eq!(stand_in.receipts().len(), 1);
        receipts.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_tells_all_at_once_and_gives_up_what_nobody_takes() {
        let stand_in = StandIn::new();
        stand_in.refuse_receipts(Some(refused()));
        let (receipts, closing) = receipts(&stand_in, 10);
        let hour = Duration::from_secs(3600);
        receipts.later(receipts.place().unwrap(), receipt(1), hour);
        closing.cancel();
        receipts.later(receipts.place().unwrap(), receipt(2), hour);
        let began = Instant::now();
        receipts.all_told().await;
        let longest = AGAIN.0 * LAST_TRIES;
        assert!(began.elapsed() <= longest, "{:?}", began.elapsed());
        assert!(stand_in.receipts().is_empty());
        // What waits when it is closed is not awaited.
        receipts.later(receipts.place().unwrap(), receipt(3), hour);
        receipts.close().await;
        receipts.all_told().await;
    }
}
