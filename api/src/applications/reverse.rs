//! What it is: answers every message with its own text, turned round. For trying out and for tests.
//!
//! Limits: what is turned round are the characters that people see, so that an accent stays with its letter. A message
//! without content (the start of a session) is answered with `Enter text to reverse:`. Messages that close a session are
//! not answered.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every message with its own text, turned round.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reverse {}

impl WorkerConfig for Reverse {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "reverse";
    const ORDERING: OrderingMode = OrderingMode::PerUser;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.reverse.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
