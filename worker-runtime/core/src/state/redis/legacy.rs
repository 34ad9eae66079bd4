//! Retries of Vumi's failure worker: a sorted set of buckets by time, a set of failures for each bucket, a hash for
//! each failure. Failures and the set of all of them are Vumi's record; nothing but the retry is removed.

use super::RedisStore;
use super::errors::unreadable;
use super::script::{at_most, script};
use crate::error::WorkError;
use crate::state::legacy::{ImportedRetry, LegacyRetries};
use async_trait::async_trait;
use bytes::Bytes;
use time::PrimitiveDateTime;
use time::format_description::well_known::Iso8601;

#[async_trait]
impl LegacyRetries for RedisStore {
    async fn import_retries(
        &self,
        transport_name: &str,
        limit: usize,
    ) -> Result<Vec<ImportedRetry>, WorkError> {
        let mut call = script!("retries").key(self.keys.failures(transport_name));
        call.arg(at_most(limit));
        let (lost, found): (u64, Vec<(String, String, Bytes, Bytes)>) =
            self.link.script(&call).await?;
        if lost > 0 {
            tracing::warn!(
                transport_name,
                lost,
                "retries of Vumi whose failures are not stored any more: nothing to send"
            );
        }
        let retries = found.into_iter().map(|(bucket, key, body, reason)| {
            Ok(ImportedRetry {
                due: due(&bucket).ok_or_else(|| unreadable("a time of Vumi's retries"))?,
                key: format!("{bucket} {key}"),
                body,
                reason: String::from_utf8_lossy(&reason).into_owned(),
            })
        });
        retries.collect()
    }

    async fn imported(&self, transport_name: &str, keys: &[String]) -> Result<(), WorkError> {
        let mut call = script!("imported").key(self.keys.failures(transport_name));
        for (bucket, key) in keys.iter().filter_map(|key| key.split_once(' ')) {
            call.arg(bucket).arg(key);
        }
        self.link.script(&call).await
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
