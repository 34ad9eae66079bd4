//! Into the store: messages are appended to the lists of their lanes, many at a time.

use super::hold::own_list;
use super::{LaneJournal, Outcome, Parting, Receipt, instant};
use crate::engine::lanes::Lane;
use crate::state::journal::{Append, Due, Entry, Lane as Place, Reason};
use futures::FutureExt;
use std::sync::Arc;
use tokio::time::Instant;

impl LaneJournal {
    /// The list of a lane, where a message of that lane waits.
    fn list(lane: Lane, message_id: &str) -> Place {
        match lane {
            Lane::Numbered(number) => Place {
                group: String::new(),
                number,
            },
            Lane::Free => own_list("", message_id),
        }
    }

    /// Appends a message to the list of its lane.
    pub(in crate::engine) fn append(
        &mut self,
        lane: Lane,
        id: &str,
        entry: Entry,
        due: Due,
        receipt: Receipt,
    ) {
        self.push(Self::list(lane, id), entry, due, receipt);
    }

    /// Puts a message into a list beside its lane. What is scheduled waits alone, everything else behind others of its
    /// lane and group.
    pub(in crate::engine) fn put_aside(
        &mut self,
        lane: Lane,
        group: &str,
        id: &str,
        entry: Entry,
        due: Due,
        receipt: Receipt,
    ) {
        let place = match entry.about.reason {
            Reason::Schedule => own_list(group, id),
            _ => Place {
                group: group.to_owned(),
                ..Self::list(lane, id)
            },
        };
        self.push(place, entry, due, receipt);
    }

    fn push(&mut self, lane: Place, entry: Entry, due: Due, receipt: Receipt) {
        let new = !self.fenced || !lane.group.is_empty() || !self.book.has(lane.number);
        if self.fenced {
            self.book.appending(&lane);
        }
        if let Some(in_hand) = self.in_hand.get_mut(&lane) {
            in_hand.touched = true;
        }
        self.partings.push_back(Parting {
            append: Append { lane, due, entry },
            receipt,
            due: new.then_some(due),
        });
    }

    pub(super) fn start_append(&mut self, now: Instant) {
        self.appending = true;
        self.appends += 1;
        let mut messages = Vec::with_capacity(self.partings.len());
        let mut receipts = Vec::with_capacity(self.partings.len());
        let mut due = None;
        for parting in self.partings.drain(..) {
            if let Some(at) = parting.due.and_then(instant) {
                due = Some(due.map_or(at, |due: Instant| due.min(at)).max(now));
            }
            messages.push(parting.append);
            receipts.push(parting.receipt);
        }
        let places = messages.iter().map(|m| m.lane.clone()).collect();
        let access = Arc::clone(&self.access);
        let term = self.fenced.then(|| access.exit.term());
        let append = async move {
            let done = access.append(term, messages).await;
            Outcome::Appended {
                places,
                receipts,
                due,
                done,
            }
        };
        self.ops.push(append.boxed());
    }
}
