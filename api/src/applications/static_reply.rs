//! What it is: answers every message with one text and ends the session.
//!
//! Limits: `{now}` is the day of the message in UTC, so that a message that comes again is answered with the same text.
//! Messages that close a session are not answered.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every message with one text and ends the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticReply {
    /// The text. `{user}` is written as the address of whom it answers, `{now}` as the day, `2026-01-31`. Default
    /// `Hello {user} at {now}.`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub text: Option<String>,
}

impl WorkerConfig for StaticReply {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "staticReply";
    const ORDERING: OrderingMode = OrderingMode::None;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.static_reply.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
