//! What requests and their answers say about the transport's health.

use super::Front;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;
use vumi_core::reasons::{self, Reason};
use vumi_core::status::{StatusLevel, StatusReport};

/// A bad status that only requests bring is taken back when none was bad for so long.
const FORGIVEN: Duration = match cfg!(test) {
    true => Duration::from_millis(500),
    false => Duration::from_secs(60),
};

impl Front {
    /// A request that is not as it should be: a log line and a status.
    pub(super) fn bad_request(&self, reason: Reason, text: String) {
        tracing::warn!(
            worker = self.cx.worker_name(),
            reason = text,
            "request refused"
        );
        self.worse("request", StatusLevel::Degraded, reason, text);
    }

    pub(super) fn worse(
        &self,
        component: &'static str,
        level: StatusLevel,
        reason: Reason,
        text: String,
    ) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        bad.insert(component, Instant::now());
        self.report(component, level, reason, text);
    }

    pub(super) fn better(&self, component: &'static str, reason: Reason, text: &str) {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        // That requests are valid is news only after one that was not.
        if bad.remove(component).is_some() || component == "response" {
            self.report(component, StatusLevel::Ok, reason, text.into());
        }
    }

    pub(super) fn report_time(&self, took: Duration) {
        let (slow, very_slow) = self.slow;
        if took > very_slow {
            let text = format!("A response took longer than {very_slow:?}.");
            self.worse(
                "response",
                StatusLevel::Down,
                reasons::VERY_SLOW_RESPONSE,
                text,
            );
        } else if took > slow {
            let text = format!("A response took longer than {slow:?}.");
            self.worse(
                "response",
                StatusLevel::Degraded,
                reasons::SLOW_RESPONSE,
                text,
            );
        } else {
            self.better(
                "response",
                reasons::RESPONSE_SENT,
                "Responses are sent in time.",
            );
        }
    }

    /// Takes back a bad status when nothing was bad for a while: without requests there is no other word that would. Runs
    /// until it is dropped.
    pub(crate) async fn forgive(&self) {
        loop {
            tokio::time::sleep(FORGIVEN / 10).await;
            let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
            let over = |since: &Instant| since.elapsed() >= FORGIVEN;
            let forgiven: Vec<&str> = bad
                .iter()
                .filter_map(|(component, since)| over(since).then_some(*component))
                .collect();
            bad.retain(|_, since| !over(since));
            for component in forgiven {
                let (reason, text) = match component {
                    "response" => (
                        reasons::NO_LATE_RESPONSE,
                        format!("No response was late for {FORGIVEN:?}."),
                    ),
                    _ => (
                        reasons::NO_BAD_REQUEST,
                        format!("No request was refused for {FORGIVEN:?}."),
                    ),
                };
                self.report(component, StatusLevel::Ok, reason, text);
            }
        }
    }

    pub(crate) fn report(&self, component: &str, level: StatusLevel, reason: Reason, text: String) {
        self.cx
            .report(StatusReport::new(component, level, reason, text));
    }
}
