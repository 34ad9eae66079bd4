//! Classes of outbound messages (R13): each has a queue of its own, so that a one-time password does not wait behind a
//! campaign.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How urgent a message is: `helper_metadata.class`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Somebody waits for it: a reply in a conversation, a one-time password.
    Interactive,
    /// Caused by something that somebody did: a receipt, a reminder.
    #[default]
    Transactional,
    /// One of very many: a campaign.
    Bulk,
}

impl Class {
    /// All classes, the most urgent one first.
    pub const ALL: [Class; 3] = [Class::Interactive, Class::Transactional, Class::Bulk];

    /// As it is written in a message, and at the end of its queue's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Interactive => "interactive",
            Class::Transactional => "transactional",
            Class::Bulk => "bulk",
        }
    }

    /// The class of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

impl FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::find(name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            format!("{name:?} is no class; classes are {names}")
        })
    }
}

/// Classes of outbound messages. Each message is passed on from the shared queue to the queue of its class,
/// `<transportName>.outbound.<class>`, which costs it one more hop. Order holds within a class, not across.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Classes {
    /// Class of messages whose `helper_metadata.class` names none. Default `transactional`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Class>,
    /// How often each class has its turn while others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

/// Turns of each class for every round in which all wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Weights {
    /// Turns of interactive messages. Default `16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub interactive: Option<u32>,
    /// Turns of transactional messages. Default `4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub transactional: Option<u32>,
    /// Turns of bulk messages. Default `1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub bulk: Option<u32>,
}

impl Classes {
    /// Class of messages that name none.
    pub fn default_class(&self) -> Class {
        self.default.unwrap_or_default()
    }

    /// Turns of a class while all wait.
    pub fn weight(&self, class: Class) -> u32 {
        let weights = self.weights.as_ref();
        let (written, usual) = match class {
            Class::Interactive => (weights.and_then(|w| w.interactive), 16),
            Class::Transactional => (weights.and_then(|w| w.transactional), 4),
            Class::Bulk => (weights.and_then(|w| w.bulk), 1),
        };
        written.unwrap_or(usual)
    }
}
