//! Receipts: taken over, or sent again by the provider; but not for ever.

use super::{ACCEPT_TIMEOUT, Front};
use std::time::Duration;
use vumi_core::codes;
use vumi_core::outcome::Receipt;
use vumi_core::reasons;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_http::{Answer, Reply, StatusCode};

/// For so long after it came first, a receipt whose message nobody knows is to come again: it may be faster than the answer
/// that names the message.
const ORPHANED: Duration = Duration::from_secs(600);

impl Front {
    pub(super) async fn receipt(&self, receipt: Receipt, answer: Answer) -> Reply {
        let remote_id = receipt.remote_id.clone();
        let taken = tokio::time::timeout(ACCEPT_TIMEOUT, self.cx.receipt(receipt)).await;
        let error = match taken {
            Ok(Ok(())) => return answer.into(),
            Ok(Err(error)) => error,
            Err(_) => {
                let text = "The receipt could not be taken over in time; please send it again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                return answer.retry_after(5).into();
            }
        };
        if error.code != codes::RECEIPT_UNMATCHED {
            return self.refuse(&error);
        }
        self.cx.http(HttpSeen::Receipt("orphan"));
        let remote_id = remote_id.unwrap_or_default();
        match self.orphans.age(&self.cx, &remote_id).await {
            Ok(age) if age >= ORPHANED => {
                self.cx.http(HttpSeen::Receipt("given_up"));
                let id: String = remote_id.chars().take(64).collect();
                let text = format!(
                    "a receipt came again for {age:?}, and its id of the peer, {id:?}, is no message's; it is not waited for any more"
                );
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    reason = text,
                    "receipt given up"
                );
                let level = StatusLevel::Degraded;
                self.worse("request", level, reasons::ORPHAN_RECEIPT, text);
                answer.into()
            }
            Ok(_) => self.refuse(&error),
            Err(error) => self.refuse(&error),
        }
    }
}
