//! User messages: content from or to a user (`message_type` `user_message`).

use super::fields::{DecodeError, Fields, MESSAGE_VERSION};
use super::{Timestamp, derived_id, random_id};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Where a message stands in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// First message of a session; content is often null.
    New,
    /// Further input in a session.
    Resume,
    /// Inbound: the session has ended, do not reply. Outbound: deliver, then end the session.
    Close,
}

impl SessionEvent {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionEvent::New => "new",
            SessionEvent::Resume => "resume",
            SessionEvent::Close => "close",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "new" => Some(SessionEvent::New),
            "resume" => Some(SessionEvent::Resume),
            "close" => Some(SessionEvent::Close),
            _ => None,
        }
    }
}

/// Fields that are text or null, and never absent.
const TEXTS: [&str; 7] = [
    "message_id",
    "to_addr",
    "from_addr",
    "in_reply_to",
    "content",
    "transport_name",
    "transport_type",
];

/// What Vumi's failure worker counts in a message that it gives back: `{"retries": n, "delay": seconds}`.
const RETRIES: &str = "retry_metadata";

/// A user message: its JSON object with typed access. Fields nobody knows are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessage(pub(super) Fields);

impl UserMessage {
    /// A new message with every field of the format present. `message_id` random, `timestamp` now.
    pub fn new(transport_type: &str, to_addr: Option<&str>, from_addr: Option<&str>) -> Self {
        let mut fields = Fields::default();
        fields.set("message_version", MESSAGE_VERSION);
        fields.set("message_type", "user_message");
        fields.set("message_id", random_id());
        fields.set("timestamp", Timestamp::now().to_string());
        fields.set_text("to_addr", to_addr);
        fields.set_text("from_addr", from_addr);
        fields.set("content", Value::Null);
        fields.set("session_event", Value::Null);
        fields.set("in_reply_to", Value::Null);
        fields.set("group", Value::Null);
        fields.set("provider", Value::Null);
        fields.set("transport_name", Value::Null);
        fields.set("transport_type", transport_type);
        fields.set("transport_metadata", json!({}));
        fields.set("helper_metadata", json!({}));
        fields.set("routing_metadata", json!({}));
        fields.set("to_addr_type", Value::Null);
        fields.set("from_addr_type", Value::Null);
        Self(fields)
    }

    /// A message that answers none: sender, transport and its type are null until the caller or a dispatcher sets them.
    /// Vumi 2 refuses a null `transport_type`.
    pub fn send(to_addr: &str, content: Option<&str>) -> Self {
        let mut message = Self::new("", Some(to_addr), None);
        message.0.set_text("transport_type", None);
        message.0.set_text("content", content);
        message
    }

    /// Decodes and validates a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Self::check(Fields::parse(body)?)
    }

    /// Validates an object and fills in what older peers leave out.
    pub(super) fn check(mut fields: Fields) -> Result<Self, DecodeError> {
        fields.check_common()?;
        for key in ["timestamp", "transport_metadata"] {
            fields.require(key)?;
        }
        for key in TEXTS {
            fields.require(key)?;
            fields.text_or_null(key)?;
        }
        match fields.require("session_event")? {
            Value::Null => {}
            Value::String(text) if SessionEvent::parse(text).is_some() => {}
            _ => {
                return Err(DecodeError::Field {
                    field: "session_event",
                    problem: "is none of null, new, resume, close".into(),
                });
            }
        }
        for key in ["group", "provider", "to_addr_type", "from_addr_type"] {
            fields.fill(key, || Value::Null);
            fields.text_or_null(key)?;
        }
        for key in ["helper_metadata", "routing_metadata"] {
            fields.fill(key, || json!({}));
        }
        if fields.text("message_id").unwrap_or_default().is_empty() {
            // Derived, so that a redelivery gets the same one (R6): replies and events hang on it.
            let id = derived_id(&["body", &fields.to_value().to_string()]);
            fields.set("message_id", id);
        }
        Ok(Self(fields))
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// A reply to this message with the derived id of `worker`'s `index`-th output: addresses swapped, metadata,
    /// endpoint, group, provider and transport copied.
    pub fn reply(&self, worker: &str, index: usize, content: Option<&str>, close: bool) -> Self {
        let mut reply = Self::new(
            self.0.text("transport_type").unwrap_or_default(),
            self.from_addr(),
            self.to_addr(),
        );
        reply.set_message_id(&super::reply_id(self.message_id(), worker, index));
        reply.0.set_text("content", content);
        reply.0.set_text("in_reply_to", Some(self.message_id()));
        for key in ["group", "provider", "transport_name", "transport_type"] {
            reply.0.set_text(key, self.0.text(key));
        }
        for key in ["transport_metadata", "helper_metadata"] {
            if let Some(object) = self.0.object(key) {
                reply.0.set(key, object.clone());
            }
        }
        if close {
            reply.set_session_event(Some(SessionEvent::Close));
        }
        reply.set_endpoint(self.endpoint());
        reply
    }

    /// `message_id`; empty if null.
    pub fn message_id(&self) -> &str {
        self.0.text("message_id").unwrap_or_default()
    }

    /// Sets `message_id`.
    pub fn set_message_id(&mut self, id: &str) {
        self.0.set("message_id", id);
    }

    /// `in_reply_to`: id of the message answered.
    pub fn in_reply_to(&self) -> Option<&str> {
        self.0.text("in_reply_to")
    }

    /// `to_addr`.
    pub fn to_addr(&self) -> Option<&str> {
        self.0.text("to_addr")
    }

    /// Sets `to_addr`.
    pub fn set_to_addr(&mut self, addr: Option<&str>) {
        self.0.set_text("to_addr", addr);
    }

    /// `from_addr`.
    pub fn from_addr(&self) -> Option<&str> {
        self.0.text("from_addr")
    }

    /// Sets `from_addr`.
    pub fn set_from_addr(&mut self, addr: Option<&str>) {
        self.0.set_text("from_addr", addr);
    }

    /// `timestamp`; none if it is not in the format.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.0.text("timestamp")?.parse().ok()
    }

    /// `retry_metadata.retries`: how often Vumi's failure worker gave it back for another attempt. At most `u32::MAX`; 0 if
    /// it is no number.
    pub fn retries(&self) -> u32 {
        let metadata = self.0.object(RETRIES);
        let retries = metadata.and_then(|m| m.get("retries")?.as_f64());
        // A conversion from a float ends at the bounds.
        retries.map_or(0, |n| n as u32)
    }

    /// Has Vumi's failure worker count on from here.
    pub fn set_retries(&mut self, retries: u32) {
        let metadata = self.0.object_mut(RETRIES);
        metadata.insert("retries".into(), retries.into());
        metadata.entry("delay").or_insert_with(|| 0.into());
    }

    /// Its attempts begin anew: what Vumi's failure worker counted is taken out.
    pub fn forget_retries(&mut self) {
        self.0.remove(RETRIES);
    }

    /// `content`.
    pub fn content(&self) -> Option<&str> {
        self.0.text("content")
    }

    /// Sets `content`.
    pub fn set_content(&mut self, content: Option<&str>) {
        self.0.set_text("content", content);
    }

    /// `group`.
    pub fn group(&self) -> Option<&str> {
        self.0.text("group")
    }

    /// `transport_name`.
    pub fn transport_name(&self) -> Option<&str> {
        self.0.text("transport_name")
    }

    /// Sets `transport_name`.
    pub fn set_transport_name(&mut self, name: &str) {
        self.0.set("transport_name", name);
    }

    /// `transport_type`.
    pub fn transport_type(&self) -> Option<&str> {
        self.0.text("transport_type")
    }

    /// `session_event`.
    pub fn session_event(&self) -> Option<SessionEvent> {
        self.0.text("session_event").and_then(SessionEvent::parse)
    }

    /// Sets `session_event`.
    pub fn set_session_event(&mut self, event: Option<SessionEvent>) {
        self.0
            .set_text("session_event", event.map(SessionEvent::as_str));
    }

    /// Any field.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets any field.
    pub fn set_field(&mut self, key: &str, value: impl Into<Value>) {
        self.0.set(key, value);
    }

    /// `transport_metadata`, to be echoed in replies.
    pub fn transport_metadata(&self) -> Option<&Map<String, Value>> {
        self.0.object("transport_metadata")
    }

    /// `transport_metadata` for writing; made when absent.
    pub fn transport_metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.0.object_mut("transport_metadata")
    }

    /// `helper_metadata`: for middleware and dispatchers.
    pub fn helper_metadata(&self) -> Option<&Map<String, Value>> {
        self.0.object("helper_metadata")
    }

    /// `helper_metadata` for writing; made when absent.
    pub fn helper_metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.0.object_mut("helper_metadata")
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
