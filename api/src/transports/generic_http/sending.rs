//! How a message becomes a request to the provider, and what the provider's answer means.

use super::{NumberForm, RequestMethod, TemplateMap};
use crate::shared::shapes::{ShortText, Template};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the parameters of a request stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ParametersIn {
    /// In the URL.
    Query,
    /// In the body, as a form.
    #[default]
    Form,
    /// In the body, as the members of a JSON object; numbers and truth values keep their type.
    Json,
}

/// The request for one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendRule {
    /// Method. Default `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<RequestMethod>,
    /// Where it goes.
    #[schemars(with = "Template")]
    pub url: String,
    /// Its parameters. One without a value is left out. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Where the parameters stand. Default `form`; `query` for GET and where there is a `body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters_in: Option<ParametersIn>,
    /// The whole body. Default: what `parameters` make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub body: Option<String>,
    /// Content type of `body`; as JSON or XML, values in it are escaped. Default `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub content_type: Option<String>,
    /// Headers. One without a value is left out. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Fields without which a message cannot be sent: one that lacks any is refused. Default `to_addr, content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub needs: Option<Vec<String>>,
    /// How `message.to_addr` is written in the templates of the request, by the numbering plan of `numbersOf`. Default: as it
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers_as: Option<NumberForm>,
    /// Messages that are not sent: each is refused with a code of `codes`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub refuse: Option<Vec<RefusalRule>>,
    /// Names for values in an answer of XML, under `xml` in `outcomes`. Default: it is read as a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ShortText>>", extend("maxProperties" = 64))]
    pub xml: Option<BTreeMap<String, String>>,
    /// What an answer means: the first that is true counts. Default: status 200 to 299 is accepted, 401 and 403 are
    /// credentials, 429 is throttled, other 4xx are refused, and the rest is temporary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub outcomes: Option<Vec<OutcomeRule>>,
}

/// One reason not to send a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefusalRule {
    /// When it is so.
    #[schemars(with = "Template")]
    pub when: String,
    /// What it is called in `codes`.
    #[schemars(length(min = 1, max = 64))]
    pub code: String,
}

/// What an answer of the provider means for the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The provider has it.
    #[default]
    Accepted,
    /// It will never take it.
    Refused,
    /// It asks to slow down; tried again after `Retry-After`.
    Throttled,
    /// It failed and did not take it; tried again.
    Temporary,
    /// Our credentials are wrong; tried again.
    Credentials,
    /// It may or may not have it; `onUnknown` decides.
    Unknown,
}

/// One meaning of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutcomeRule {
    /// When it is so. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub when: Option<String>,
    /// What it means.
    pub is: Outcome,
    /// The provider's id of an accepted message. Default: our own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub id: Option<String>,
    /// The provider's code of any other, as `codes` has it. Default: the status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub code: Option<String>,
}
