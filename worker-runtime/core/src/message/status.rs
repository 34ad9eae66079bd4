//! Status messages: the health of one component of a transport (`message_type` `status_event`). They carry neither id
//! nor transport name: the routing key `<name>.status.status` says whose they are.

use super::Timestamp;
use super::fields::{DecodeError, Fields, MESSAGE_VERSION};
use crate::status::{StatusLevel, StatusReport};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// A status message: its JSON object with typed access. Fields nobody knows are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportStatus(Fields);

impl TransportStatus {
    /// A report as it travels, with the time of now.
    pub fn new(report: &StatusReport) -> Self {
        let mut fields = Fields::default();
        fields.set("message_version", MESSAGE_VERSION);
        fields.set("message_type", "status_event");
        fields.set("timestamp", Timestamp::now().to_string());
        fields.set("component", report.component.as_str());
        fields.set("status", report.level.as_str());
        fields.set("type", report.reason.as_str());
        fields.set("message", report.message.as_str());
        fields.set("reasons", json!([]));
        fields.set("details", json!({}));
        fields.set("helper_metadata", json!({}));
        fields.set("routing_metadata", json!({}));
        Self(fields)
    }

    /// Routing key on the exchange `vumi` for the worker that owns connector `name`.
    pub fn routing_key(name: &str) -> String {
        format!("{name}.status.status")
    }

    /// Decodes and validates a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let fields = Fields::parse(body)?;
        fields.check_common()?;
        for key in ["timestamp", "component", "type", "message"] {
            fields.require(key)?;
        }
        fields.require_one_of("status", &["ok", "degraded", "down"])?;
        Ok(Self(fields))
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// What the message says.
    pub fn report(&self) -> StatusReport {
        let text = |key| self.0.text(key).unwrap_or_default();
        let level = match text("status") {
            "ok" => StatusLevel::Ok,
            "degraded" => StatusLevel::Degraded,
            _ => StatusLevel::Down,
        };
        StatusReport {
            component: text("component").to_owned(),
            level,
            reason: text("type").to_owned(),
            message: text("message").to_owned(),
        }
    }

    /// `details` for writing: facts for machines, never secrets or contents.
    pub fn details_mut(&mut self) -> &mut Map<String, Value> {
        self.0.object_mut("details")
    }

    /// Any field.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}
