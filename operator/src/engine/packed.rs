//! Text that is kept and seldom read, packed. Thousands of objects of one kind differ in a few words: each is written as what it has
//! else than those before it (LZ4 with a dictionary).

use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of all that texts of one sort are written by: some ten pod templates that are not alike.
const MOST: usize = 32 * 1024;
/// Shorter ones are not worth to be written by.
const LEAST: usize = 200;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sort {
    /// `spec` and `status` of an object of this kind.
    Body(&'static str),
    /// Which fields of such an object are ours.
    Fields(&'static str),
}

/// A packed text. It keeps the pattern alive that it is written by.
pub struct Packed {
    pattern: Arc<[u8]>,
    bytes: Box<[u8]>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packed bytes", self.bytes.len())
    }
}

impl Packed {
    fn by(pattern: Arc<[u8]>, text: &str) -> Self {
        let bytes = compress_prepend_size_with_dict(text.as_bytes(), &pattern).into();
        Self { pattern, bytes }
    }

    /// The text.
    pub fn text(&self) -> String {
        let bytes = decompress_size_prepended_with_dict(&self.bytes, &self.pattern);
        match bytes.map(String::from_utf8) {
            Ok(Ok(text)) => text,
            // It was a text, and has never left the memory.
            damaged => {
                tracing::error!(?damaged, "what was packed cannot be read: this is a bug");
                String::new()
            }
        }
    }
}

/// Packs texts.
#[derive(Debug, Default)]
pub struct Packer {
    patterns: Mutex<HashMap<Sort, Arc<[u8]>>>,
}

impl Packer {
    /// Packs a text. One that is not like those of its sort before it is a pattern for those after it.
    pub fn pack(&self, sort: Sort, text: &str) -> Packed {
        let packed = Packed::by(self.pattern(sort, ""), text);
        let is_unlike = packed.bytes.len() * 3 > text.len() && text.len() >= LEAST;
        match is_unlike && packed.pattern.len() + text.len() <= MOST {
            true => Packed::by(self.pattern(sort, text), text),
            false => packed,
        }
    }

    /// What texts of a sort are written by from now on: what it was, and this.
    fn pattern(&self, sort: Sort, more: &str) -> Arc<[u8]> {
        let patterns = self.patterns.lock();
        let mut patterns = patterns.unwrap_or_else(PoisonError::into_inner);
        let pattern = patterns.entry(sort).or_default();
        if !more.is_empty() {
            *pattern = [pattern, more.as_bytes()].concat().into();
        }
        Arc::clone(pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SORT: Sort = Sort::Body("Pod");

    /// One of some shapes, with a name.
    fn text(shape: usize, name: usize) -> String {
        let value = |field: usize| field * 7919 + shape * 104_729;
        let fields =
            (0..100).map(|field| format!("\"{:x}\": {:x}, ", value(field), value(field) * 31));
        format!(
            "{{{} \"name\": \"echo-{name}\"}}",
            fields.collect::<String>()
        )
    }

    #[test]
    fn what_differs_in_a_few_words_takes_little_and_comes_back() {
        let packer = Packer::default();
        for (shape, name) in (0..100).map(|n| (n % 5, n)) {
            let text = text(shape, name);
            let packed = packer.pack(SORT, &text);
            assert_eq!(packed.text(), text);
            assert!(packed.bytes.len() * 10 < text.len(), "{name}: {packed:?}");
        }
        let pattern = packer.pattern(SORT, "").len();
        assert!(
            pattern < 6 * text(0, 0).len(),
            "{pattern}: one of each shape"
        );
    }

    #[test]
    fn what_it_is_written_by_has_an_end() {
        let packer = Packer::default();
        let texts: Vec<String> = (0..50).map(|shape| text(shape, 0)).collect();
        let packed: Vec<Packed> = texts.iter().map(|text| packer.pack(SORT, text)).collect();
        for (text, packed) in texts.iter().zip(&packed) {
            assert_eq!(packed.text(), *text);
        }
        let pattern = packer.pattern(SORT, "").len();
        assert!((MOST / 2..=MOST).contains(&pattern), "{pattern}");
        let of_another = packer.pattern(Sort::Fields("Pod"), "").len();
        assert_eq!(of_another, 0);
    }

    #[test]
    fn empty_and_huge_ones_come_back() {
        let packer = Packer::default();
        packer.pack(SORT, &text(0, 0));
        let known = packer.pattern(SORT, "").len();
        let huge: String = (0..200).map(|shape| text(shape, 1)).collect();
        assert!(huge.len() > 128 * 1024);
        for text in ["", "x", &huge, "after it", "ünïcode — 漢字"] {
            assert_eq!(packer.pack(SORT, text).text(), text);
        }
        assert_eq!(packer.pattern(SORT, "").len(), known);
    }
}
