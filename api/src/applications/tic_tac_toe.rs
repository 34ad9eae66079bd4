//! What it is: tic-tac-toe for two users, who are matched in the order in which they come.
//!
//! Limits: a user has one game at a time, and a game that nobody plays for an hour is over. What is no cell ends the game.
//! Unlike in Vumi, a move out of turn does not count, and a cell that is taken is asked for again.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tic-tac-toe for two users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TicTacToe {
    /// What a player hears who must wait for the other one. With it, players are also written to when no message of theirs
    /// waits for an answer, which needs a network that takes messages at any time (chat, SMS). Default: they hear nothing
    /// until it is their turn, as on USSD, where every request has one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub waiting_text: Option<String>,
}

impl WorkerConfig for TicTacToe {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "ticTacToe";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const STATE: StateNeed = StateNeed::Shared;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.tic_tac_toe.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
