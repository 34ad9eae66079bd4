//! What it is: answers every message with the number of its words and characters. For trying out and for tests.
//!
//! Limits: words are what white space divides, characters are Unicode code points. A message without content (the start
//! of a session) is answered with `Enter text to return word and character counts for:`. Messages that close a session
//! are not answered.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every message with the number of its words and characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WordCount {}

impl WorkerConfig for WordCount {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "wordCount";
    const ORDERING: OrderingMode = OrderingMode::PerUser;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.word_count.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
