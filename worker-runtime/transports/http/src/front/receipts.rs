//! Receipts: taken over, or sent again by the provider; but not for ever.

use super::{ACCEPT_TIMEOUT, Front};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use vumi_core::clock;
use vumi_core::codes;
use vumi_core::error::WorkError;
use vumi_core::message::derived_id;
use vumi_core::outcome::Receipt;
use vumi_core::reasons;
use vumi_core::status::StatusLevel;
use vumi_core::telemetry::HttpSeen;
use vumi_http::{Answer, Reply, StatusCode};

/// For so long after it came first, a receipt whose message nobody knows is to come again: it may be faster than the answer
/// that names the message.
const ORPHANED: Duration = Duration::from_secs(600);
/// How long such a receipt is remembered. Providers that repeat for days ask again within this.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// When it came first, in seconds since 1970.
const FIRST: &str = "first";

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
        match self.age_of_orphan(&remote_id).await {
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

    /// How long ago a receipt without a message came first.
    async fn age_of_orphan(&self, remote_id: &str) -> Result<Duration, WorkError> {
        let Some(store) = self.cx.state() else {
            return Ok(Duration::ZERO);
        };
        let scope = format!("{}:orphans", self.cx.transport_name());
        // What a caller sends may be of any length.
        let id = derived_id(&["orphan", remote_id]);
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        if let Some(seen) = store.load(&scope, &id).await?
            && let Some(first) = seen.get(FIRST).and_then(|first| first.parse().ok())
        {
            return Ok(now.saturating_sub(Duration::from_secs(first)));
        }
        let first = BTreeMap::from([(FIRST.to_owned(), now.as_secs().to_string())]);
        store.create(&scope, &id, first, Some(REMEMBERED)).await?;
        Ok(Duration::ZERO)
    }
}
