//! How many pods a worker has, decided by what waits and how fast it comes (K8, K19). Only the operator reads it.

use super::quantity::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The operator decides how many pods there are, by the messages that wait for this worker and the rate at which they come.
/// `replicas` has no effect beside it and cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.minReplicas) || self.minReplicas <= self.maxReplicas",
    "message": "minReplicas must not be more than maxReplicas",
    "fieldPath": ".minReplicas",
})]))]
pub struct Autoscaling {
    /// Fewest pods. `0`, for types that listen nowhere: none while nothing waits; the first message starts one within about ten
    /// seconds. Default `1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: Option<u16>,
    /// Most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u16,
    /// For how many messages, those that wait and those in hand, there is one pod. Default `100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000000))]
    pub backlog_per_replica: Option<u32>,
    /// How many messages each second one pod is to handle. Default: nine tenths of what pods were seen to handle while messages
    /// waited; until then only the backlog counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub rate_per_replica: Option<u32>,
    /// For so long fewer pods must have been enough before there are fewer. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_after: Option<Duration>,
}

impl Autoscaling {
    /// Fewest pods.
    pub fn least(&self) -> u16 {
        self.min_replicas.unwrap_or(1)
    }

    /// Most pods; never fewer than [`Self::least`].
    pub fn most(&self) -> u16 {
        self.max_replicas.max(self.least())
    }

    /// Messages for which there is one pod.
    pub fn backlog_per_pod(&self) -> u32 {
        self.backlog_per_replica.unwrap_or(100).max(1)
    }

    /// How long fewer pods must have been enough.
    pub fn patience(&self) -> std::time::Duration {
        let default = std::time::Duration::from_secs(300);
        self.scale_down_after.map_or(default, |after| after.0)
    }
}
