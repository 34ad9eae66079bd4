//! Order of handling (R2): per user behind a fence, per queue, or none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
pub struct Ordering {
    /// What is kept in order. The default depends on the worker type.
    pub mode: OrderingMode,
}
