//! What it is: answers every message with its own content. For trying out and for tests.
//!
//! Limits: a message without content (the start of a session) is answered with `Enter text to echo:`. Messages that close a
//! session are not answered.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every message with its own content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Echo {}

impl WorkerConfig for Echo {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "echo";
    const ORDERING: OrderingMode = OrderingMode::PerUser;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.echo.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
