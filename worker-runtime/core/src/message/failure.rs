//! Failure messages: an outbound message that a transport could not send (`message_type` `failure_message`). Written to
//! `<name>.failures` only where a Vumi failure worker is still in use (R12).

use super::fields::{DecodeError, Fields, MESSAGE_VERSION};
use super::{Timestamp, UserMessage};
use bytes::Bytes;
use serde_json::{Value, json};

/// Whether Vumi's failure worker tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    /// It only stores the message.
    Permanent,
    /// It publishes the message again later. Only with `retry.external`: else both sides retry and send twice.
    Temporary,
}

impl FailureCode {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureCode::Permanent => "permanent",
            FailureCode::Temporary => "temporary",
        }
    }
}

/// A failure message: its JSON object with typed access. Fields nobody knows are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureMessage(Fields);

impl FailureMessage {
    /// `message` failed; `reason` is for people.
    pub fn new(message: &UserMessage, code: FailureCode, reason: &str) -> Self {
        let mut fields = Fields::default();
        fields.set("message_version", MESSAGE_VERSION);
        fields.set("message_type", "failure_message");
        fields.set("timestamp", Timestamp::now().to_string());
        fields.set("message", message.0.to_value());
        fields.set("failure_code", code.as_str());
        fields.set("reason", reason);
        fields.set("helper_metadata", json!({}));
        fields.set("routing_metadata", json!({}));
        Self(fields)
    }

    /// Routing key on the exchange `vumi` for the transport `name`.
    pub fn routing_key(name: &str) -> String {
        format!("{name}.failures")
    }

    /// Decodes and validates a body, the failed message included.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let fields = Fields::parse(body)?;
        fields.check_common()?;
        for key in ["timestamp", "failure_code", "reason"] {
            fields.require(key)?;
        }
        match fields.require("message")? {
            Value::Object(map) => UserMessage::check(Fields::from(map.clone()))?,
            other => {
                return Err(DecodeError::Field {
                    field: "message",
                    problem: format!("must be an object, is {}", super::fields::json_type(other)),
                });
            }
        };
        Ok(Self(fields))
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// The message that failed.
    pub fn message(&self) -> Option<UserMessage> {
        UserMessage::check(Fields::from(self.0.object("message")?.clone())).ok()
    }

    /// What Vumi's failure worker does with it; any unknown code counts as permanent, as there.
    pub fn code(&self) -> FailureCode {
        match self.0.text("failure_code") {
            Some("temporary") => FailureCode::Temporary,
            _ => FailureCode::Permanent,
        }
    }

    /// Why it failed.
    pub fn reason(&self) -> &str {
        self.0.text("reason").unwrap_or_default()
    }

    /// Any field.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}
