//! What it is: the game of hangman, one game per user, which goes on in the user's next session.
//!
//! Limits: guesses are the letters a to z. A game has no end in time, as in Vumi; `vumi erase --person` removes it. Words
//! come from `words` or from a list that is built in; Vumi's `random_word_url` is not supported (docs/applications.md says why).
//!
//! Games of a Vumi worker go on: give `workerName` its `worker_name`, the same `transportName`, and `state.redis` with the
//! `keyPrefix` of its `redis_manager`.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::GameWords;
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The game of hangman.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hangman {
    /// Words to guess. Default: a list that is built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<GameWords>")]
    pub words: Option<Vec<String>>,
    /// Name under which games are kept, together with `transportName`: the `worker_name` of a Vumi worker whose games are
    /// to go on. Default `metadata.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = "^[A-Za-z0-9_.-]+$"))]
    pub worker_name: Option<String>,
}

impl WorkerConfig for Hangman {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "hangman";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const STATE: StateNeed = StateNeed::Shared;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.hangman.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
