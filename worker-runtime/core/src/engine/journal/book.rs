//! Which lanes have a journal, as the holder of a fence knows it. Pure: numbers only, so that 100 000 lanes are a few
//! megabytes.

use crate::state::journal::Lane as Place;
use std::collections::{HashMap, HashSet};

/// The lanes of one fenced queue that hold something, or soon will.
#[derive(Default)]
pub(super) struct Book {
    /// Users' lanes: their later messages are appended behind.
    lanes: HashSet<u64>,
    /// Lists of groups: batches whose later messages are appended behind, and schedules and imports, where nothing is.
    aside: HashMap<String, HashSet<u64>>,
    /// Messages that are on their way into the store.
    appending: HashMap<Place, usize>,
}

impl Book {
    /// What the store holds; what is on its way into it stays noted.
    pub(super) fn load(&mut self, places: Vec<Place>) {
        self.lanes.clear();
        self.aside.clear();
        let appending: Vec<Place> = self.appending.keys().cloned().collect();
        for place in places.into_iter().chain(appending) {
            self.note(&place);
        }
    }

    /// The store holds something of a lane.
    pub(super) fn note(&mut self, place: &Place) {
        if place.group.is_empty() {
            self.lanes.insert(place.number);
        } else if let Some(lists) = self.aside.get_mut(&place.group) {
            lists.insert(place.number);
        } else {
            let lists = HashSet::from([place.number]);
            self.aside.insert(place.group.clone(), lists);
        }
    }

    /// Whether messages of a user's lane go behind what it has in the store.
    pub(super) fn has(&self, lane: u64) -> bool {
        !self.lanes.is_empty() && self.lanes.contains(&lane)
    }

    /// Whether a lane has something in a group.
    pub(super) fn has_in(&self, group: &str, lane: u64) -> bool {
        let lists = self.aside.get(group);
        lists.is_some_and(|lists| lists.contains(&lane))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.aside.is_empty()
    }

    /// A message is on its way into the store.
    pub(super) fn appending(&mut self, place: &Place) {
        self.note(place);
        *self.appending.entry(place.clone()).or_default() += 1;
    }

    pub(super) fn is_appending(&self, place: &Place) -> bool {
        self.appending.contains_key(place)
    }

    /// It is there, or will never be.
    pub(super) fn appended(&mut self, place: &Place) {
        if let Some(count) = self.appending.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                self.appending.remove(place);
            }
        }
    }

    /// The store says that a lane is empty. What is on its way into it makes it anew.
    pub(super) fn emptied(&mut self, place: &Place) {
        if self.is_appending(place) {
            return;
        }
        if place.group.is_empty() {
            self.lanes.remove(&place.number);
        } else if let Some(lists) = self.aside.get_mut(&place.group) {
            lists.remove(&place.number);
            if lists.is_empty() {
                self.aside.remove(&place.group);
            }
        }
        // The memory of an outage is given back.
        if self.lanes.len() * 8 < self.lanes.capacity() {
            self.lanes.shrink_to(self.lanes.len() * 2);
        }
    }

    /// Nothing is in the store, and nothing on its way.
    pub(super) fn all_emptied(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(number: u64) -> Place {
        let group = String::new();
        Place { group, number }
    }

    fn aside(number: u64) -> Place {
        let group = "@schedule".to_owned();
        Place { group, number }
    }

    #[test]
    fn a_lane_leaves_when_it_is_empty_and_nothing_is_on_its_way() {
        let mut book = Book::default();
        book.appending(&lane(1));
        book.appending(&lane(1));
        assert!(book.has(1) && !book.has(2));
        book.appended(&lane(1));
        book.emptied(&lane(1));
        assert!(book.has(1), "the second message makes it anew");
        book.appended(&lane(1));
        book.emptied(&lane(1));
        assert!(!book.has(1) && book.is_empty());
    }

    #[test]
    fn loading_keeps_what_is_on_its_way() {
        let mut book = Book::default();
        book.appending(&lane(1));
        book.load(vec![lane(2), aside(3)]);
        assert!(book.has(1) && book.has(2));
        assert!(!book.has(3), "another list");
        assert!(book.has_in("@schedule", 3) && !book.has_in("@schedule", 1));
        book.load(vec![aside(3)]);
        book.appended(&lane(1));
        book.emptied(&lane(1));
        assert!(!book.is_empty());
        book.emptied(&aside(3));
        assert!(book.is_empty());
    }

    #[test]
    fn a_hundred_thousand_lanes_are_a_few_megabytes_and_given_back() {
        let mut book = Book::default();
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        book.load((0..100_000).map(|n| lane(key(n))).collect());
        assert!(
            book.lanes.capacity() * 10 < 4 << 20,
            "{}",
            book.lanes.capacity()
        );
        (0..100_000).for_each(|n| book.emptied(&lane(key(n))));
        assert!(book.lanes.capacity() < 1000);
    }
}
