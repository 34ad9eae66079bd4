//! What a provider sends, and how it is answered.

use super::{Answer, TemplateMap};
use crate::shared::shapes::Template;
use crate::shared::{Duration, RequestMethod, SecretValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the provider shows who it is. What is not set is not asked for; what is, must be right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Request parameters and the values that they must have, as templates of `config`. One whose template has no value
    /// is not asked for. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Headers and the values that they must have, as above. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub headers: Option<BTreeMap<String, String>>,
    /// A signature of the body. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// The answer to a request that shows none or a wrong one. Default: status 403 with `Forbidden`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Answer>,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SignatureEncoding {
    /// In hex digits.
    #[default]
    Hex,
    /// In base64.
    Base64,
}

/// An HMAC with SHA-256 over the body, or over `<id>.<timestamp>.<body>` with those of the two that have a header. Nothing
/// else is signed. Without a time a request that somebody recorded is good for ever: give its message an `id`, by which repeats
/// are known for `dedupe.window`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// Header that holds it, or several separated by spaces.
    #[schemars(length(min = 1, max = 63))]
    pub header: String,
    /// What stands before each, such as `sha256=` or `v1,`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub prefix: Option<String>,
    /// How it is written. Default `hex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// Header with the id of the delivery, signed too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub id_header: Option<String>,
    /// Header with the time of signing in seconds since 1970, signed too. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub timestamp_header: Option<String>,
    /// How far that time may be from ours. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Duration>,
    /// The secret; a second one while it is being changed: a signature by either is right. One such as `whsec_…` is base64, as
    /// Standard Webhooks has it.
    #[schemars(length(min = 1, max = 2))]
    pub secrets: Vec<SecretValue>,
}

impl Signature {
    /// Whether a request can be told from a repeat that somebody recorded by its id alone.
    pub fn is_timeless(&self) -> bool {
        self.timestamp_header.is_none()
    }
}

/// One kind of request that the provider makes. The first that matches is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRule {
    /// Name, for whoever reads the description; each rule has its own.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z][a-z0-9-]*$"))]
    pub name: String,
    /// Path below `http.path`; a part in braces, as in `/{session}/start`, matches anything and has a value under `path`.
    /// Default: every path below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = crate::shared::shapes::PATH_PATTERN))]
    pub path: Option<String>,
    /// Methods; others get 405. Default `GET, POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub methods: Option<Vec<RequestMethod>>,
    /// What else must be true. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub when: Option<String>,
    /// Parameters that must be there; they may be empty. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub required: Option<Vec<String>>,
    /// Parameters that may be there. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub optional: Option<Vec<String>>,
    /// Whether a request with other parameters is invalid. Default `false`: they are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// What else makes a request invalid: a word for the answer, and what stands beside it there, if it is. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub refuse: Option<BTreeMap<String, String>>,
    /// The message that it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageRule>,
    /// What it says about a message that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptRule>,
    /// The answer, once the broker has what the request carries. A message without one holds its request until the reply
    /// comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// The fields of a message, as templates. One without a value is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageRule {
    /// The user's address.
    #[schemars(with = "Template")]
    pub from_addr: String,
    /// The address written to, such as a short code.
    #[schemars(with = "Template")]
    pub to_addr: String,
    /// The text. Default: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub content: Option<String>,
    /// `new`, `resume` or `close`. Default: as `session` has it, else null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub session_event: Option<String>,
    /// `provider`: the network behind the provider. Default: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub provider: Option<String>,
    /// `group`. Default: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub group: Option<String>,
    /// The provider's own id of it: by it a request that comes again is recognised, and gets the same answer. Default: it
    /// has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub id: Option<String>,
    /// Entries of `transport_metadata`, which replies bring back. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub transport_metadata: Option<BTreeMap<String, String>>,
    /// Entries of `helper_metadata`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub helper_metadata: Option<BTreeMap<String, String>>,
}

/// What a status of the provider means for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReceiptStatus {
    /// On its way.
    Pending,
    /// The user has it.
    Delivered,
    /// The user will not get it.
    Failed,
}

/// What a receipt says. A status that is not in `statuses` is told as pending, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReceiptRule {
    /// Our id of the message, if the provider brings it back. Default: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub message_id: Option<String>,
    /// The provider's id of the message, as it came with the answer; needs a state store. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub remote_id: Option<String>,
    /// The provider's status.
    #[schemars(with = "Template")]
    pub status: String,
    /// What each status means.
    #[schemars(extend("maxProperties" = 128))]
    pub statuses: BTreeMap<String, ReceiptStatus>,
    /// Code of a failure, as `codes` has it. Default: the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub code: Option<String>,
}
