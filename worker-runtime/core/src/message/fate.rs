//! The fate of an outbound message as it travels in `helper_metadata.fate` (R11).

use serde::{Deserialize, Serialize};

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

/// Why a message failed, in nine classes: the closed list that people and programs decide by (R11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The user cannot be reached: unknown, off, barred.
    Recipient,
    /// The message itself was refused.
    Content,
    /// The account has no credit.
    Credit,
    /// Our credentials were refused.
    Credential,
    /// Too fast for the peer.
    Throttle,
    /// No way leads there.
    Route,
    /// Too late: a session, request or validity period had ended.
    Window,
    /// The provider failed.
    Provider,
    /// We failed.
    Ours,
}

impl FailureClass {
    /// All classes.
    pub const ALL: [FailureClass; 9] = [
        FailureClass::Recipient,
        FailureClass::Content,
        FailureClass::Credit,
        FailureClass::Credential,
        FailureClass::Throttle,
        FailureClass::Route,
        FailureClass::Window,
        FailureClass::Provider,
        FailureClass::Ours,
    ];

    /// The wire text, also a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureClass::Recipient => "recipient",
            FailureClass::Content => "content",
            FailureClass::Credit => "credit",
            FailureClass::Credential => "credential",
            FailureClass::Throttle => "throttle",
            FailureClass::Route => "route",
            FailureClass::Window => "window",
            FailureClass::Provider => "provider",
            FailureClass::Ours => "ours",
        }
    }

    /// What it means, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            FailureClass::Recipient => {
                "The user cannot be reached: unknown, switched off or barred."
            }
            FailureClass::Content => "The message itself was refused: its text, fields or sender.",
            FailureClass::Credit => "The account with the provider has no credit left.",
            FailureClass::Credential => "The provider refused our credentials.",
            FailureClass::Throttle => "Messages were sent faster than the provider takes them.",
            FailureClass::Route => "No way leads to the recipient.",
            FailureClass::Window => {
                "It came too late: the session, the request or the validity period had ended."
            }
            FailureClass::Provider => "The provider or its network failed.",
            FailureClass::Ours => {
                "This platform failed: a bug, a wrong manifest, or an answer that was lost."
            }
        }
    }
}

impl std::fmt::Display for FailureClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who must act when a message failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Whoever wrote or sent the message.
    Campaign,
    /// Whoever runs the platform.
    Operator,
    /// The provider.
    Provider,
    /// Nobody: it is nobody's fault, or it passes.
    Nobody,
}

impl Actor {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            Actor::Campaign => "campaign",
            Actor::Operator => "operator",
            Actor::Provider => "provider",
            Actor::Nobody => "nobody",
        }
    }
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
