//! One turn after the other: what is to be done now is started, and what has ended is noted.

use super::store::LEASE;
use super::{Event, Known, LaneJournal, MEMORY, Outcome, POLL, SET_BACK, import};
use crate::engine::journal::Takes;
use crate::state::journal::{Depth, Lane as Place};
use futures::FutureExt;
use futures::stream::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl LaneJournal {
    /// Starts what is to be done now. `working`: heads may be worked on.
    pub(in crate::engine) fn turn(&mut self, now: Instant, working: bool) {
        if working && !self.working {
            self.wake_at(now);
        }
        self.working = working;
        // What began in an earlier term must have ended: it would claim or append under the eyes of this one.
        let settled = !self.appending
            && !self.claiming
            && !self.opening
            && !self.importing
            && self.steps == 0;
        if self.fenced && self.consuming && self.known == Known::No && settled {
            self.known = Known::Soon;
            self.opening = true;
            let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
            let open = async move { Outcome::Opened(term, access.open(term).await) };
            self.ops.push(open.boxed());
        }
        // Without the fence they wait until it is ours again, or the broker delivers them anew.
        let ours = !self.fenced || self.consuming;
        if ours && !self.appending && !self.partings.is_empty() {
            self.start_append(now);
        }
        if self.import_now && self.is_open() && self.access.exit.takes() == Takes::Yes {
            self.start_import();
        }
        if self.claim_due().is_some_and(|at| at <= now) {
            self.start_claim();
        }
        if self.renew_at <= now {
            self.renew_at = now + LEASE / 3;
            if !self.in_hand.is_empty() {
                let places = self.in_hand.keys().cloned().collect();
                let access = Arc::clone(&self.access);
                let renew = async move {
                    access.renew(places).await;
                    Outcome::Renewed
                };
                self.ops.push(renew.boxed());
            }
        }
    }

    /// Takes over what Vumi kept for later, where that is to be looked for.
    fn start_import(&mut self) {
        let Some((transport, from)) = self.imports.clone() else {
            return;
        };
        (self.importing, self.import_now) = (true, false);
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let alone = self.fenced;
        let import = async move {
            let places = import::import(&access, term, alone, (&transport, from)).await;
            Outcome::Imported(term, places)
        };
        self.ops.push(import.boxed());
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Waits for the next thing that happens.
    pub(in crate::engine) async fn event(&mut self) -> Event {
        let timer = self
            .claim_due()
            .map_or(self.renew_at, |at| at.min(self.renew_at));
        tokio::select! {
            biased;
            Some(outcome) = self.ops.next(), if !self.ops.is_empty() => self.settle(outcome),
            () = tokio::time::sleep_until(timer) => Event::Turn,
            Ok(()) = self.health.changed() => {
                self.wake_at(Instant::now());
                Event::Turn
            }
        }
    }

    fn settle(&mut self, outcome: Outcome) -> Event {
        let now = Instant::now();
        match outcome {
            Outcome::Opened(term, places) => {
                self.opening = false;
                if term != self.access.exit.term() {
                    return Event::Turn;
                }
                match places {
                    Some(places) => {
                        self.book.load(places);
                        self.known = Known::Yes;
                        self.wake_at(now);
                        self.depth_at = now;
                        self.import_now = true;
                    }
                    None => self.known = Known::No,
                }
            }
            Outcome::Imported(term, places) => {
                self.importing = false;
                self.found(term, places, now);
            }
            Outcome::Found(term, places) => self.found(term, places, now),
            Outcome::Appended {
                places,
                receipts,
                due,
                done,
            } => {
                self.appending = false;
                places.iter().for_each(|place| self.book.appended(place));
                let due = match std::mem::take(&mut self.look_again) {
                    true => Some(now),
                    false => due,
                };
                if let Some(due) = due {
                    self.wake_at(due);
                }
                return match done {
                    true => Event::Appended(receipts),
                    false => Event::Forgotten(receipts),
                };
            }
            Outcome::Claimed(term, taken) => {
                self.claiming = false;
                return self.claimed(term, taken, now);
            }
            Outcome::Stepped {
                place,
                id,
                term,
                again,
                next,
            } => {
                self.steps -= 1;
                if term == self.access.exit.term() {
                    return self.stepped(place, id, again, next, now);
                }
            }
            // What was counted before the fence was lost is another's to tell.
            Outcome::Depth(term, quiet, Some(depth)) if term == self.access.exit.term() => {
                self.depth(quiet, &depth);
            }
            Outcome::Depth(..) | Outcome::Renewed => {}
        }
        Event::Turn
    }

    /// The store holds something of these lanes.
    fn found(&mut self, term: u64, places: Option<Vec<Place>>, now: Instant) {
        if term != self.access.exit.term() {
            return;
        }
        if self.fenced {
            let places = places.iter().flatten();
            places.for_each(|place| self.book.note(place));
        }
        self.wake_at(now);
    }

    /// `quiet`: nothing was under way or in hand when the depth was asked for, after so many appends.
    fn depth(&mut self, quiet: Option<u64>, depth: &Depth) {
        if depth.messages == 0 {
            self.oldest = [None; 2];
            if quiet == Some(self.appends) && self.is_idle() {
                // Somebody dropped what we thought was there.
                self.book.all_emptied();
            }
        } else if self.is_empty() {
            // Somebody appended who had the fence before and did not know yet that it is lost.
            let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
            let look = async move { Outcome::Found(term, access.lanes().await) };
            self.ops.push(look.boxed());
        }
        let oldest = self.oldest.iter().flatten().min().copied();
        self.gauges.note(&self.access.queue, depth, oldest);
    }

    /// Looks how much the store holds, also where nothing is known of; called every second or so.
    pub(in crate::engine) fn tick(&mut self, now: Instant) {
        self.note_clocks(now);
        if self.oldest_since + MEMORY <= now {
            self.oldest_since = now;
            self.oldest = [None, self.oldest[0]];
        }
        if !self.is_open() || now < self.depth_at {
            return;
        }
        self.depth_at = now + POLL;
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let quiet = self.is_idle().then_some(self.appends);
        let depth = async move { Outcome::Depth(term, quiet, access.depth().await) };
        self.ops.push(depth.boxed());
    }

    /// A store inside this process goes by the machine's clock: what waits there would wait longer by as much as that was
    /// set back. One attempt too early hurts nobody.
    fn note_clocks(&mut self, now: Instant) {
        let (then, wall) = std::mem::replace(&mut self.clocks, (now, crate::clock::now()));
        if !self.access.has_own_clock()
            && self.clocks.1 + SET_BACK < wall + now.duration_since(then)
        {
            tracing::warn!(
                queue = self.access.queue,
                "the clock was set back: what waits in the journal is tried again now"
            );
            let access = Arc::clone(&self.access);
            let hurry = async move {
                access.hurry().await;
                Outcome::Renewed
            };
            self.ops.push(hurry.boxed());
        }
    }

    /// Gives back what is claimed, so that others need not wait for the end of the leases.
    pub(in crate::engine) async fn close(&mut self) {
        let places: Vec<Place> = self.in_hand.drain().map(|(place, _)| place).collect();
        if !places.is_empty() {
            let release = self.access.release(self.access.exit.term(), places);
            let _ = tokio::time::timeout(Duration::from_secs(1), release).await;
        }
        self.gauges.forget(&self.access.queue);
    }
}
