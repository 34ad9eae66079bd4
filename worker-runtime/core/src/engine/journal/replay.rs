//! Out of the store: heads of lanes are claimed, worked on, and stepped over.

use super::super::insist::AGAIN;
use super::hold::Occurrence;
use super::store::Taken;
use super::{BREATH, Event, InHand, LaneJournal, Outcome, POLL, REPLAYS, Replay, instant};
use crate::broker::RawDelivery;
use crate::engine::lanes::Lane;
use crate::state::journal::{About, Claimed, Due, Lane as Place, Next, Reason, Step};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl LaneJournal {
    /// A replayed message has its verdict.
    pub(in crate::engine) fn done(&mut self, replay: Replay) {
        let again = match &replay.then {
            Step::Again(_, due) => instant(*due),
            Step::Done => None,
        };
        let step = replay.then.clone();
        self.step(&replay, step, again);
    }

    /// A replayed message waits on at the head of the list of its lane in this group; else it comes back.
    pub(in crate::engine) fn hold_on(
        &mut self,
        replay: Box<Replay>,
        group: &str,
        about: About,
    ) -> Option<Box<Replay>> {
        if replay.place.group != group {
            return Some(replay);
        }
        self.step(&replay, Step::Again(about, Due::Released), None);
        None
    }

    /// A replayed message waits on at the head of its list, if that is where it belongs; else it comes back.
    pub(in crate::engine) fn wait_on(
        &mut self,
        replay: Box<Replay>,
        about: About,
        due: Due,
    ) -> Option<Box<Replay>> {
        if !replay.home {
            return Some(replay);
        }
        self.step(&replay, Step::Again(about, due), instant(due));
        None
    }

    fn step(&mut self, replay: &Replay, step: Step, again: Option<Instant>) {
        let access = Arc::clone(&self.access);
        let (place, id, term) = (replay.place.clone(), replay.id, replay.term);
        self.steps += 1;
        if let Some(in_hand) = self.in_hand.get_mut(&place) {
            in_hand.stepping = true;
            in_hand.touched = self.book.is_appending(&place);
        }
        let stepped = async move {
            let next = access.step(term, &place, id, step).await;
            Outcome::Stepped {
                place,
                id,
                term,
                again,
                next,
            }
        };
        self.ops.push(stepped.boxed());
    }

    /// Reads what came out of the journal: the message to handle as if it were delivered now.
    pub(in crate::engine) fn take(&mut self, claimed: Claimed) -> (RawDelivery, Box<Replay>) {
        let Claimed {
            lane,
            id,
            entry,
            again,
        } = claimed;
        if entry.flaw().is_none() {
            let oldest = &mut self.oldest[0];
            *oldest = Some(oldest.map_or(entry.about.since, |o| o.min(entry.about.since)));
        }
        let Occurrence { entry, then } = match entry.about.reason {
            Reason::Schedule => Occurrence::of(entry, crate::clock::now()),
            _ => Occurrence {
                entry,
                then: Step::Done,
            },
        };
        let suspect = again || self.suspects > 0;
        self.suspects = self.suspects.saturating_sub(1);
        let raw = RawDelivery {
            tag: 0,
            generation: 0,
            redelivered: suspect,
            routing_key: entry.about.routing_key.clone(),
            message_id: entry.about.amqp_message_id.clone(),
            body: entry.body,
            delivery_count: None,
        };
        let replay = Replay {
            place: lane,
            id,
            term: self.access.exit.term(),
            about: entry.about,
            home: false,
            then,
        };
        (raw, Box::new(replay))
    }

    /// Notes whether a replayed message stands in the list of `lane`, its own.
    pub(in crate::engine) fn come_home(&self, replay: &mut Replay, lane: Lane) {
        let own = match lane {
            Lane::Numbered(number) => replay.place.number == number,
            Lane::Free => true,
        };
        replay.home = own && replay.place.group.is_empty();
    }

    /// A replayed message stays where it is: it can be claimed again.
    pub(in crate::engine) fn put_back(&mut self, replay: &Replay) {
        if replay.term == self.access.exit.term() && self.in_hand.remove(&replay.place).is_some() {
            self.start_release(vec![replay.place.clone()]);
            self.wake_at(Instant::now() + BREATH);
        }
    }

    fn free(&self) -> usize {
        REPLAYS.saturating_sub(self.in_hand.len())
    }

    /// When heads are to be claimed.
    pub(super) fn claim_due(&self) -> Option<Instant> {
        // A few at a time would cost as many questions as messages.
        let room = self.free() >= REPLAYS / 4;
        // What is being taken over is not in the book yet.
        let settled = self.is_open() && !self.claiming && !(self.fenced && self.importing);
        let may = self.working && settled && room && !self.is_empty();
        self.wake.filter(|_| may)
    }

    pub(super) fn start_claim(&mut self) {
        self.claiming = true;
        self.wake = None;
        self.turn = self.turn.wrapping_add(1);
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let (free, turn) = (self.free(), self.turn);
        // Claims whose answer was lost would bind their lanes until the lease ends.
        let anew = self.fenced && self.claim_failures > 0;
        let claim =
            async move { Outcome::Claimed(term, access.claim(free, turn, anew).await.ok()) };
        self.ops.push(claim.boxed());
    }

    /// Ends claims of ours.
    pub(super) fn start_release(&mut self, places: Vec<Place>) {
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let release = async move {
            access.release(term, places).await;
            Outcome::Renewed
        };
        self.ops.push(release.boxed());
    }

    pub(super) fn claimed(&mut self, term: u64, taken: Option<Taken>, now: Instant) -> Event {
        let Some(Taken { mut heads, next }) = taken else {
            self.claim_failures += 1;
            self.wake_at(now + AGAIN.after(self.claim_failures).max(BREATH));
            return Event::Turn;
        };
        self.claim_failures = 0;
        if term != self.access.exit.term() {
            return Event::Turn;
        }
        match next {
            Some(wait) => {
                let least = if heads.is_empty() {
                    BREATH
                } else {
                    Duration::ZERO
                };
                self.wake_at(now + wait.clamp(least, POLL));
            }
            None => self.wake_at(now + POLL),
        }
        if !self.working {
            let places = heads.into_iter().map(|head| head.lane).collect();
            self.start_release(places);
            return Event::Turn;
        }
        heads.retain(|head| match self.in_hand.get_mut(&head.lane) {
            // What we work on is claimed once more, or we did not hear yet that we need not any more.
            Some(in_hand) => {
                in_hand.early = in_hand.stepping.then(|| head.clone());
                false
            }
            None => {
                self.in_hand.insert(head.lane.clone(), InHand::default());
                true
            }
        });
        Event::Heads(heads)
    }

    pub(super) fn stepped(
        &mut self,
        place: Place,
        id: u64,
        again: Option<Instant>,
        next: Option<Next>,
        now: Instant,
    ) -> Event {
        let InHand { touched, early, .. } = self.in_hand.remove(&place).unwrap_or_default();
        let head = match next {
            Some(Next::Head(head)) => head,
            Some(Next::Waits) => match early {
                Some(head) => head,
                None => {
                    if let Some(at) = again {
                        self.wake_at(at);
                    }
                    return Event::Turn;
                }
            },
            Some(Next::Empty) => match early.filter(|head| head.id > id) {
                Some(head) => head,
                None if touched => {
                    self.look_again = true;
                    self.wake_at(now);
                    return Event::Turn;
                }
                None => {
                    if self.fenced {
                        self.book.emptied(&place);
                    }
                    return Event::Turn;
                }
            },
            // Somebody dropped it, or it was removed by a try whose answer was lost.
            Some(Next::Moved) => {
                if self.fenced {
                    self.start_release(vec![place]);
                }
                self.wake_at(now + BREATH);
                return Event::Turn;
            }
            None => return Event::Turn,
        };
        if !self.working {
            self.start_release(vec![place]);
            return Event::Turn;
        }
        self.in_hand.insert(place, InHand::default());
        Event::Heads(vec![head])
    }
}
