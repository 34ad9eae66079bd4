//! What it is: answers every message with one fixed text and ends the session.
//!
//! Limits: messages that close a session are not answered.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every message with one fixed text and ends the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticReply {
    /// The text.
    #[schemars(length(min = 1, max = 4096))]
    pub text: String,
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
