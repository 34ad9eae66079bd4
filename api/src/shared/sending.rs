//! How a transport sends: what it does when it does not know whether the peer has a message, how fast it sends, and how
//! it recognises what its provider delivers again (R7, R17, R20).

use super::quantity::Duration;
use super::shapes::{Deadline, DedupeWindow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is done with a message that may or may not have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnknownPolicy {
    /// A receipt is waited for until `deadline`; then `then`.
    Wait,
    /// It has failed; sending it again is up to a person.
    Fail,
    /// It is sent again: the user may get it twice.
    Retry,
}

/// What is done when no receipt came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UnknownThen {
    /// It has failed.
    Fail,
    /// It is sent again: the user may get it twice.
    Retry,
}

fn unknown_rules() -> Value {
    json!([
        {
            "rule": "self.policy != 'wait' || (has(self.deadline) && has(self.then))",
            "message": "policy wait needs an end: add deadline: … and then: fail or retry",
        },
        {
            "rule": "self.policy == 'wait' || !has(self.deadline)",
            "message": "deadline has no effect with this policy: it is for policy wait",
            "fieldPath": ".deadline",
        },
        {
            "rule": "self.policy == 'wait' || !has(self.then)",
            "message": "then has no effect with this policy: it is for policy wait",
            "fieldPath": ".then",
        },
    ])
}

/// What is done with a message whose answer was lost: the process died, or the connection broke, between sending it and
/// hearing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = unknown_rules()))]
pub struct OnUnknown {
    /// What is done. `wait` needs a state store.
    pub policy: UnknownPolicy,
    /// How long a receipt is waited for. Required with `wait`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub deadline: Option<Duration>,
    /// What is done when none came. Required with `wait`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<UnknownThen>,
}

impl OnUnknown {
    /// Whether a receipt is waited for.
    pub fn waits(&self) -> bool {
        self.policy == UnknownPolicy::Wait
    }
}

/// What a rate is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RateUnit {
    /// Requests to the peer.
    #[default]
    Requests,
    /// Parts of messages: a long text message counts as often as it has parts.
    Parts,
}

/// What has a rate of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RatePer {
    /// The whole transport, all its replicas together.
    #[default]
    Account,
    /// Each sender address (`from_addr`), over all replicas.
    Sender,
}

/// How fast messages are sent. With a state store the replicas share it; without one each replica has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// How many a second.
    #[schemars(range(min = 1, max = 100000))]
    pub rate: u32,
    /// How many at once after a pause. Default: as many as `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub burst: Option<u32>,
    /// What is counted. Default `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<RateUnit>,
    /// What has a rate of its own. Default `account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<RatePer>,
}

impl RateLimit {
    /// Most at once.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.rate)
    }

    /// What is counted.
    pub fn unit(&self) -> RateUnit {
        self.unit.unwrap_or_default()
    }

    /// What has a rate of its own.
    pub fn per(&self) -> RatePer {
        self.per.unwrap_or_default()
    }
}

/// How deliveries that the provider repeats are recognised, by its id. Needs a state store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dedupe {
    /// For how long a delivery is remembered, with the answer that the provider got (at most 1 KiB). Default `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DedupeWindow>")]
    pub window: Option<Duration>,
    /// Most deliveries that are remembered; the oldest are forgotten first. Default `100000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000000))]
    pub max_entries: Option<u32>,
}

impl Dedupe {
    /// For how long a delivery is remembered.
    pub fn window(&self) -> std::time::Duration {
        let default = std::time::Duration::from_secs(15 * 60);
        self.window.map_or(default, |window| window.0)
    }

    /// Most deliveries that are remembered.
    pub fn max_entries(&self) -> u32 {
        self.max_entries.unwrap_or(100_000)
    }
}
