//! What sessions came to is written down although the state store fails for a while: the broker has the message, so its
//! caller is not asked to send it again.

use super::Front;
use crate::engine::{Provider, SessionMove};
use std::sync::Arc;
use std::time::Duration;
use vumi_core::error::WorkError;
use vumi_core::worker::{Taken, WorkerContext};

/// How long a request waits for the store; after that it goes on, and so does the trying.
const PATIENCE: Duration = Duration::from_secs(1);
/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(500);
/// Longer than a user waits for anything.
const GIVE_UP: Duration = Duration::from_secs(300);
/// At the end of the worker, what is not written yet gets so long.
const LAST: Duration = Duration::from_secs(3);

impl Front {
    /// Moves the session of a message that the broker has, now or since an earlier delivery of the same: the process that
    /// took that one may have ended before it moved the session.
    pub(super) async fn moved(
        &self,
        taken: &Result<Taken, WorkError>,
        session: Option<SessionMove>,
    ) {
        if let Ok(taken) = taken {
            self.settle(session, *taken != Taken::Now).await;
        }
    }

    /// Writes down what a session came to, later if it must be.
    pub(super) async fn settle(&self, session: Option<SessionMove>, repeat: bool) {
        let Some(session) = session else { return };
        let moved = self.provider.moved(&session, repeat);
        match tokio::time::timeout(PATIENCE, moved).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "a session is not written down yet; it is tried again");
            }
            Err(_) => {
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    "the state store is slow: a session is not written down yet; it is tried again"
                );
            }
        }
        let (provider, cx) = (Arc::clone(&self.provider), Arc::clone(&self.cx));
        self.settling.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            settle(&*provider, &cx, &session, repeat).await;
        });
    }

    /// Waits a moment for what is not written down yet.
    pub(crate) async fn settled(&self) {
        self.settling.close();
        if tokio::time::timeout(LAST, self.settling.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                worker = self.cx.worker_name(),
                sessions = self.settling.len(),
                "the worker ends before sessions could be written down: their users begin anew"
            );
        }
    }
}

/// Tries until it is written down.
pub(super) async fn settle(
    provider: &dyn Provider,
    cx: &WorkerContext,
    session: &SessionMove,
    repeat: bool,
) {
    let trying = async {
        while provider.moved(session, repeat).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    if tokio::time::timeout(GIVE_UP, trying).await.is_err() {
        tracing::error!(
            worker = cx.worker_name(),
            "the state store does not come back: a session could not be written down, and its user begins anew"
        );
    }
}
