//! Messages on the wire: Vumi's JSON bodies, kept whole at every hop.
//!
//! A message is its JSON object; the types here are views with typed accessors, so that fields nobody knows survive
//! (the format is described in the project's `docs/wire-protocol.md`).

mod event;
mod failure;
mod fate;
mod fields;
pub mod glance;
mod heartbeat;
mod ids;
mod scan;
mod status;
#[cfg(test)]
mod tests;
mod timestamp;
mod user;

pub use event::{DeliveryStatus, Event, EventType};
pub use failure::{FailureCode, FailureMessage};
pub use fate::{Actor, FailureClass, Fate, FateState};
pub use fields::{DecodeError, MAX_BODY, MAX_DEPTH, MESSAGE_VERSION};
pub use heartbeat::{HEARTBEAT_KEY, HEARTBEAT_VERSION, Heartbeat};
pub use ids::{derived_id, event_id, random_id, reply_id};
pub use status::TransportStatus;
pub use timestamp::Timestamp;
pub use user::{SessionEvent, UserMessage};

use bytes::Bytes;

/// A message of one of the three data flows.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Content from or to a user.
    User(UserMessage),
    /// Something that happened to an outbound user message.
    Event(Event),
}

impl Message {
    /// Decodes the body of a message of `flow`. Size, depth and UTF-8 are checked before anything is built.
    pub fn decode(flow: vumi_api::Flow, body: &[u8]) -> Result<Self, DecodeError> {
        match flow {
            vumi_api::Flow::Inbound | vumi_api::Flow::Outbound => {
                UserMessage::decode(body).map(Message::User)
            }
            vumi_api::Flow::Event => Event::decode(body).map(Message::Event),
        }
    }

    /// The body: one JSON object, ASCII only as both Vumi generations write it.
    pub fn encode(&self) -> Bytes {
        match self {
            Message::User(m) => m.encode(),
            Message::Event(m) => m.encode(),
        }
    }

    /// `message_id` of a user message, `event_id` of an event; empty if the peer sent none.
    pub fn id(&self) -> &str {
        match self {
            Message::User(m) => m.message_id(),
            Message::Event(m) => m.event_id(),
        }
    }

    /// The endpoint in `routing_metadata`; `default` when absent or null.
    pub fn endpoint(&self) -> &str {
        match self {
            Message::User(m) => m.endpoint(),
            Message::Event(m) => m.endpoint(),
        }
    }

    /// Sets the endpoint; other keys of `routing_metadata` stay.
    pub fn set_endpoint(&mut self, endpoint: &str) {
        match self {
            Message::User(m) => m.set_endpoint(endpoint),
            Message::Event(m) => m.set_endpoint(endpoint),
        }
    }

    /// `transport_name`, if there is one.
    pub fn transport_name(&self) -> Option<&str> {
        match self {
            Message::User(m) => m.transport_name(),
            Message::Event(m) => m.transport_name(),
        }
    }

    /// Sets `transport_name`.
    pub fn set_transport_name(&mut self, name: &str) {
        match self {
            Message::User(m) => m.set_transport_name(name),
            Message::Event(m) => m.set_transport_name(name),
        }
    }
}

impl From<UserMessage> for Message {
    fn from(message: UserMessage) -> Self {
        Message::User(message)
    }
}

impl From<Event> for Message {
    fn from(event: Event) -> Self {
        Message::Event(event)
    }
}
