//! How messages of one queue move between the broker's window and the journal (R3).

use super::super::delivery::{Delivery, Duty};
use super::super::journal::{Event, Look, Receipt, Replay, Takes, millis};
use super::super::labels::Labels;
use super::super::lanes::Lane;
use super::{Consumer, PREFETCH, decode};
use crate::broker::{ConsumerState, RawDelivery};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::Message;
use crate::state::journal::{About, Claimed, Due, Entry, Reason};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::{Flow, OrderingMode};

/// A lane that holds more of the window than this leaves it: others wait for the place.
const SHARE: usize = PREFETCH as usize / 4;

const NOW: Due = Due::After(Duration::ZERO);

impl Consumer {
    /// The consumer's state changed, or is looked at for the first time.
    pub(super) fn note_fence(&mut self) {
        let state = self.state.borrow().clone();
        let consuming = state == ConsumerState::Consuming;
        if let ConsumerState::Standby(_) = state {
            self.known.forget_deliveries();
        }
        if let Some(journal) = &mut self.journal {
            self.known_for = self.acker.generation().filter(|_| consuming);
            journal.consumer_state(consuming);
        }
    }

    /// The broker delivers everything that is unacknowledged again.
    pub(super) fn next_life_of_journal(&mut self, generation: u64) {
        let known = self.known_for.replace(generation) == Some(generation);
        if let Some(journal) = &mut self.journal {
            journal.exit().nobody_leaves();
            if !known {
                journal.doubt();
            }
        }
        self.stay_in_queue();
    }

    /// What is not on its way into the store yet does not go there.
    pub(super) fn stay_in_queue(&mut self) {
        let forgotten = match &mut self.journal {
            Some(journal) => journal.forget_partings(),
            None => return,
        };
        self.forget(forgotten);
    }

    fn forget(&mut self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            match receipt {
                Receipt::Delivery { .. } => self.return_one(None),
                Receipt::Replay(replay) => self.return_one(Some(replay)),
            }
        }
    }

    /// A message stays where it came from.
    pub(super) fn return_one(&mut self, replay: Option<Box<Replay>>) {
        self.count_returned(1);
        if let (Some(replay), Some(journal)) = (replay, &mut self.journal) {
            journal.put_back(&replay);
        }
    }

    pub(super) fn return_all(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        for delivery in deliveries {
            self.return_one(delivery.replay);
        }
    }

    /// Lets the journal begin what is to be done.
    pub(super) fn turn_journal(&mut self, draining: bool) {
        let consuming = *self.state.borrow() == ConsumerState::Consuming;
        let generation = self.desk.generation.load(Ordering::Relaxed);
        if !consuming && self.ordered && self.acker.generation() != Some(generation) {
            // The broker delivers it anew, to us or to whoever reads the queue now.
            self.stay_in_queue();
        }
        let Some(journal) = &mut self.journal else {
            return;
        };
        let working = consuming && !draining && self.paused_at.is_none();
        journal.turn(Instant::now(), working);
        if journal.is_open()
            && working
            && let Some(raw) = self.held_back.take()
        {
            self.start(raw);
            if let Some(journal) = &mut self.journal {
                journal.turn(Instant::now(), working);
            }
        }
    }

    pub(super) fn journal_event(&mut self, event: Event) {
        match event {
            Event::Turn => {}
            Event::Heads(heads) => heads.into_iter().for_each(|head| self.replay(head)),
            Event::Forgotten(receipts) => self.forget(receipts),
            Event::Appended(receipts) => {
                let generation = self.desk.generation.load(Ordering::Relaxed);
                let now = Instant::now();
                for receipt in receipts {
                    match receipt {
                        Receipt::Delivery {
                            tag,
                            generation: g,
                            body,
                            message_id,
                        } => {
                            self.known.note(g, &body, message_id.as_deref());
                            if g == generation {
                                self.count_journaled();
                                self.finished_with(tag, now);
                            } else {
                                self.count_returned(1);
                            }
                        }
                        Receipt::Replay(replay) if self.is_ours(&replay) => {
                            self.count_journaled();
                            if let Some(journal) = &mut self.journal {
                                journal.done(*replay);
                            }
                        }
                        Receipt::Replay(_) => self.count_returned(1),
                    }
                }
                // They only passed through: others are to have their places at once.
                self.acks.hurry();
                self.acknowledge();
            }
        }
    }

    pub(super) fn is_ours(&self, replay: &Replay) -> bool {
        let term = self.journal.as_ref().map(|j| j.exit().term());
        term == Some(replay.term)
    }

    fn count_journaled(&self) {
        self.counters.journaled.fetch_add(1, Ordering::SeqCst);
        self.desk.metrics.journaled.inc();
    }

    /// Finds the place of a message that the broker delivered: at work, behind others of its lane here or in the store,
    /// or held.
    pub(super) fn place(&mut self, mut delivery: Delivery) {
        match self.look(&mut delivery) {
            Look::GoOn => self.enter(delivery),
            Look::Aside { reason, group, due } => self.put_aside(delivery, reason, &group, due),
        }
    }

    /// Asks whether a message is held. One that cannot be is set aside by its error.
    fn look(&self, delivery: &mut Delivery) -> Look {
        let (Some(hold), Ok(message)) = (&self.hold, &delivery.message) else {
            return Look::GoOn;
        };
        let takes = self.journal.as_ref().map(|j| j.exit().takes());
        let looked = hold.look(message, crate::clock::now());
        let error = match (looked, takes) {
            (Ok(Look::GoOn), _) => return Look::GoOn,
            (Ok(look), Some(Takes::Yes | Takes::Away)) => return look,
            (Ok(_), Some(Takes::Never) | None) => WorkError::new(
                ErrorClass::Config,
                codes::SCHEDULE_NO_STORE,
                "it is to be sent later, and there is no state store that keeps it until then",
            ),
            (Err(error), _) => error,
        };
        delivery.message = Err(error);
        Look::GoOn
    }

    fn has_journal(&self, lane: Lane) -> bool {
        self.journal.as_ref().is_some_and(|j| j.has(lane))
    }

    fn send_away(&self, lane: Lane, reason: Reason, due: Due) {
        if let (Some(journal), Lane::Numbered(number)) = (&self.journal, lane) {
            journal.exit().send_away(number, reason, due);
        }
    }

    /// Why and until when a lane is to leave the window, if it is and the store takes it.
    fn takes_leave(&self, lane: Lane) -> Option<(Reason, Due)> {
        let exit = self.journal.as_ref()?.exit();
        let leaves = exit.takes_leave(lane)?;
        (exit.takes() == Takes::Yes).then_some(leaves)
    }

    /// The group of a fresh message that goes into the journal at once: behind others of its batch that wait there, or
    /// because its batch has its share of the window.
    fn group_of(&self, delivery: &mut Delivery) -> Option<(Reason, String)> {
        let (Some(journal), Some(sending)) = (&self.journal, &self.desk.sending) else {
            return None;
        };
        if delivery.replay.is_some() {
            return None;
        }
        let group = Labels::of(delivery.message.as_ref().ok()?).group()?;
        if journal.has_in(&group, delivery.lane) {
            return Some((Reason::Behind, group));
        }
        // Whoever only passes messages on makes nobody wait.
        let passes_on = matches!(self.desk.duty, Duty::Forward(_));
        if !sending.has_classes() || passes_on || delivery.seat.is_some() {
            return None;
        }
        delivery.seat = self.seats.take(&group, SHARE);
        let full = delivery.seat.is_none() && journal.exit().takes() == Takes::Yes;
        full.then_some((Reason::Overflow, group))
    }

    /// The batch of a message is paused: it waits in the group of its batch, and others of its lane are judged for
    /// themselves.
    pub(super) fn hold_back(
        &mut self,
        raw: RawDelivery,
        replay: Option<Box<Replay>>,
        lane: Lane,
        about: About,
        group: &str,
    ) {
        if let Some(journal) = &mut self.journal {
            let replay = match replay {
                Some(replay) => match journal.hold_on(replay, group, about.clone()) {
                    None => {
                        self.count_journaled();
                        self.next_of(lane);
                        return;
                    }
                    moves => moves,
                },
                None => None,
            };
            let (id, entry, receipt) = packed(self.desk.port.flow, raw, replay, about);
            journal.put_aside(lane, group, &id, entry, Due::Released, receipt);
        }
        let leaves = self.takes_leave(lane);
        let behind = self.lanes.abandon(lane);
        match leaves {
            Some((reason, due)) => self.move_all(behind, reason, due),
            None => behind.into_iter().for_each(|delivery| self.enter(delivery)),
        }
    }

    fn enter(&mut self, mut delivery: Delivery) {
        if let Some((reason, group)) = self.group_of(&mut delivery) {
            self.put_aside(delivery, reason, &group, NOW);
            return;
        }
        let lane = delivery.lane;
        // A head that is replayed stands before everything else of its list.
        let at_home = delivery.replay.as_ref().is_some_and(|r| r.is_at_home());
        if !at_home && self.has_journal(lane) {
            self.append(delivery, Reason::Behind, NOW);
            return;
        }
        if let Some(delivery) = self.lanes.enter(lane, delivery) {
            self.work(delivery);
        } else if self.mode == OrderingMode::PerUser && self.lanes.waiting(lane) > SHARE {
            self.send_away(lane, Reason::Overflow, NOW);
        }
    }

    /// A message of a lane ended: the next one begins, unless all that waits is to leave.
    pub(super) fn next_of(&mut self, lane: Lane) {
        let leaves = self.takes_leave(lane);
        if let Some((reason, due)) = leaves {
            let behind = self.lanes.abandon(lane);
            self.move_all(behind, reason, due);
        } else if let Some(next) = self.lanes.leave(lane) {
            self.work(next);
        }
    }

    fn move_all(&mut self, behind: VecDeque<Delivery>, reason: Reason, due: Due) {
        for delivery in behind {
            self.append(delivery, reason, due);
        }
    }

    /// A message must wait longer than it may here: its lane leaves the window as a whole.
    pub(super) fn leave_window(
        &mut self,
        raw: RawDelivery,
        replay: Option<Box<Replay>>,
        lane: Lane,
        about: About,
        due: Due,
    ) {
        if let Some(journal) = &mut self.journal {
            journal.exit().takes_leave(lane);
            let replay = match replay {
                Some(replay) => match journal.wait_on(replay, about.clone(), due) {
                    // It waits on where it stood: everything behind it is in the store already.
                    None => {
                        self.count_journaled();
                        self.next_of(lane);
                        return;
                    }
                    moves => moves,
                },
                None => None,
            };
            let (id, entry, receipt) = packed(self.desk.port.flow, raw, replay, about);
            journal.append(lane, &id, entry, due, receipt);
        }
        let behind = self.lanes.abandon(lane);
        self.move_all(behind, Reason::Behind, NOW);
    }

    fn append(&mut self, mut delivery: Delivery, reason: Reason, due: Due) {
        let about = delivery.about(reason);
        if let (Some(replay), Some(journal)) = (delivery.replay.take(), &mut self.journal) {
            delivery.replay = journal.wait_on(replay, about.clone(), due);
            if delivery.replay.is_none() {
                self.count_journaled();
                return;
            }
        }
        let (lane, raw, id) = (delivery.lane, delivery.raw, delivery.message);
        let id = id
            .as_ref()
            .map_or_else(|_| String::new(), |m| m.id().to_owned());
        let receipt = receipt(&raw, delivery.replay);
        let entry = Entry {
            about,
            body: raw.body,
        };
        if let Some(journal) = &mut self.journal {
            journal.append(lane, &id, entry, due, receipt);
        }
    }

    fn put_aside(&mut self, delivery: Delivery, reason: Reason, group: &str, due: Due) {
        let mut about = delivery.about(reason);
        if let (Reason::Schedule, Due::At(at)) = (reason, due) {
            // Its life begins then.
            about.since = millis(at);
        }
        let id = delivery.message.as_ref().map_or("", Message::id).to_owned();
        let receipt = receipt(&delivery.raw, delivery.replay);
        let entry = Entry {
            about,
            body: delivery.raw.body,
        };
        if let Some(journal) = &mut self.journal {
            journal.put_aside(delivery.lane, group, &id, entry, due, receipt);
        }
    }

    /// The turn of a message in the journal has come: it goes through its lane as if it were delivered now.
    fn replay(&mut self, head: Claimed) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let flaw = head.entry.flaw();
        let (raw, mut replay) = journal.take(head);
        let flow = self.desk.port.flow;
        // Whether it is its turn, and what happened to it, is not known: it is set aside.
        let message = match flaw {
            Some(flaw) => Err(flaw),
            None => decode(flow, &raw.body),
        };
        let lane = match &message {
            Ok(message) => self.chooser.lane(flow, message),
            Err(_) => Lane::Free,
        };
        journal.come_home(&mut replay, lane);
        self.counters.received.fetch_add(1, Ordering::SeqCst);
        self.counters.replayed.fetch_add(1, Ordering::SeqCst);
        self.desk.metrics.received.inc();
        self.desk.metrics.replayed.inc();
        let waited = matches!(replay.about.reason, Reason::Held | Reason::Schedule);
        let mut delivery = Delivery {
            raw,
            message,
            lane,
            received: Instant::now(),
            replay: Some(replay),
            seat: None,
            passing: None,
        };
        let look = match waited {
            true => Look::GoOn,
            false => self.look(&mut delivery),
        };
        match look {
            Look::GoOn => self.enter(delivery),
            Look::Aside { reason, group, due } => self.put_aside(delivery, reason, &group, due),
        }
    }
}

fn receipt(raw: &RawDelivery, replay: Option<Box<Replay>>) -> Receipt {
    match replay {
        Some(replay) => Receipt::Replay(replay),
        None => Receipt::Delivery {
            tag: raw.tag,
            generation: raw.generation,
            body: raw.body.clone(),
            message_id: raw.message_id.clone(),
        },
    }
}

/// A message on its way into the store: its id, what is stored, and who hears of it.
fn packed(
    flow: Flow,
    raw: RawDelivery,
    replay: Option<Box<Replay>>,
    about: About,
) -> (String, Entry, Receipt) {
    let id = Message::decode(flow, &raw.body).map_or_else(|_| String::new(), |m| m.id().to_owned());
    let receipt = receipt(&raw, replay);
    let body = raw.body;
    (id, Entry { about, body }, receipt)
}
