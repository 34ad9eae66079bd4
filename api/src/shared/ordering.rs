//! Order of handling (R2): per user behind a fence, per queue, or none; and how many replicas share an ordered queue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What is kept in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OrderingMode {
    /// Messages of one user in order, users in parallel; one replica consumes, others stand by.
    PerUser,
    /// The whole queue in order, one message at a time; one replica consumes, others stand by.
    PerQueue,
    /// No order; replicas compete for messages. For request/reply and stateless work.
    None,
}

/// How order is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "!has(self.partitions) || self.mode == 'perUser'",
        "message": "partitions divide a queue by user: they need mode: perUser",
        "fieldPath": ".partitions",
    }),
    json!({
        "rule": "!has(self.standby) || !self.standby || self.mode != 'none'",
        "message": "standby has no effect with mode: none, where every replica works",
        "fieldPath": ".standby",
    }),
    json!({
        "rule": "!has(self.partitions) || !has(self.standby) || !self.standby",
        "message": "standby has no effect beside partitions, which are spread over all replicas",
        "fieldPath": ".standby",
    }),
]))]
pub struct Ordering {
    /// What is kept in order. The default depends on the worker type.
    pub mode: OrderingMode,
    /// Divides every consumed queue by user into so many, which are spread over the replicas: each user's messages stay in
    /// order, and all replicas work. One replica passes messages on from the queue to its partitions, which costs each
    /// message one more hop. About four for each replica that is ever wanted. After a change, what waits in the old queues
    /// is finished first, and nothing new begins until then; what waits in the journal moves along. Default: none; one replica consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 64))]
    pub partitions: Option<u16>,
    /// Says that further replicas are meant to stand by for the one that consumes. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<bool>,
}
