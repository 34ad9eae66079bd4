//! Retries of Vumi's failure worker: a sorted set of buckets by time, a set of failures for each bucket, a hash for
//! each failure. Failures and the set of all of them are Vumi's record; nothing but the retry is removed. And what its
//! scheduler kept, laid out alike, for every transport in one place: there the entry goes as well, as after a delivery.

use super::RedisStore;
use super::script::{at_most, script};
use crate::error::WorkError;
use crate::state::legacy::{ImportedRetry, LegacyRetries, Reading};
use async_trait::async_trait;
use bytes::Bytes;
use time::PrimitiveDateTime;
use time::format_description::well_known::Iso8601;

/// How [`ImportedRetry::key`] begins of what the failure worker kept, and of what the scheduler did.
const RETRY: &str = "retry ";
const SCHEDULED: &str = "scheduled ";

/// Bucket, key, message and reason.
type Kept = (String, String, Bytes, Bytes);

#[async_trait]
impl LegacyRetries for RedisStore {
    async fn import_retries(
        &self,
        transport_name: &str,
        from: Reading,
        limit: usize,
    ) -> Result<(Vec<ImportedRetry>, Option<Reading>), WorkError> {
        let mut walk = 0;
        match from {
            Reading::Retries => {
                let mut retries = script!("retries").key(self.keys.failures(transport_name));
                retries.arg(at_most(limit));
                let (found, _) = self.kept(RETRY, &retries, transport_name).await?;
                if !found.is_empty() {
                    return Ok((found, Some(Reading::Retries)));
                }
            }
            Reading::Scheduled(place) => walk = place,
        }
        let mut scheduled = script!("scheduled").key(self.keys.scheduler());
        scheduled.arg(walk).arg(at_most(limit)).arg(transport_name);
        let (found, next) = self.kept(SCHEDULED, &scheduled, transport_name).await?;
        Ok((found, (next > 0).then_some(Reading::Scheduled(next))))
    }

    async fn imported(&self, transport_name: &str, keys: &[String]) -> Result<(), WorkError> {
        let mut retries = script!("imported").key(self.keys.failures(transport_name));
        let mut scheduled = script!("unscheduled").key(self.keys.scheduler());
        for key in keys {
            let (call, rest) = match key.strip_prefix(RETRY) {
                Some(rest) => (&mut retries, rest),
                None => (&mut scheduled, key.strip_prefix(SCHEDULED).unwrap_or(key)),
            };
            if let Some((bucket, key)) = rest.split_once(' ') {
                call.arg(bucket).arg(key);
            }
        }
        let _: () = self.link.script(&retries).await?;
        self.link.script(&scheduled).await
    }
}

impl RedisStore {
    /// What a script found, and where its walk goes on.
    async fn kept(
        &self,
        kind: &str,
        call: &redis::ScriptInvocation<'_>,
        transport_name: &str,
    ) -> Result<(Vec<ImportedRetry>, u64), WorkError> {
        let (lost, found, next): (u64, Vec<Kept>, u64) = self.link.script(call).await?;
        if lost > 0 {
            tracing::warn!(
                transport_name,
                lost,
                "messages that Vumi kept for later are not stored any more: nothing to send"
            );
        }
        let retries = found
            .into_iter()
            .map(|(bucket, key, body, reason)| ImportedRetry {
                // What has no time that can be read is due.
                due: due(&bucket).unwrap_or_default(),
                key: format!("{kind}{bucket} {key}"),
                body,
                reason: String::from_utf8_lossy(&reason).into_owned(),
            });
        Ok((retries.collect(), next))
    }
}

/// Milliseconds since 1970 of a bucket, which is written in UTC and without a zone.
fn due(bucket: &str) -> Option<u64> {
    let time = PrimitiveDateTime::parse(bucket, &Iso8601::PARSING).ok()?;
    let seconds = u64::try_from(time.assume_utc().unix_timestamp()).ok()?;
    Some(seconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_utc() {
        assert_eq!(due("2014-07-28T12:30:05"), Some(1_406_550_605_000));
        assert_eq!(due("yesterday"), None);
    }
}
