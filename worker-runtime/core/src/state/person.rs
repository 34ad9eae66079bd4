//! A person, as far as a store knows one: by a normalised address.

use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// `+27 82…` and `2782…` are one person.
pub(crate) fn normalised(address: &str) -> &str {
    let address = address.trim();
    match address.strip_prefix('+') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => address,
    }
}

/// A stable number for what is kept in order together: the same in every process and version, since queues and stored
/// lanes are named after it. Two keys with one number share a lane, which costs time and no order.
pub(crate) fn lane_number(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// A person's address, normalised. Shown as its key only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Person {
    address: String,
}

impl Person {
    /// The person behind an address: MSISDN, JID, …
    pub fn new(address: &str) -> Self {
        Self {
            address: normalised(address).to_owned(),
        }
    }

    /// The address, without a leading plus sign.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Under which stores find what is kept of this person: 32 hex digits, the same everywhere.
    pub fn key(&self) -> String {
        format!("{:032x}", xxh3_128(self.address.as_bytes()))
    }

    /// Number of this person's lane in queues with order per user.
    pub fn lane(&self) -> u64 {
        lane_number(&self.address)
    }

    /// Whether an address is this person's.
    pub fn has(&self, address: &str) -> bool {
        normalised(address) == self.address
    }

    /// Whether a session is this person's, which is kept under the address or, where others refer to it, the key.
    pub(super) fn owns(&self, user: &str) -> bool {
        self.has(user) || user == self.key()
    }

    /// Whether a message is from or for this person, or tells of one of these messages. What is no message is nobody's.
    pub(super) fn is_in(&self, body: &[u8], messages: &HashSet<String>) -> bool {
        let Ok(message) = serde_json::from_slice::<Value>(body) else {
            return false;
        };
        let texts =
            |fields: [&str; 2]| fields.map(|field| message.get(field).and_then(Value::as_str));
        let addresses = texts(["from_addr", "to_addr"]);
        let ids = texts(["message_id", "user_message_id"]);
        addresses
            .into_iter()
            .flatten()
            .any(|address| self.has(address))
            || ids.into_iter().flatten().any(|id| messages.contains(id))
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Person({})", self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_has_one_key_and_hides_the_address() {
        let (a, b) = (Person::new("+27820001111"), Person::new(" 27820001111"));
        assert_eq!(a.key(), b.key());
        assert!(a.has("27820001111") && !a.has("27820001112"));
        assert!(!format!("{a:?}").contains("1111"));
    }

    #[test]
    fn numbers_are_the_same_in_every_version() {
        assert_eq!(lane_number("27820001111"), 5_534_998_338_100_490_280);
        assert_eq!(
            Person::new("27820001111").key(),
            "d4c8d881cfcc5dfbf84a73f77f8eaea6"
        );
    }
}
