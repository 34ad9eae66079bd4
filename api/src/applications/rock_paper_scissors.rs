//! What it is: rock, paper, scissors for two users, who are matched in the order in which they come; five decided rounds.
//!
//! Limits: a user has one game at a time, and a game that nobody plays for an hour is over. What is no move ends the game.
//! Unlike in Vumi, rock beats scissors, scissors beat paper and paper beats rock.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rock, paper, scissors for two users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RockPaperScissors {
    /// What a player hears who must wait for the other one. With it, players are also written to when no message of theirs
    /// waits for an answer, which needs a network that takes messages at any time (chat, SMS). Default: they hear nothing
    /// until it is their turn, as on USSD, where every request has one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub waiting_text: Option<String>,
}

impl WorkerConfig for RockPaperScissors {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "rockPaperScissors";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const STATE: StateNeed = StateNeed::Shared;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource
            .application()
            .and_then(|a| a.rock_paper_scissors.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
