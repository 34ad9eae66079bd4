//! Sessions of users with a network, and how long the network waits.

use super::{Answer, TemplateMap};
use crate::shared::shapes::{Deadline, Template};
use crate::shared::{Duration, HttpListener};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a user who dials again after the deadline is to the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Redial {
    /// A new session: `session_event` is `new`.
    #[default]
    Restart,
    /// The session that was cut off: `session_event` is `resume`, the content null, and `helper_metadata.redial` true; no
    /// message at all where the late reply is the answer.
    Resume,
}

/// Sessions of users with the network. They are kept in the state store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionRule {
    /// Id of the session, in every request that carries a message.
    #[schemars(with = "Template")]
    pub id: String,
    /// Whether a request begins a session. Default: one does whose session is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub begins: Option<String>,
    /// What is kept of the first request, for later ones, under `session`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub store: Option<BTreeMap<String, String>>,
    /// How long a session lives, from its beginning. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub keep: Option<Duration>,
    /// Whether a session outlives a reply that closes it, as in Vumi. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_closed: Option<bool>,
    /// The answer to a request whose session is not known, where it does not begin one. Default: status 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Answer>,
    /// What becomes of a session that the deadline cut off. With `resume`, a reply that came too late is kept, and is the
    /// answer to a user who dials the same `toAddr` again, until it was read. Default `restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redial: Option<Redial>,
    /// For how long after the deadline a user who dials the same service again is taken for the same. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub redial_within: Option<Duration>,
}

/// How long the network waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadlineRule {
    /// When the user is answered without the application, from the request on: before the network gives up.
    #[schemars(with = "Deadline")]
    pub after: Duration,
    /// What the user reads then; the network session ends with it. A reply that comes later ends as
    /// `reply.session_closed`.
    #[schemars(length(min = 1, max = 1024))]
    pub text: String,
}

impl DeadlineRule {
    /// Why it never comes, if it does not come before the request's own end.
    pub(crate) fn too_late(&self, http: Option<&HttpListener>) -> Option<String> {
        let waits = http.and_then(|http| http.request_timeout);
        let waits = waits.map_or(std::time::Duration::from_secs(240), |d| d.0);
        let sentence = "must be shorter than http.requestTimeout";
        (self.after.0 >= waits).then(|| sentence.to_owned())
    }
}
