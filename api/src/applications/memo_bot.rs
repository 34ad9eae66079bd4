//! What it is: a bot for chat channels that keeps memos: `bot tell NICK TEXT` is passed on when NICK says something.
//!
//! Limits: at most 50 memos of 1000 characters wait for one nick in one channel, until they are delivered. Nicks are
//! compared without regard to case. The channel is that of `helper_metadata.irc.irc_channel`, or `unknown`. Memos that a
//! Vumi worker keeps are not taken over.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{OrderingMode, StateNeed};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A bot that keeps memos for people in a chat channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoBot {}

impl WorkerConfig for MemoBot {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "memoBot";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const STATE: StateNeed = StateNeed::Shared;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.memo_bot.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        Vec::new()
    }
}
