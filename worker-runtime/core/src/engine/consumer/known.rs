//! What was finished here and may come again, since its channel or its term in the journal ended before the broker or the
//! store was told. Everything it caused is confirmed or stored: they are told again, and it is not worked on.
//!
//! Kept so narrowly that nothing else is taken for it. A delivery is known only to a later life of the channel, only if it
//! was finished shortly before that (the broker has heard of what was finished earlier), only until that delivers something
//! new (what comes again comes first), and not once another replica reads the queue. A replica may
//! have come and gone unseen: what it set aside and a person sent back has the body of before, but is another publication
//! with an AMQP `message_id` of its own, and known by both. An entry of the journal is known by its number and its body, for
//! a store that lost its last writes gives numbers again.

use super::super::journal::Replay;
use crate::broker::RawDelivery;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// An acknowledgement that was made so long before its channel was lost has arrived: a dead connection is found out sooner.
const RECENT: Duration = Duration::from_secs(120);

pub(super) struct Known {
    /// Its key is this process's own, so that nobody can write two bodies that are taken for one.
    hasher: RandomState,
    /// None where several replicas read the queue at once, and where rows of a ledger say more: there a person, or a rule,
    /// may publish a message again that was finished a moment ago.
    deliveries: Option<Deliveries>,
    /// By number in the journal, with a hash of the body.
    entries: VecDeque<(u64, u64)>,
    /// As many are known.
    most: usize,
}

/// What was delivered and finished.
#[derive(Default)]
struct Deliveries {
    /// This life of the channel.
    generation: u64,
    /// Finished in this life, and when.
    now: VecDeque<(Publication, Instant)>,
    /// Finished in lives before it: what may come again.
    before: VecDeque<Publication>,
}

/// Hashes of what tells one publication from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Publication {
    /// The body holds the message's own id.
    body: u64,
    /// The AMQP property.
    message_id: u64,
}

impl Known {
    /// As many as may be unfinished, in this life of the channel and the one before. `alone`: nobody else reads the queue
    /// meanwhile, and no ledger knows of every message that comes again.
    pub(super) fn new(prefetch: u16, alone: bool) -> Self {
        Self {
            hasher: RandomState::new(),
            deliveries: alone.then(Deliveries::default),
            entries: VecDeque::new(),
            most: 2 * usize::from(prefetch),
        }
    }

    /// Another life of the channel begins.
    pub(super) fn next_life(&mut self, generation: u64) {
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.generation = generation;
            let now = std::mem::take(&mut deliveries.now);
            let recent = now.into_iter().filter(|(_, at)| at.elapsed() < RECENT);
            for (finished, _) in recent {
                note(&mut deliveries.before, finished, self.most);
            }
        }
    }

    /// A delivery of this generation is done or stored.
    pub(super) fn note(&mut self, generation: u64, body: &[u8], message_id: Option<&str>) {
        let publication = self.publication(body, message_id);
        if let Some(deliveries) = &mut self.deliveries {
            match generation == deliveries.generation {
                true => note(
                    &mut deliveries.now,
                    (publication, Instant::now()),
                    self.most,
                ),
                false => note(&mut deliveries.before, publication, self.most),
            }
        }
    }

    fn publication(&self, body: &[u8], message_id: Option<&str>) -> Publication {
        Publication {
            body: self.hasher.hash_one(body),
            message_id: self.hasher.hash_one(message_id),
        }
    }

    /// The same of what the broker delivered or the journal gave.
    pub(super) fn note_done(&mut self, raw: &RawDelivery, replay: Option<&Replay>) {
        match replay {
            None => self.note(raw.generation, &raw.body, raw.message_id.as_deref()),
            Some(replay) => {
                if let Some(number) = replay.last() {
                    self.note_entry(number, &raw.body);
                }
            }
        }
    }

    fn note_entry(&mut self, number: u64, body: &[u8]) {
        let hash = self.hasher.hash_one(body);
        note(&mut self.entries, (number, hash), self.most);
    }

    fn has_entry(&self, number: u64, body: &[u8]) -> bool {
        let hash = || self.hasher.hash_one(body);
        !self.entries.is_empty() && self.entries.contains(&(number, hash()))
    }

    /// A delivery arrived: what is new ends what comes again.
    pub(super) fn arrives(&mut self, raw: &RawDelivery) {
        if let Some(deliveries) = self.deliveries.as_mut().filter(|_| !raw.redelivered) {
            deliveries.before.clear();
        }
    }

    /// Whether the broker delivers again, or the journal gives again, what was finished before.
    pub(super) fn comes_again(&mut self, raw: &RawDelivery, replay: Option<&Replay>) -> bool {
        if let Some(replay) = replay {
            let number = replay.last();
            return number.is_some_and(|number| self.has_entry(number, &raw.body));
        }
        let none = |deliveries: &Deliveries| deliveries.before.is_empty();
        if !raw.redelivered || self.deliveries.as_ref().is_none_or(none) {
            return false;
        }
        let publication = self.publication(&raw.body, raw.message_id.as_deref());
        let Some(Deliveries { before, .. }) = &mut self.deliveries else {
            return false;
        };
        let place = before.iter().position(|known| *known == publication);
        place.is_some_and(|place| before.remove(place).is_some())
    }

    /// A message with this body is not finished: what comes again may be that one.
    pub(super) fn forget(&mut self, body: &[u8]) {
        if let Some(deliveries) = &mut self.deliveries {
            let hash = self.hasher.hash_one(body);
            deliveries.now.retain(|(known, _)| known.body != hash);
            deliveries.before.retain(|known| known.body != hash);
        }
    }

    /// Another replica has the queue.
    pub(super) fn forget_deliveries(&mut self) {
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.now.clear();
            deliveries.before.clear();
        }
    }
}

fn note<T>(last: &mut VecDeque<T>, known: T, most: usize) {
    if last.len() >= most {
        last.pop_front();
    }
    last.push_back(known);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(generation: u64, body: &'static str, redelivered: bool) -> RawDelivery {
        RawDelivery {
            tag: 1,
            generation,
            redelivered,
            routing_key: "q".into(),
            body: body.into(),
            message_id: None,
            delivery_count: None,
        }
    }

    fn finished(bodies: &[&'static str]) -> Known {
        let mut known = Known::new(2, true);
        known.next_life(1);
        for body in bodies {
            known.note_done(&raw(1, body, false), None);
        }
        known
    }

    fn lost(bodies: &[&'static str]) -> Known {
        let mut known = finished(bodies);
        known.next_life(2);
        known
    }

    #[test]
    fn as_many_are_known_as_two_windows_hold_each_once() {
        let mut known = lost(&["1", "2", "3", "4", "5"]);
        assert!(!known.comes_again(&raw(2, "1", true), None));
        assert!(known.comes_again(&raw(2, "2", true), None));
        assert!(known.comes_again(&raw(2, "5", true), None));
        assert!(!known.comes_again(&raw(2, "5", true), None), "a second one");
        known.forget(b"4");
        assert!(!known.comes_again(&raw(2, "4", true), None), "set aside");
        assert!(known.comes_again(&raw(2, "3", true), None));
    }

    #[test]
    fn nothing_is_known_in_the_same_life_of_the_channel() {
        let mut known = finished(&["1"]);
        assert!(!known.comes_again(&raw(1, "1", true), None));
        known.next_life(2);
        assert!(known.comes_again(&raw(2, "1", true), None));
    }

    #[test]
    fn what_is_finished_after_its_channel_was_lost_is_known() {
        let mut known = lost(&[]);
        known.note_done(&raw(1, "1", false), None);
        assert!(known.comes_again(&raw(2, "1", true), None));
    }

    #[test]
    fn another_publication_of_the_same_message_is_not_known() {
        let mut known = lost(&["1"]);
        let sent_back = RawDelivery {
            message_id: Some("another".into()),
            ..raw(2, "1", true)
        };
        assert!(!known.comes_again(&sent_back, None));
        assert!(known.comes_again(&raw(2, "1", true), None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_finished_long_before_is_not_known() {
        let mut known = Known::new(10, true);
        known.next_life(1);
        known.note(1, b"1", None);
        tokio::time::advance(RECENT).await;
        known.note(1, b"2", None);
        known.next_life(2);
        assert!(!known.comes_again(&raw(2, "1", true), None));
        assert!(known.comes_again(&raw(2, "2", true), None));
    }

    #[test]
    fn what_is_new_ends_what_comes_again() {
        let mut known = lost(&["1", "2"]);
        known.arrives(&raw(2, "1", true));
        assert!(known.comes_again(&raw(2, "1", true), None));
        let anew = raw(2, "2", false);
        known.arrives(&anew);
        assert!(!known.comes_again(&anew, None), "published anew");
        assert!(!known.comes_again(&raw(2, "2", true), None));
    }

    #[test]
    fn nothing_is_known_once_another_replica_had_the_queue() {
        let mut known = lost(&["1"]);
        known.forget_deliveries();
        assert!(!known.comes_again(&raw(2, "1", true), None));
    }

    #[test]
    fn nothing_is_known_where_others_read_the_queue_or_rows_say_more() {
        let mut known = Known::new(2, false);
        known.note_done(&raw(1, "1", false), None);
        known.next_life(2);
        assert!(!known.comes_again(&raw(2, "1", true), None));
    }

    #[test]
    fn a_number_that_a_store_gives_again_is_another_message() {
        let mut known = Known::new(2, false);
        known.note_entry(7, b"1");
        assert!(known.has_entry(7, b"1"));
        assert!(!known.has_entry(7, b"2") && !known.has_entry(8, b"1"));
    }
}
