//! Events: what happened to an outbound user message (`message_type` `event`).

use super::fate::Fate;
use super::fields::{DecodeError, Fields, MESSAGE_VERSION};
use super::{Timestamp, event_id};
use bytes::Bytes;
use serde_json::{Value, json};

/// The closed list of event types; both Vumi generations refuse others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The peer accepted the message.
    Ack,
    /// The message was never accepted, and that is final.
    Nack,
    /// What became of an accepted message.
    DeliveryReport,
}

impl EventType {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Ack => "ack",
            EventType::Nack => "nack",
            EventType::DeliveryReport => "delivery_report",
        }
    }
}

/// The closed list of delivery statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// Not known yet.
    Pending,
    /// Final: not delivered.
    Failed,
    /// Final: delivered.
    Delivered,
}

impl DeliveryStatus {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryStatus::Pending => "pending",
            DeliveryStatus::Failed => "failed",
            DeliveryStatus::Delivered => "delivered",
        }
    }
}

/// An event: its JSON object with typed access. Fields nobody knows are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(pub(super) Fields);

impl Event {
    fn new(user_message_id: &str, event_type: EventType, remote_id: &str, state: &str) -> Self {
        let mut fields = Fields::default();
        fields.set("message_version", MESSAGE_VERSION);
        fields.set("message_type", "event");
        fields.set(
            "event_id",
            event_id(user_message_id, event_type.as_str(), remote_id, state),
        );
        fields.set("event_type", event_type.as_str());
        fields.set("user_message_id", user_message_id);
        fields.set("timestamp", Timestamp::now().to_string());
        fields.set("transport_name", Value::Null);
        fields.set("transport_metadata", json!({}));
        fields.set("helper_metadata", json!({}));
        fields.set("routing_metadata", json!({}));
        Self(fields)
    }

    /// The peer accepted the message as `sent_message_id`.
    pub fn ack(user_message_id: &str, sent_message_id: &str) -> Self {
        let mut event = Self::new(user_message_id, EventType::Ack, sent_message_id, "");
        event.0.set("sent_message_id", sent_message_id);
        event
    }

    /// The message will never be accepted. The fate says why; `nack_reason` is "class: sentence".
    pub fn nack(user_message_id: &str, fate: &Fate) -> Self {
        let mut event = Self::new(user_message_id, EventType::Nack, "", "");
        event
            .0
            .set("nack_reason", format!("{}: {}", fate.class, fate.text));
        event.set_fate(fate);
        event
    }

    /// What became of an accepted message.
    pub fn delivery_report(user_message_id: &str, remote_id: &str, status: DeliveryStatus) -> Self {
        let mut event = Self::new(
            user_message_id,
            EventType::DeliveryReport,
            remote_id,
            status.as_str(),
        );
        event.0.set("delivery_status", status.as_str());
        event
    }

    /// Decodes and validates a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::parse(body)?;
        fields.check_common()?;
        for key in ["timestamp", "event_id", "user_message_id"] {
            fields.require(key)?;
        }
        fields.require_one_of("event_type", &["ack", "nack", "delivery_report"])?;
        match fields.text("event_type") {
            Some("ack") => fields.require_value("sent_message_id")?,
            Some("nack") => fields.require_value("nack_reason")?,
            _ => fields.require_one_of("delivery_status", &["pending", "failed", "delivered"])?,
        }
        for key in ["event_id", "user_message_id", "transport_name"] {
            fields.text_or_null(key)?;
        }
        Ok(Self(fields))
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// `event_id`.
    pub fn event_id(&self) -> &str {
        self.0.text("event_id").unwrap_or_default()
    }

    /// The type of event.
    pub fn event_type(&self) -> EventType {
        match self.0.text("event_type") {
            Some("ack") => EventType::Ack,
            Some("nack") => EventType::Nack,
            _ => EventType::DeliveryReport,
        }
    }

    /// Id of the user message; empty if null.
    pub fn user_message_id(&self) -> &str {
        self.0.text("user_message_id").unwrap_or_default()
    }

    /// Id of the message at the peer, in an ack.
    pub fn sent_message_id(&self) -> Option<&str> {
        self.0.text("sent_message_id")
    }

    /// Why the message was refused, in a nack.
    pub fn nack_reason(&self) -> Option<&str> {
        self.0.text("nack_reason")
    }

    /// What became of the message, in a delivery report.
    pub fn delivery_status(&self) -> Option<DeliveryStatus> {
        match self.0.text("delivery_status")? {
            "pending" => Some(DeliveryStatus::Pending),
            "failed" => Some(DeliveryStatus::Failed),
            "delivered" => Some(DeliveryStatus::Delivered),
            _ => None,
        }
    }

    /// `timestamp`; none if it is not in the format.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.0.text("timestamp")?.parse().ok()
    }

    /// `transport_name`, if there is one.
    pub fn transport_name(&self) -> Option<&str> {
        self.0.text("transport_name")
    }

    /// Sets `transport_name`.
    pub fn set_transport_name(&mut self, name: &str) {
        self.0.set("transport_name", name);
    }

    /// Any field.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets any field.
    pub fn set_field(&mut self, key: &str, value: impl Into<Value>) {
        self.0.set(key, value);
    }

    /// Writes `helper_metadata.fate` (R11).
    pub fn set_fate(&mut self, fate: &Fate) {
        let value = serde_json::to_value(fate).unwrap_or(Value::Null);
        self.0
            .object_mut("helper_metadata")
            .insert("fate".into(), value);
    }

    /// Reads `helper_metadata.fate`, if there is one.
    pub fn fate(&self) -> Option<Fate> {
        let value = self.0.object("helper_metadata")?.get("fate")?;
        serde_json::from_value(value.clone()).ok()
    }

    /// The endpoint; `default` when absent or null.
    pub fn endpoint(&self) -> &str {
        self.0.endpoint()
    }

    /// Sets the endpoint.
    pub fn set_endpoint(&mut self, endpoint: &str) {
        self.0.set_endpoint(endpoint);
    }
}
