//! What may be shown of a body that may be anything: the id, and addresses as hashes. For listings of what was set aside
//! or waits.

use super::MAX_BODY;
use crate::logging::hashed_address;
use crate::state::Person;
use serde_json::{Map, Value};

/// Fields that hold a user's address.
const ADDRESSES: [&str; 2] = ["to_addr", "from_addr"];

/// A look at a body.
#[derive(Clone, Debug, Default)]
pub struct Glance(Map<String, Value>);

impl Glance {
    /// Looks at a body. Of one that is no JSON object, or too large, nothing is seen.
    pub fn of(body: &[u8]) -> Self {
        let whole = (body.len() <= MAX_BODY).then_some(body);
        let object = whole.and_then(|body| serde_json::from_slice(body).ok());
        Self(object.unwrap_or_default())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// `message_id` or `event_id`.
    pub fn id(&self) -> Option<String> {
        let id = self.text("message_id").or_else(|| self.text("event_id"));
        id.map(str::to_owned)
    }

    /// Hash of the recipient.
    pub fn to_addr(&self) -> Option<String> {
        self.text("to_addr").map(hashed_address)
    }

    /// Hash of the sender.
    pub fn from_addr(&self) -> Option<String> {
        self.text("from_addr").map(hashed_address)
    }

    /// Whether it is from or to a person.
    pub fn is_of(&self, person: &Person) -> bool {
        let mut addresses = ADDRESSES.iter().filter_map(|key| self.text(key));
        addresses.any(|address| person.has(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_hashes_are_seen_and_nothing_else() {
        let seen =
            Glance::of(br#"{"message_id": "m", "to_addr": "+27820001111", "content": "hi"}"#);
        assert_eq!(seen.id().as_deref(), Some("m"));
        assert!(seen.to_addr().is_some_and(|hash| !hash.contains("2782")));
        assert_eq!(seen.from_addr(), None);
        assert!(seen.is_of(&Person::new("27820001111")) && !seen.is_of(&Person::new("hi")));
        let event = Glance::of(br#"{"event_id": "e", "user_message_id": "m"}"#);
        assert_eq!(event.id().as_deref(), Some("e"));
        for nothing in [&b"[1]"[..], b"\xff", b""] {
            assert_eq!(Glance::of(nothing).id(), None);
        }
    }
}
