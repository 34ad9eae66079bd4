//! Records that give a `message_id` which an earlier one gave: workers take them for the same message.

use super::records::Record;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Places of repeats that are named.
const NAMED: usize = 5;

/// What was seen of ids. An id is kept as its hash: a file may have millions.
#[derive(Default)]
pub struct Repeats {
    seen: HashSet<u64>,
    count: u64,
    places: Vec<String>,
}

impl Repeats {
    /// Looks at the id that a record gives, if it gives one.
    pub fn look(&mut self, record: &Record) {
        let Some(id) = &record.id else { return };
        let mut hash = DefaultHasher::new();
        id.hash(&mut hash);
        if !self.seen.insert(hash.finish()) {
            self.count += 1;
            if self.places.len() < NAMED {
                self.places.push(record.place.clone());
            }
        }
    }

    /// What there is to say of them, if there are any.
    pub fn sentence(&self) -> Option<String> {
        let more = match self.count > NAMED as u64 {
            true => ", …",
            false => "",
        };
        let (records, repeat) = match self.count {
            0 => return None,
            1 => ("record", "repeats"),
            _ => ("records", "repeat"),
        };
        Some(format!(
            "{} {records} {repeat} the id of an earlier one ({}{more}): a worker may take them for the same message",
            self.count,
            self.places.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_the_first_are_named() {
        let mut repeats = Repeats::default();
        let mut look = |line: u32, id: Option<&str>| {
            repeats.look(&Record {
                place: format!("a.csv:{line}"),
                id: id.map(str::to_owned),
                said: String::new(),
                body: Err("not looked at".into()),
            });
        };
        look(2, Some("one"));
        look(3, None);
        look(4, None);
        look(5, Some("two"));
        assert_eq!(repeats.sentence(), None);
        let mut look = |line: u32| {
            repeats.look(&Record {
                place: format!("a.csv:{line}"),
                id: Some("one".into()),
                said: String::new(),
                body: Err("not looked at".into()),
            });
        };
        look(6);
        (7..=11).for_each(&mut look);
        let text = repeats.sentence().unwrap();
        assert!(text.starts_with("6 records repeat"), "{text}");
        assert!(
            text.contains("(a.csv:6, a.csv:7, a.csv:8, a.csv:9, a.csv:10, …)"),
            "{text}"
        );
    }
}
