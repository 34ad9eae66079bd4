//! What was finished here and may come again, since its channel or its term in the journal ended before the broker or the
//! store was told. Everything it caused is confirmed or stored: they are told again, and it is not worked on.

use super::super::journal::Replay;
use crate::broker::RawDelivery;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// What was finished last.
pub(super) struct Known {
    /// Its key is this process's own, so that nobody can write two bodies that are taken for one.
    hasher: RandomState,
    /// Hashes of bodies, which hold the messages' ids. None where rows of a ledger say more: there a person, or a rule, may
    /// publish a message again that was finished a moment ago.
    deliveries: Option<Last>,
    /// Numbers of entries of the journal, which no two ever share.
    entries: Last,
}

struct Last {
    finished: VecDeque<u64>,
    most: usize,
}

impl Last {
    fn note(&mut self, number: u64) {
        if self.finished.len() >= self.most {
            self.finished.pop_front();
        }
        self.finished.push_back(number);
    }
}

impl Known {
    /// As many as may be unfinished, in this life of the channel and the one before. `has_rows`: a ledger knows of every
    /// message that comes again.
    pub(super) fn new(prefetch: u16, has_rows: bool) -> Self {
        let last = || Last {
            finished: VecDeque::new(),
            most: 2 * usize::from(prefetch),
        };
        Self {
            hasher: RandomState::new(),
            deliveries: (!has_rows).then(last),
            entries: last(),
        }
    }

    /// A delivery with this body is done or stored.
    pub(super) fn note(&mut self, body: &[u8]) {
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.note(self.hasher.hash_one(body));
        }
    }

    /// The same of what the broker delivered or the journal gave.
    pub(super) fn note_done(&mut self, raw: &RawDelivery, replay: Option<&Replay>) {
        match replay {
            None => self.note(&raw.body),
            Some(replay) => replay.last().into_iter().for_each(|n| self.entries.note(n)),
        }
    }

    /// Whether the broker delivers again, or the journal gives again, what was finished before.
    pub(super) fn has(&self, raw: &RawDelivery, replay: Option<&Replay>) -> bool {
        if let Some(replay) = replay {
            let known = |number| self.entries.finished.contains(&number);
            return replay.last().is_some_and(known);
        }
        let hash = || self.hasher.hash_one(&raw.body[..]);
        let known = |last: &Last| !last.finished.is_empty() && last.finished.contains(&hash());
        raw.redelivered && self.deliveries.as_ref().is_some_and(known)
    }

    /// A delivery with this body is not finished: what comes again may be that one.
    pub(super) fn forget(&mut self, body: &[u8]) {
        if let Some(deliveries) = &mut self.deliveries {
            let hash = self.hasher.hash_one(body);
            deliveries.finished.retain(|known| *known != hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(body: &'static str, redelivered: bool) -> RawDelivery {
        RawDelivery {
            tag: 1,
            generation: 1,
            redelivered,
            routing_key: "q".into(),
            body: body.into(),
            message_id: None,
            delivery_count: None,
        }
    }

    #[test]
    fn as_many_are_known_as_two_windows_hold_and_only_if_they_come_again() {
        let mut known = Known::new(2, false);
        assert!(!known.has(&raw("1", true), None));
        for body in ["1", "2", "3", "4", "5"] {
            known.note_done(&raw(body, false), None);
        }
        assert!(!known.has(&raw("1", true), None));
        assert!(known.has(&raw("2", true), None) && known.has(&raw("5", true), None));
        assert!(!known.has(&raw("5", false), None), "published once more");
        known.forget(b"5");
        assert!(!known.has(&raw("5", true), None) && known.has(&raw("4", true), None));
    }
}
