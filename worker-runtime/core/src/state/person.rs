//! A person, as far as a store knows one: by the address in its one form, however it is written. The one place where
//! addresses are compared: stores, lanes, listings, erasures and questions all come here.

use crate::numbers::{self, LONGEST};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A stable number for what is kept in order together: the same in every process and version, since queues and stored
/// lanes are named after it. Two keys with one number share a lane, which costs time and no order.
pub(crate) fn lane_number(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

/// Why a text is the address of nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// Nothing in it names anybody.
    #[error("an address has digits or letters; write e.g. +27820000001")]
    Empty,
    /// A plus sign with more digits than any number has.
    #[error("a phone number has at most 15 digits")]
    TooLong,
    /// A plus sign with something else than a number.
    #[error(
        "what begins with + is a phone number: digits, and spaces, dashes, dots or brackets between them"
    )]
    NoNumber,
}

/// A person's address, normalised. Shown as its key only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Person {
    address: String,
}

impl Person {
    /// The person behind an address of a message: MSISDN, JID, …
    pub fn new(address: &str) -> Self {
        Self {
            address: numbers::by_form(address).into_owned(),
        }
    }

    /// The person that somebody means.
    ///
    /// # Errors
    /// The text is no address.
    pub fn parse(text: &str) -> Result<Self, NoAddress> {
        let person = Self::new(text);
        if !person.address.contains(char::is_alphanumeric) {
            return Err(NoAddress::Empty);
        }
        if let Some(number) = text.trim().strip_prefix('+') {
            let figures = number.bytes().filter(u8::is_ascii_digit).count();
            if figures > LONGEST && !number.contains(char::is_alphabetic) {
                return Err(NoAddress::TooLong);
            }
            if !person.address.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NoAddress::NoNumber);
            }
        }
        Ok(person)
    }

    /// Everybody under whose key something of this person may be kept: this person, and whoever had the address as it is
    /// written before numbers were normalised as they are now.
    pub fn forms(written: &str) -> Vec<Self> {
        let person = Self::new(written);
        let before = Self {
            address: numbers::without_plus(written.trim()).to_owned(),
        };
        match before == person {
            true => vec![person],
            false => vec![person, before],
        }
    }

    /// The address, a phone number as digits alone.
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
        numbers::by_form(address) == self.address
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
    fn what_names_nobody_is_refused() {
        for (text, refused) in [
            ("+", NoAddress::Empty),
            (" - ", NoAddress::Empty),
            ("", NoAddress::Empty),
            ("+278212345671234567", NoAddress::TooLong),
            ("+27 82 123 4567 1234 567", NoAddress::TooLong),
            ("+27 82 O23 4567", NoAddress::NoNumber),
            ("+12 3", NoAddress::NoNumber),
        ] {
            assert_eq!(Person::parse(text), Err(refused), "{text}");
        }
        for text in ["+27 82 123 4567", "80110", "a@b.c", "*120#", "Ünal"] {
            assert!(Person::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_was_kept_under_the_address_as_written_stays_in_reach() {
        let keys = |written| {
            Person::forms(written)
                .iter()
                .map(Person::key)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys("+27821234567").len(), 1);
        let spaced = keys("+27 82 123 4567");
        assert_eq!(spaced[0], Person::new("27821234567").key());
        assert_eq!(
            spaced[1],
            format!("{:032x}", xxh3_128(b"27 82 123 4567")),
            "as versions before wrote it"
        );
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
