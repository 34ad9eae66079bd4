//! Why messages fail, and what the codes of providers mean: the closed lists that people and programs decide by (R11).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a message failed, in nine classes: the closed list that people and programs decide by (R11).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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

/// What one code of the provider means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderCode {
    /// The code, as the provider writes it: `0x0b` and `007` stay what they are.
    #[schemars(length(min = 1, max = 64))]
    pub code: String,
    /// Whose matter it is.
    pub class: FailureClass,
    /// A plain sentence for people who do not know the provider's document; it ends with a full stop.
    #[schemars(length(min = 1, max = 200))]
    pub text: String,
    /// Who must act.
    pub who: Actor,
}

impl ProviderCode {
    /// What is wrong with each of a list of codes, as `(place, field, sentence)`.
    pub fn check(codes: &[Self]) -> Vec<(usize, &'static str, String)> {
        let mut findings = Vec::new();
        for (n, known) in codes.iter().enumerate() {
            let printable = known.code.chars().all(|c| c.is_ascii_graphic());
            if known.code.is_empty() || known.code.len() > 64 || !printable {
                let text = "must be 1 to 64 printable characters without spaces";
                findings.push((n, "code", text.to_owned()));
            }
            if codes[..n].iter().any(|before| before.code == known.code) {
                findings.push((n, "code", format!("{} stands there twice", known.code)));
            }
            let text = &known.text;
            if !text.ends_with('.') || text.len() > 200 || text.contains(['\n', '\r']) {
                let text = "must be one line of at most 200 bytes that ends with a full stop";
                findings.push((n, "text", text.to_owned()));
            }
        }
        findings
    }
}
