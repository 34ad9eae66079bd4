//! One stage of a stop: the tasks that end together, and how they are told (R8).

use crate::engine::consumer::Phase;
use std::time::Duration;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The consumers of one stage of a stop.
pub(super) struct Stage {
    pub(super) phase: channel::Sender<Phase>,
    pub(super) halt: CancellationToken,
    pub(super) tasks: Vec<JoinHandle<()>>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            phase: channel::Sender::new(Phase::Run),
            halt: CancellationToken::new(),
            tasks: Vec::new(),
        }
    }

    /// Takes nothing new, finishes what runs within `limit`; what is left then stays with the broker.
    pub(super) async fn drain(&mut self, limit: Duration) {
        self.phase.send_replace(Phase::Drain);
        self.halt.cancel();
        let deadline = tokio::time::Instant::now() + limit;
        for task in &mut self.tasks {
            if tokio::time::timeout_at(deadline, &mut *task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
