//! What it is: a simulated network. It takes messages, refuses some, reports what became of the rest, and answers for their
//! recipients; nothing leaves the process.
//!
//! Provider's specification: none; the behaviour of Vumi's DevNull transport, with its rates in per cent, and faults of real
//! networks: slow answers, lost answers, and a limit above which it asks to slow down.
//!
//! Limits: what becomes of a message is drawn from its id, so that a repeat ends as the first did. `capacity` is kept by each
//! replica for itself. At most 100,000 receipts are under way in each; above, it asks to slow down.
//!
//! Codes: `peer.refused`, `peer.throttled`, `peer.timeout`, `receipt.unmatched`, `reply.missing_fields`.
//!
//! ## For one outbound message
//!
//! | Step | What is published |
//! |---|---|
//! | above `capacity` | nothing: the message is tried again after a while |
//! | not within `ackPercent` | nack with one of the codes of its error table, drawn from the id |
//! | else | ack, then a delivery report: `failed` within `failurePercent`, with a code of class `recipient`, else `delivered`; with `receiptAfter` that comes later, or when the worker stops, since nobody else knows of it |
//! | within `replyPercent` | an inbound message from the recipient: `replyCopy`, or the content again |
//! | within `lostPercent` | nothing: the network has the message, its answer is lost, and its receipt comes half a second later; `onUnknown` decides what is told meanwhile |

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{Duration, OrderingMode};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A simulated network: acks, receipts and replies without a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DevNull {
    /// Share of messages that the network accepts, in per cent. Default `100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub ack_percent: Option<u32>,
    /// Share of accepted messages that are reported as failed, in per cent. Default `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub failure_percent: Option<u32>,
    /// Share of accepted messages that their recipients answer, in per cent. Default `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub reply_percent: Option<u32>,
    /// What recipients answer. Default: the content of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub reply_copy: Option<String>,
    /// `transport_type` of the answers. Default `sms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub transport_type: Option<String>,
    /// How long the network takes to answer. Default `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Messages a second that the network takes; above, it asks to slow down for a second. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub capacity: Option<u32>,
    /// Share of messages that the network takes and whose answer is lost, in per cent. Default `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub lost_percent: Option<u32>,
    /// How long after its answer the network reports what became of a message; it names the message by its own id, so that
    /// this needs a state store. Default: at once, with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_after: Option<Duration>,
}

impl WorkerConfig for DevNull {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "devNull";
    const ORDERING: OrderingMode = OrderingMode::None;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.dev_null.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::transport(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
