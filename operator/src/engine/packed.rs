//! Text that is kept and seldom read, packed. Thousands of objects of one kind differ in a few words: each is written as what
//! it has else than one of them (LZ4 with a dictionary).

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Longer ones are packed like all, and are no pattern for others: in bytes.
const LONGEST_PATTERN: usize = 16 * 1024;

/// A packed text.
#[derive(Debug)]
pub struct Packed {
    pattern: Arc<[u8]>,
    bytes: Box<[u8]>,
}

impl Packed {
    /// The text. Empty if it cannot be read, which would be a bug: it is in memory only.
    pub fn text(&self) -> String {
        let text = decompress_size_prepended_with_dict(&self.bytes, &self.pattern);
        debug_assert!(text.is_ok(), "{text:?}");
        String::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }
}

/// Packs texts, by sorts of which all are alike.
#[derive(Debug, Default)]
pub struct Packer {
    patterns: Mutex<HashMap<&'static str, Arc<[u8]>>>,
}

impl Packer {
    /// Packs a text of that sort.
    pub fn pack(&self, sort: &'static str, text: &str) -> Packed {
        let pattern = self.pattern(sort, text);
        let bytes = compress_prepend_size_with_dict(text.as_bytes(), &pattern);
        Packed {
            pattern,
            bytes: bytes.into(),
        }
    }

    /// What the text is written by: the first one of its sort, until one comes that has much more in it.
    fn pattern(&self, sort: &'static str, text: &str) -> Arc<[u8]> {
        let mut patterns = self.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let pattern = patterns.entry(sort).or_default();
        if text.len() > pattern.len() * 5 / 4 && text.len() <= LONGEST_PATTERN {
            *pattern = text.as_bytes().into();
        }
        Arc::clone(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_a_few_words_takes_little_and_comes_back() {
        let packer = Packer::default();
        let text = |number: usize| {
            let fields =
                (0..100).map(|field| format!("\"field-{field}\": \"value-{}\", ", field * 7));
            format!(
                "{{{} \"name\": \"echo-{number}\"}}",
                fields.collect::<String>()
            )
        };
        let packed: Vec<Packed> = (0..50)
            .map(|number| packer.pack("a", &text(number)))
            .collect();
        for (number, packed) in packed.iter().enumerate() {
            assert_eq!(packed.text(), text(number));
            assert!(packed.bytes.len() < 100, "{}", packed.bytes.len());
        }
    }

    #[test]
    fn a_fuller_one_is_the_pattern_from_then_on() {
        let packer = Packer::default();
        let (short, long) = (
            "{\"spec\": 1}",
            format!("{{\"status\": \"{}\"}}", "abc".repeat(50)),
        );
        let before = packer.pack("a", short);
        let first = packer.pack("a", &long);
        let second = packer.pack("a", &long);
        assert!(second.bytes.len() < first.bytes.len() || second.bytes.len() < 20);
        assert_eq!(
            (before.text(), first.text()),
            (short.to_owned(), long.clone())
        );
        assert_eq!(second.text(), long);
    }

    #[test]
    fn empty_and_huge_ones_come_back() {
        let packer = Packer::default();
        let huge = "0123456789".repeat(100_000);
        for text in ["", "x", &huge, "after it", "ünïcode — 漢字"] {
            assert_eq!(packer.pack("a", text).text(), text);
        }
    }
}
