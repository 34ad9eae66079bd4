//! A person, as far as a store knows one: by a normalised address. The one place where addresses are compared: stores,
//! lanes, listings, erasures and questions all come here.
//!
//! A phone number is recognised by its form alone: no country's numbering plan is asked, since the same number only has to
//! come out the same however it is written. (A library of numbering plans would add megabytes to tell more.)

use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Fewest digits of a text with spaces, dashes, dots or brackets that is read as a phone number.
const SHORTEST: usize = 7;
/// Most digits of an international number (E.164).
const LONGEST: usize = 15;

/// One text for every way to write an address. `+27 82 123-4567`, `0027 (0)82 123 4567` and `27821234567` are one person.
/// What is no phone number stays as it is, without space around it.
pub(crate) fn normalised(address: &str) -> Cow<'_, str> {
    let bare = without_plus(address.trim());
    match digits(bare) {
        true => without_exit(bare).into(),
        false => number(address.trim()).map_or(bare.into(), Cow::from),
    }
}

fn digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_plus(address: &str) -> &str {
    match address.strip_prefix('+') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest,
        _ => address,
    }
}

/// An international number without the 00 that is dialled before it in most countries.
fn without_exit(number: &str) -> &str {
    match number.strip_prefix("00") {
        Some(rest) if !rest.starts_with('0') && (SHORTEST + 1..=LONGEST).contains(&rest.len()) => {
            rest
        }
        _ => number,
    }
}

/// The digits of a phone number that is written with more than digits; none if it is something else.
fn number(address: &str) -> Option<String> {
    // Two of them would be one number without their dots.
    if address.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    // A zero in brackets is dialled inside the country only.
    let abroad = address.starts_with('+') || address.starts_with("00");
    let address = match abroad {
        true => Cow::from(address.replacen("(0)", "", 1)),
        false => address.into(),
    };
    let mut plain = String::with_capacity(LONGEST + 2);
    for letter in address.strip_prefix('+').unwrap_or(&address).chars() {
        match letter {
            '0'..='9' => plain.push(letter),
            '-' | '.' | '/' | '(' | ')' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {}
            space if space.is_whitespace() => {}
            _ => return None,
        }
    }
    let number = without_exit(&plain);
    (SHORTEST..=LONGEST)
        .contains(&number.len())
        .then(|| number.to_owned())
}

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
            address: normalised(address).into_owned(),
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
            if !digits(&person.address) {
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
            address: without_plus(written.trim()).to_owned(),
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
    use proptest::prelude::*;

    #[test]
    fn one_person_has_one_key_and_hides_the_address() {
        let (a, b) = (Person::new("+27820001111"), Person::new(" 27820001111"));
        assert_eq!(a.key(), b.key());
        assert!(a.has("27820001111") && !a.has("27820001112"));
        assert!(!format!("{a:?}").contains("1111"));
    }

    #[test]
    fn a_number_is_one_person_however_it_is_written() {
        for written in [
            "27821234567",
            "+27821234567",
            " +27 82 123 4567 ",
            "+27-82-123-4567",
            "+27.82.123.4567",
            "+27 (82) 123/4567",
            "+27 (0)82 123 4567",
            "+27(0)821234567",
            "0027821234567",
            "00 27 82 123 4567",
            "0027 (0)82 123 4567",
            "27\u{a0}82\u{a0}123\u{2011}4567",
        ] {
            assert_eq!(normalised(written), "27821234567", "{written}");
        }
        assert_eq!(normalised("082 123 4567"), "0821234567", "no country");
        assert_eq!(normalised("(0)82 123 4567"), "0821234567");
    }

    #[test]
    fn what_is_no_number_stays_as_it_is() {
        for address in [
            "user@example.net/phone-2",
            "127.0.0.1",
            "127.0.0.1:4711",
            "12-34",
            "1234-5678-9012-3456",
            "*120*8864#",
            "00123",
            "0012345",
            "-",
            "",
        ] {
            assert_eq!(normalised(address), address);
        }
        assert_eq!(normalised("+123"), "123", "a short code");
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

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(address in "[+0-9 ().a-]{0,24}") {
            let once = normalised(&address).into_owned();
            prop_assert_eq!(normalised(&once), once.as_str());
        }

        #[test]
        fn punctuation_makes_nobody_another_person(
            number in "[1-9][0-9]{8,14}", seams in proptest::collection::vec((0usize..15, "[ .()-]"), 0..6)
        ) {
            let mut written = number.clone();
            for (at, seam) in seams {
                written.insert_str(at.min(written.len()), &seam);
            }
            prop_assume!(!written.contains("(0)") && written.parse::<Ipv4Addr>().is_err());
            let person = Person::new(&number);
            prop_assert!(person.has(&format!("+{written}")), "{}", written);
            prop_assert!(person.has(&format!("00{written}")), "{}", written);
            prop_assert!(person.has(&written), "{}", written);
        }
    }
}
