//! The fate of an outbound message as it travels in `helper_metadata.fate` (R11).

use serde::{Deserialize, Serialize};

pub use vumi_api::shared::{Actor, FailureClass};

/// State of an outbound message. Final ones never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FateState {
    /// Taken over.
    Accepted,
    /// Waits for its turn.
    Queued,
    /// Waits on purpose.
    Held,
    /// The peer has it.
    Sent,
    /// Sent, but the answer was lost.
    Unknown,
    /// Set aside; needs a person.
    Parked,
    /// Final: delivered.
    Delivered,
    /// Final: the peer has it and no receipt is expected.
    SentFinal,
    /// Final: failed.
    Failed,
    /// Final: too late.
    Expired,
    /// Final: withdrawn.
    Cancelled,
}

/// What became of a message, why, and who must act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// The state.
    pub state: FateState,
    /// Failure class: recipient, content, credit, credential, throttle, route, window, provider or ours.
    pub class: String,
    /// The provider's raw code, or our registered code.
    pub code: String,
    /// A plain sentence.
    pub text: String,
    /// Who must act: campaign, operator, provider or nobody.
    pub who: String,
    /// Attempts so far.
    pub attempt: u32,
    /// Whether this is the end.
    #[serde(rename = "final")]
    pub is_final: bool,
}
