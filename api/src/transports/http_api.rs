//! What it is: a small HTTP API through which other programs post messages and, if asked, wait for the reply.
//!
//! Provider's specification: none; the request fields are those of Vumi's HTTP API transport.
//!
//! Statuses: `listener` ok while the port is open; `response` ok, degraded or down by the time replies take.
//!
//! Limits: without `replyExpected`, outbound messages have nowhere to go and are answered with a nack event.
//!
//! Codes: `listen.failed`, `message.invalid`, `message.too_large`, `reply.not_expected`, `reply.missing_fields`,
//! `reply.holder_gone`, `reply.session_closed`, `broker.unreachable`, `secret.missing`.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::shared::shapes::ShortText;
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Message fields that are not text or not a caller's to say.
const RESERVED: [&str; 8] = [
    "message_version",
    "message_type",
    "timestamp",
    "transport_name",
    "in_reply_to",
    "transport_metadata",
    "helper_metadata",
    "routing_metadata",
];
/// What `session_event` of a request may be.
const SESSION_EVENTS: [&str; 3] = ["new", "resume", "close"];

/// Messages in by HTTP GET, POST or PUT; the reply, if expected, is the response body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpApi {
    /// Hold each request until the application replies, and answer with the reply. Without it, a request is
    /// answered at once with the message id. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_expected: Option<bool>,
    /// Request fields that callers may set. Default `content, to_addr, from_addr, group, session_event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    pub allowed_fields: Option<Vec<String>>,
    /// Message fields set when the caller does not set them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ShortText>>", extend("maxProperties" = 32))]
    pub field_defaults: Option<BTreeMap<String, String>>,
    /// Request field that holds the caller's own id of the message. A repeated request with the same id yields the
    /// same `message_id`. Default: callers give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub id_field: Option<String>,
}

impl WorkerConfig for HttpApi {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "httpApi";
    const ORDERING: OrderingMode = OrderingMode::None;
    const NEEDS: &'static [&'static str] = &["http"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.http_api.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        let mut t = Topology::transport(resource.transport_name());
        if let Some(http) = resource.transport().and_then(|t| t.http.as_ref()) {
            let host = http.host.clone().unwrap_or_else(|| "0.0.0.0".into());
            t.listens.push((host, http.port));
        }
        t.holds_requests = self.reply_expected.unwrap_or(false);
        t
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        let refused = |name: &str| RESERVED.contains(&name);
        let mut findings = Vec::new();
        let mut refuse = |path: String, sentence: String| {
            findings.push((format!("httpApi.{path}"), sentence));
        };
        for (index, name) in self.allowed_fields.iter().flatten().enumerate() {
            if refused(name) {
                let sentence = format!("{name} is set by the transport itself; remove it here");
                refuse(format!("allowedFields[{index}]"), sentence);
            }
        }
        for name in self.field_defaults.iter().flat_map(BTreeMap::keys) {
            let sentence = match name.as_str() {
                "message_id" => "every message needs an id of its own; remove it here".to_owned(),
                _ if refused(name) => {
                    format!("{name} is set by the transport itself; remove it here")
                }
                _ => continue,
            };
            refuse(format!("fieldDefaults.{name}"), sentence);
        }
        let defaults = self.field_defaults.as_ref();
        if let Some(event) = defaults.and_then(|d| d.get("session_event"))
            && !SESSION_EVENTS.contains(&event.as_str())
        {
            let sentence = format!("{event:?} is not one of {}", SESSION_EVENTS.join(", "));
            refuse("fieldDefaults.session_event".into(), sentence);
        }
        findings
    }
}
