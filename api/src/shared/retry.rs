//! Retries of temporary errors.

use super::quantity::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How temporary errors are retried. A message that would wait longer than `holdLimit` waits in the state store; without
/// one, retries end after `holdLimit` in total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included. Those in which the peer could not be reached, refused our credentials, or asked
    /// to slow down, do not count: only `maxAge` ends these. Default `10`; `httpRelay` has no limit but `maxAge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Longest time from the first delivery of a message to its last attempt. Default `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// Waiting time between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Whether a Vumi failure worker has the later attempts made: after a failed attempt that counts, the message is given to it
    /// by `<transportName>.failures`, and it puts the message into `.outbound` again, where `maxAge` begins anew. Attempts that do
    /// not count are repeated here, and so are all while that queue is not there. For transports with `legacyFailures: true`;
    /// needs a state store. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
}

impl Retry {
    /// Default of [`Self::max_age`].
    pub const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

    /// Whether a Vumi failure worker has the later attempts made.
    pub fn is_external(&self) -> bool {
        self.external == Some(true)
    }
}

/// Exponential back-off: the waiting time doubles from `initial` up to `max`, and each wait is a random part of it, from
/// half to all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    /// First waiting time. Default `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Duration>,
    /// Longest waiting time. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
}
