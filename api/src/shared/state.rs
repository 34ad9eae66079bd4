//! Where workers keep what must outlive a message, and for how long (K1, R16, R20).

use super::quantity::{Duration, Size};
use super::retry::Retry;
use super::secret::SecretRef;
use super::shapes::{Retained, RetainedTrail, VolumeSize};
use super::tls::ClientTls;
use crate::crds::one_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The Secret of the state store of a worker whose manifest names none, on a cluster.
pub const DEFAULT_STATE_SECRET: &str = "vumi-redis";

/// The kinds of state store: the keys of [`StateRef`] of which exactly one is given.
pub const STATE_STORES: &[&str] = &["redis", "volume"];

/// How much a worker type needs a state store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateNeed {
    /// Works without one; with one, its guarantees are stronger.
    None,
    /// Does not start without one; what is kept may be lost with the store.
    Shared,
    /// Does not start without one that survives the end of its process.
    Durable,
}

/// The state store of one worker. Exactly one kind is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [one_of("state store", STATE_STORES)]))]
pub struct StateRef {
    /// A Redis, shared by replicas and workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisRef>,
    /// A store on a disk of the worker's own: for one replica. With `vumi run`, the store of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<StateVolume>,
}

/// A Redis and the part of it that is used. The Secret holds `connection_string`, or `host`, `port`, `username`, `password`
/// and `db`; behind Sentinel, `sentinels` (`host:port`, separated by commas) and `masterName` in place of `host` and
/// `port`. Redis Cluster is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.keySeparator) || !has(self.keyPrefix) || self.keyPrefix != ''",
    "message": "keySeparator stands after keyPrefix, which is empty: take keySeparator out",
    "fieldPath": ".keySeparator",
})]))]
pub struct RedisRef {
    /// Secret with address and credentials.
    pub secret_ref: SecretRef,
    /// What all keys begin with, followed by `keySeparator`; empty for no prefix, as in Vumi. Default `vumi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), regex(pattern = KEY_PREFIX_PATTERN))]
    pub key_prefix: Option<String>,
    /// What stands between `keyPrefix` and the rest of a key, as Vumi's `key_separator`. Default `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), regex(pattern = KEY_SEPARATOR_PATTERN))]
    pub key_separator: Option<String>,
    /// TLS settings. With them, or with a `rediss` URL, the connection is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// Pattern of a key prefix.
pub const KEY_PREFIX_PATTERN: &str = r"^[A-Za-z0-9_.:#-]*$";

/// Pattern of a key separator.
pub const KEY_SEPARATOR_PATTERN: &str = r"^[A-Za-z0-9_.:#/|-]*$";

/// A store on a disk of the worker's own. On a cluster the disk is a volume claim, kept when the resource is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    // A transition rule: there is nothing to compare with in a file.
    "rule": "self == oldSelf",
    "message": "a volume keeps what it was made with: enlarge its PersistentVolumeClaim, or delete the resource and the claim",
})]))]
pub struct StateVolume {
    /// Size of the volume on a cluster. It is taken when its claim is made, and cannot be changed after that. Default `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<VolumeSize>")]
    pub size: Option<Size>,
    /// Storage class of the volume on a cluster; it cannot be changed either. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// How long things are kept. Each has a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// The ledger row of an outbound message, from its end. Default `72h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Retained>")]
    pub ledger: Option<Duration>,
    /// The trail of every message, from its first hop: with the rows, what `vumi why` reads. `0s`: this worker notes no
    /// hops. Default: as `ledger`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RetainedTrail>")]
    pub trail: Option<Duration>,
    /// Of which outbound messages the content is kept with the row, so that `vumi ledger resend` can send them again.
    /// Default `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<KeptContent>,
    /// Messages that were set aside, from then on. Default: until somebody sends them back or drops them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Retained>")]
    pub parked: Option<Duration>,
    /// Messages that wait in the journal, from their first delivery, or from the time for which they are scheduled: then
    /// they end as expired, and whoever sent an outbound one gets an event. At least `retry.maxAge`. Default: until they
    /// are handled; retries end by `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Retained>")]
    pub journal: Option<Duration>,
    /// How often a message was begun by a process that died meanwhile, from the last time. Default `24h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Retained>")]
    pub suspects: Option<Duration>,
    /// What an application with conversations answered, so that a message that comes again moves none of them twice; and what
    /// `calculator` was told by a user who went away. At least `retry.maxAge`. Default `24h`, or `retry.maxAge` if that is
    /// longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Retained>")]
    pub answers: Option<Duration>,
}

impl Retention {
    /// Default of [`Self::suspects`].
    pub const SUSPECTS: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

    /// Least default of [`Self::answers`].
    pub const ANSWERS: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

    /// Default of [`Self::ledger`].
    pub const LEDGER: std::time::Duration = std::time::Duration::from_secs(72 * 3600);

    /// How long ledger rows are kept from the end of their message.
    pub fn ledger(&self) -> std::time::Duration {
        self.ledger.map_or(Self::LEDGER, |kept| kept.0)
    }

    /// How long trails are kept from their first hop; none where hops are not noted.
    pub fn trail(&self) -> Option<std::time::Duration> {
        let kept = self.trail.map_or_else(|| self.ledger(), |kept| kept.0);
        (!kept.is_zero()).then_some(kept)
    }

    /// Whose content is kept.
    pub fn content(&self) -> KeptContent {
        self.content.unwrap_or_default()
    }

    /// For how long it is known that a message may have killed a process.
    pub fn suspects(&self) -> std::time::Duration {
        self.suspects.map_or(Self::SUSPECTS, |kept| kept.0)
    }

    /// How long it is known what a conversation answered.
    pub fn answers(&self, retry: Option<&Retry>) -> std::time::Duration {
        let kept = self.answers.map(|kept| kept.0);
        kept.unwrap_or_else(|| tried(retry).max(Self::ANSWERS))
    }
}

/// Of which outbound messages the content is kept with their ledger row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KeptContent {
    /// Of none, but while `onUnknown: {then: retry}` may send it again.
    None,
    /// Of those that the peer did not take, of those of which nobody knows, and of those that Vumi's failure worker has.
    #[default]
    Failed,
    /// Of all: also what the peer took and reported as failed can be sent again.
    All,
}

/// For how long a message is tried.
fn tried(retry: Option<&Retry>) -> std::time::Duration {
    let age = retry.and_then(|retry| retry.max_age);
    age.map_or(Retry::MAX_AGE, |age| age.0)
}

/// What the schema cannot say, as `(path below spec, sentence)` pairs.
pub(crate) fn validate(retention: &Retention, retry: Option<&Retry>) -> Vec<(String, String)> {
    let tried = tried(retry);
    let finding = |key: &str, kept: Option<Duration>, why: &str| {
        let kept = kept.filter(|kept| kept.0 < tried)?;
        let sentence = format!(
            "{kept} is shorter than retry.maxAge ({}): {why}",
            Duration(tried)
        );
        Some((format!("retention.{key}"), sentence))
    };
    let journal = "messages would end before their last attempt";
    let answers = "a message that is tried again would move its conversation twice";
    [
        finding("journal", retention.journal, journal),
        finding("answers", retention.answers, answers),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_in_the_journal_before_its_last_attempt() {
        let hours = |n: u64| Some(Duration(std::time::Duration::from_secs(n * 3600)));
        let kept = |n: u64| Retention {
            journal: hours(n),
            ..Retention::default()
        };
        let tried = Retry {
            max_age: hours(48),
            ..Retry::default()
        };
        assert_eq!(validate(&Retention::default(), Some(&tried)), []);
        assert_eq!(validate(&kept(24), None), []);
        assert_eq!(validate(&kept(48), Some(&tried)), []);
        let found = validate(&kept(47), Some(&tried));
        assert_eq!(found[0].0, "retention.journal");
        assert!(
            found[0].1.contains("shorter than retry.maxAge (48h)"),
            "{found:?}"
        );
        assert_eq!(validate(&kept(23), None).len(), 1);
    }

    #[test]
    fn what_was_answered_is_known_for_as_long_as_its_message_is_tried() {
        let hours = |n: u64| std::time::Duration::from_secs(n * 3600);
        let retry = |n: u64| Retry {
            max_age: Some(Duration(hours(n))),
            ..Retry::default()
        };
        let kept = |n: u64| Retention {
            answers: Some(Duration(hours(n))),
            ..Retention::default()
        };
        let by_default = Retention::default();
        assert_eq!(by_default.answers(None), hours(24));
        assert_eq!(by_default.answers(Some(&retry(2))), hours(24));
        assert_eq!(by_default.answers(Some(&retry(48))), hours(48));
        assert_eq!(kept(2).answers(Some(&retry(2))), hours(2));
        assert_eq!(validate(&kept(2), Some(&retry(2))), []);
        let found = validate(&kept(2), None);
        assert_eq!(found[0].0, "retention.answers");
        assert!(found[0].1.contains("(24h)"), "{found:?}");
    }
}
