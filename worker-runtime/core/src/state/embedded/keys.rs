//! The layout of the embedded store: every kind of key, in one place. A key is a tag, then names (each after its length)
//! and numbers (big endian), so that all keys of one name are a range.

use crate::codes;
use crate::error::{ErrorClass, WorkError};

/// Layout of a folder; another one is refused.
pub(super) const FORMAT: u8 = 1;

/// Longest name: a queue, a user's address, a provider's id. Keys may have 64 KiB, and four names are the most in one.
const LONGEST_NAME: usize = 4096;

/// First byte of a key. What follows it is said in the words of the functions below.
pub(super) mod tag {
    /// The format's number.
    pub const FORMAT: u8 = b'f';
    /// Nothing: what fills a log, and is removed.
    pub const FILLER: u8 = b'0';
    /// The next id of a journal's entry.
    pub const NEXT_ID: u8 = b'n';
    /// queue, group → messages, lanes.
    pub const GROUP: u8 = b'g';
    /// queue, group, lane → head, due, claimed until.
    pub const LANE: u8 = b'l';
    /// queue, group, time, lane: when a lane may be claimed.
    pub const DUE: u8 = b'd';
    /// queue, group, lane, id → the entry.
    pub const ENTRY: u8 = b'e';
    /// queue, id → until when somebody ends it, why, the entry.
    pub const OUTGOING: u8 = b'v';
    /// message id → the row, after the time at which it may go.
    pub const ROW: u8 = b'r';
    /// message id → the trail.
    pub const TRAIL: u8 = b't';
    /// account, state → how many rows.
    pub const COUNT: u8 = b'c';
    /// account, batch, state → how many rows.
    pub const BATCH: u8 = b'h';
    /// account, batch → the order in force.
    pub const ORDER: u8 = b'z';
    /// account, state, born, message id.
    pub const STATE: u8 = b's';
    /// account, deadline, message id.
    pub const DEADLINE: u8 = b'o';
    /// The same of rows that are left to a person.
    pub const ALARM: u8 = b'j';
    /// account, the provider's id, message id.
    pub const REMOTE: u8 = b'i';
    /// person, time, message id, [`ROW`] or [`TRAIL`].
    pub const PERSON: u8 = b'p';
    /// time, message id, [`ROW`] or [`TRAIL`].
    pub const BORN: u8 = b'b';
    /// scope, user → the session, after its end.
    pub const SESSION: u8 = b'u';
    /// scope, the provider's id → end, place in the order, person, answer.
    pub const SEEN: u8 = b'a';
    /// scope, place in the order → the provider's id.
    pub const SEEN_ORDER: u8 = b'q';
    /// scope → how many are committed, place of the oldest, next place.
    pub const SEEN_SCOPE: u8 = b'w';
    /// key → the bucket.
    pub const BUCKET: u8 = b'k';
    /// queue, message → count, end.
    pub const SUSPECT: u8 = b'y';
    /// time, key: what may have to go then.
    pub const EXPIRY: u8 = b'x';
}

/// A key being put together.
#[derive(Clone)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn new(tag: u8) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(tag);
        Self(bytes)
    }

    /// Lengths were checked by [`fits`].
    pub(super) fn name(mut self, name: &str) -> Self {
        self.0.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(super) fn rest(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// As bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    /// The first key behind all that begin with this one.
    pub(super) fn end(&self) -> Vec<u8> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        end
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a key from its front.
pub(super) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// Behind the tag.
    pub(super) fn of(key: &'a [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    pub(super) fn name(&mut self) -> Option<&'a str> {
        let (length, rest) = self.0.split_at_checked(2)?;
        let length = u16::from_be_bytes(length.try_into().ok()?);
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(8)?;
        self.0 = rest;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }
}

/// A value of some numbers.
pub(super) fn pack<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// Reads what [`pack`] wrote.
pub(super) fn unpack<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let (chunks, rest) = value.as_chunks::<8>();
    if chunks.len() != N || !rest.is_empty() {
        return None;
    }
    for (number, chunk) in numbers.iter_mut().zip(chunks) {
        *number = u64::from_be_bytes(*chunk);
    }
    Some(numbers)
}

/// Refuses names that are no names.
pub(super) fn fits<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), WorkError> {
    for name in names {
        if name.len() > LONGEST_NAME {
            return Err(WorkError::new(
                ErrorClass::BadInput,
                codes::MESSAGE_INVALID,
                format!(
                    "a name of {} bytes is too long for the state store; {LONGEST_NAME} are allowed",
                    name.len()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_end_behind_all_of_their_name() {
        let key = Key::new(tag::LANE).name("sms.outbound").name("").number(7);
        let bytes = key.clone().byte(3).bytes();
        let mut parts = Parts::of(&bytes);
        assert_eq!(parts.name(), Some("sms.outbound"));
        assert_eq!(parts.name(), Some(""));
        assert_eq!(parts.number(), Some(7));
        assert_eq!(parts.byte(), Some(3));
        assert_eq!(parts.number(), None);
        let end = key.end();
        assert!(bytes < end && key.clone().number(u64::MAX).bytes() < end);
        assert!(
            end < Key::new(tag::LANE)
                .name("sms.outbound")
                .name("")
                .number(9)
                .bytes()
        );
        assert_eq!(Key::new(1).number(u64::MAX).end(), [2]);
        assert_eq!(unpack(&pack([1, u64::MAX])), Some([1, u64::MAX]));
        assert_eq!(unpack::<1>(&[0; 9]), None);
    }
}
