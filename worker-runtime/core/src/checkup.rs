//! What a look at a broker, a state store or a machine found: one sentence, and what to do about it. `vumi doctor` prints
//! them.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, and something will be lost, slow or surprising.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at: `broker amqp://…`, `queue sms.outbound`.
    pub about: String,
    /// A sentence.
    pub says: String,
    /// What to do; empty if nothing.
    pub fix: String,
}

impl Finding {
    /// As it should be.
    pub fn good(about: &str, says: impl Into<String>) -> Self {
        Self::new(Level::Good, about, says.into(), "")
    }

    /// Something to know or do.
    pub fn new(level: Level, about: &str, says: impl Into<String>, fix: &str) -> Self {
        Self {
            level,
            about: about.to_owned(),
            says: says.into(),
            fix: fix.to_owned(),
        }
    }
}
