//! The lane journal of one consumed queue (R3): what waits longer than the window may hold moves into the state store,
//! lane by lane, and is replayed from its head.
//!
//! On a fenced queue nobody else works on the journal, so which lanes have one is known here, without asking the store.
//! A lane moves as a whole: when a message is appended, everything of its lane before it is handled or in the store.

mod book;
mod exit;
mod gauges;
mod hold;
mod import;
mod store;

pub(super) use exit::{Exit, Takes};
pub(super) use gauges::Gauges;
pub(super) use hold::{Hold, Look, Schedules, millis};

use super::consumer::PREFETCH;
use super::lanes::Lane;
use super::store_watch::Trouble;
use crate::broker::RawDelivery;
use crate::state::journal::{
    About, Append, Claimed, Depth, Due, Entry, Lane as Place, Next, Reason, Step,
};
use crate::state::{StateStore, StoreHealth};
use book::Book;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use hold::{Occurrence, own_list};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use store::{AGAIN, Access, LEASE, Taken};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Lanes that are replayed beside each other: half as many as fresh messages, so that both flow.
const REPLAYS: usize = PREFETCH as usize / 2;
/// So many messages may wait in the window for their next attempt; then the next ones leave it at once.
const SLEEPERS: usize = PREFETCH as usize / 2;
/// The store is asked at least so often while it may hold something that nobody here knows of: what an operator
/// released, what another replica appended.
const POLL: Duration = Duration::from_secs(5);
/// The store is never asked in a tighter loop than this.
const BREATH: Duration = Duration::from_millis(20);
/// The age of the oldest message is that of the oldest one seen in this span or the one before.
const MEMORY: Duration = Duration::from_secs(300);

/// A message that came out of the journal.
pub(super) struct Replay {
    place: Place,
    id: u64,
    pub(super) term: u64,
    pub(super) about: About,
    /// It stands in the list of its own lane, where it can wait on; else it moves there if it must wait.
    home: bool,
    /// What becomes of its entry once it has its verdict.
    then: Step,
}

impl Replay {
    pub(super) fn is_at_home(&self) -> bool {
        self.home
    }
}

/// Who hears that a message is in the store.
pub(super) enum Receipt {
    /// The broker: it is acknowledged.
    Delivery { tag: u64, generation: u64 },
    /// The list that it stood in before.
    Replay(Box<Replay>),
}

/// A message on its way into the store.
struct Parting {
    append: Append,
    receipt: Receipt,
    /// When its lane is due, if nothing was in it before.
    due: Option<Due>,
}

/// What the consumer must know of.
pub(super) enum Event {
    /// These are in the store.
    Appended(Vec<Receipt>),
    /// These will not be: their deliveries are not ours any more, or the worker stops.
    Forgotten(Vec<Receipt>),
    /// Messages whose turn has come.
    Heads(Vec<Claimed>),
    /// Nothing but that time has passed.
    Turn,
}

enum Outcome {
    Opened(u64, Option<Vec<Place>>),
    Imported(u64, Option<Vec<Place>>),
    Appended {
        places: Vec<Place>,
        receipts: Vec<Receipt>,
        due: Option<Instant>,
        done: bool,
    },
    Claimed(u64, Option<Taken>),
    Stepped {
        place: Place,
        id: u64,
        term: u64,
        again: Option<Instant>,
        next: Option<Next>,
    },
    Depth(Option<u64>, Option<Depth>),
    Renewed,
}

/// A lane whose head is worked on here.
#[derive(Default)]
struct InHand {
    /// The store is being told what became of the head.
    stepping: bool,
    /// Something of it was on its way into the store meanwhile: that it was found empty may be past.
    touched: bool,
    /// The next head, which was claimed before the answer came.
    early: Option<Claimed>,
}

/// Whether the lanes of a fenced queue are known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The fence is not ours.
    No,
    /// They are being read.
    Soon,
    Yes,
}

pub(super) struct LaneJournal {
    access: Arc<Access>,
    health: watch::Receiver<StoreHealth>,
    gauges: Arc<Gauges>,
    /// Messages in the store, when it was asked last.
    held: u64,
    fenced: bool,
    imports: Option<String>,
    /// The broker sends us messages.
    consuming: bool,
    /// Heads may be worked on.
    working: bool,
    known: Known,
    opening: bool,
    importing: bool,
    book: Book,
    partings: VecDeque<Parting>,
    appending: bool,
    /// A lane was found empty while something was on its way into it.
    look_again: bool,
    in_hand: HashMap<Place, InHand>,
    wake: Option<Instant>,
    claiming: bool,
    claim_failures: u32,
    turn: usize,
    renew_at: Instant,
    steps: usize,
    /// Heads that a process that died may have been working on.
    suspects: usize,
    /// Counts appends, so that a depth that was read before one is not believed.
    appends: u64,
    depth_at: Instant,
    /// The birth of the oldest message seen lately, and the span before.
    oldest: [Option<u64>; 2],
    oldest_since: Instant,
    ops: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

/// What the journals of a worker are made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) store: Arc<dyn StateStore>,
    /// A store that forgets is good enough.
    pub(super) volatile_will_do: bool,
    pub(super) fenced: bool,
    /// The transport whose retries of Vumi are taken over by who holds the fence.
    pub(super) imports: Option<String>,
    pub(super) trouble: Trouble,
    /// Shared by the journals of a divided queue.
    pub(super) gauges: Arc<Gauges>,
}

impl LaneJournal {
    /// The journal of one queue. Nothing is tried again once `halt` fires.
    pub(super) fn new(parts: Parts, queue: String, halt: CancellationToken) -> Self {
        let now = Instant::now();
        let health = parts.store.health();
        let exit = Exit::new(parts.store, parts.volatile_will_do, SLEEPERS);
        let access = Access {
            queue,
            exit: Arc::new(exit),
            trouble: parts.trouble,
            halt,
        };
        Self {
            access: Arc::new(access),
            health,
            gauges: parts.gauges,
            held: 0,
            fenced: parts.fenced,
            imports: parts.imports,
            consuming: false,
            working: false,
            known: Known::No,
            opening: false,
            importing: false,
            book: Book::default(),
            partings: VecDeque::new(),
            appending: false,
            look_again: false,
            in_hand: HashMap::new(),
            wake: Some(now),
            claiming: false,
            claim_failures: 0,
            turn: 0,
            renew_at: now + LEASE / 3,
            steps: 0,
            suspects: REPLAYS,
            appends: 0,
            depth_at: now,
            oldest: [None; 2],
            oldest_since: now,
            ops: FuturesUnordered::new(),
        }
    }

    pub(super) fn exit(&self) -> &Arc<Exit> {
        &self.access.exit
    }

    /// Whether deliveries may be looked at: on a fenced queue only once the lanes are known.
    pub(super) fn is_open(&self) -> bool {
        !self.fenced || self.known == Known::Yes
    }

    /// The consumer's state changed; `consuming` whether the broker sends us messages. The fence may have been another's
    /// meanwhile.
    pub(super) fn consumer_state(&mut self, consuming: bool) {
        self.consuming = consuming;
        self.doubt();
    }

    /// Whatever was known or claimed may be another's by now.
    pub(super) fn doubt(&mut self) {
        if !self.fenced {
            return;
        }
        self.access.exit.next_term();
        self.known = Known::No;
        self.in_hand.clear();
        self.suspects = REPLAYS;
    }

    /// Takes back what is not on its way yet.
    pub(super) fn forget_partings(&mut self) -> Vec<Receipt> {
        let partings = std::mem::take(&mut self.partings);
        let forget = |parting: Parting| {
            self.book.appended(&parting.append.lane);
            parting.receipt
        };
        partings.into_iter().map(forget).collect()
    }

    /// Whether a message of this lane goes behind others in the store.
    pub(super) fn has(&self, lane: Lane) -> bool {
        matches!(lane, Lane::Numbered(number) if self.fenced && self.book.has(number))
    }

    /// Whether a message of this lane goes behind others of its group.
    pub(super) fn has_in(&self, group: &str, lane: Lane) -> bool {
        matches!(lane, Lane::Numbered(number) if self.fenced && self.book.has_in(group, number))
    }

    /// Whether nothing of ours is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.partings.is_empty() && !self.appending && self.steps == 0
    }

    /// Nothing is under way and nothing in hand.
    pub(super) fn is_idle(&self) -> bool {
        self.is_quiet() && self.in_hand.is_empty() && !self.claiming && !self.importing
    }

    fn is_empty(&self) -> bool {
        self.fenced && self.known == Known::Yes && self.book.is_empty()
    }

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
    pub(super) fn append(
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
    pub(super) fn put_aside(
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

    /// A replayed message has its verdict.
    pub(super) fn done(&mut self, replay: Replay) {
        let again = match &replay.then {
            Step::Again(_, due) => instant(*due),
            Step::Done => None,
        };
        let step = replay.then.clone();
        self.step(&replay, step, again);
    }

    /// A replayed message waits on at the head of the list of its lane in this group; else it comes back.
    pub(super) fn hold_on(
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
    pub(super) fn wait_on(
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
    pub(super) fn take(&mut self, claimed: Claimed) -> (RawDelivery, Box<Replay>) {
        let Claimed { lane, id, entry } = claimed;
        let oldest = &mut self.oldest[0];
        *oldest = Some(oldest.map_or(entry.about.since, |o| o.min(entry.about.since)));
        let Occurrence { entry, then } = match entry.about.reason {
            Reason::Schedule => Occurrence::of(entry, SystemTime::now()),
            _ => Occurrence {
                entry,
                then: Step::Done,
            },
        };
        let suspect = self.suspects > 0;
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
    pub(super) fn come_home(&self, replay: &mut Replay, lane: Lane) {
        let own = match lane {
            Lane::Numbered(number) => replay.place.number == number,
            Lane::Free => true,
        };
        replay.home = own && replay.place.group.is_empty();
    }

    /// A replayed message stays where it is: it can be claimed again.
    pub(super) fn put_back(&mut self, replay: &Replay) {
        if replay.term == self.access.exit.term() && self.in_hand.remove(&replay.place).is_some() {
            self.start_release(vec![replay.place.clone()]);
            self.wake_at(Instant::now() + BREATH);
        }
    }

    /// Starts what is to be done now. `working`: heads may be worked on.
    pub(super) fn turn(&mut self, now: Instant, working: bool) {
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
        if !self.appending && !self.partings.is_empty() {
            self.start_append(now);
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

    /// Takes over what Vumi's failure worker kept, where that is to be looked for.
    fn start_import(&mut self) {
        let holds = self.fenced && self.access.exit.takes() == Takes::Yes;
        let Some(transport) = self.imports.clone().filter(|_| holds) else {
            return;
        };
        self.importing = true;
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let import =
            async move { Outcome::Imported(term, import::import(&access, term, &transport).await) };
        self.ops.push(import.boxed());
    }

    fn start_append(&mut self, now: Instant) {
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

    fn free(&self) -> usize {
        REPLAYS.saturating_sub(self.in_hand.len())
    }

    /// When heads are to be claimed.
    fn claim_due(&self) -> Option<Instant> {
        // A few at a time would cost as many questions as messages.
        let room = self.free() >= REPLAYS / 4;
        let may = self.working && self.is_open() && !self.claiming && room && !self.is_empty();
        self.wake.filter(|_| may)
    }

    fn start_claim(&mut self) {
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
    fn start_release(&mut self, places: Vec<Place>) {
        let (access, term) = (Arc::clone(&self.access), self.access.exit.term());
        let release = async move {
            access.release(term, places).await;
            Outcome::Renewed
        };
        self.ops.push(release.boxed());
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Waits for the next thing that happens.
    pub(super) async fn event(&mut self) -> Event {
        let timer = self
            .claim_due()
            .map_or(self.renew_at, |at| at.min(self.renew_at));
        tokio::select! {
            biased;
            Some(outcome) = self.ops.next(), if !self.ops.is_empty() => self.settle(outcome),
            () = tokio::time::sleep_until(timer.into()) => Event::Turn,
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
                        self.start_import();
                    }
                    None => self.known = Known::No,
                }
            }
            Outcome::Imported(term, places) => {
                self.importing = false;
                if term == self.access.exit.term() {
                    places
                        .iter()
                        .flatten()
                        .for_each(|place| self.book.appending(place));
                    self.wake_at(now);
                }
            }
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
            Outcome::Depth(quiet, Some(depth)) => self.depth(quiet, &depth),
            Outcome::Depth(_, None) | Outcome::Renewed => {}
        }
        Event::Turn
    }

    fn claimed(&mut self, term: u64, taken: Option<Taken>, now: Instant) -> Event {
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

    fn stepped(
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

    /// `quiet`: nothing was under way or in hand when the depth was asked for, after so many appends.
    fn depth(&mut self, quiet: Option<u64>, depth: &Depth) {
        self.held = depth.messages;
        if depth.messages == 0 {
            self.oldest = [None; 2];
            if quiet == Some(self.appends) && self.is_idle() {
                // Somebody dropped what we thought was there.
                self.book.all_emptied();
            }
        }
        let oldest = self.oldest.iter().flatten().min().copied();
        self.gauges.note(&self.access.queue, depth, oldest);
    }

    /// Refreshes the gauges; called every second or so.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.oldest_since + MEMORY <= now {
            self.oldest_since = now;
            self.oldest = [None, self.oldest[0]];
        }
        let failing = self.access.exit.takes() == Takes::Away;
        let dull = self.is_empty() && !failing && self.held == 0;
        if !self.is_open() || dull || now < self.depth_at {
            return;
        }
        self.depth_at = now + POLL;
        let (access, quiet) = (
            Arc::clone(&self.access),
            self.is_idle().then_some(self.appends),
        );
        let depth = async move { Outcome::Depth(quiet, access.depth().await) };
        self.ops.push(depth.boxed());
    }

    /// Gives back what is claimed, so that others need not wait for the end of the leases.
    pub(super) async fn close(&mut self) {
        let places: Vec<Place> = self.in_hand.drain().map(|(place, _)| place).collect();
        if !places.is_empty() {
            let release = self.access.release(self.access.exit.term(), places);
            let _ = tokio::time::timeout(Duration::from_secs(1), release).await;
        }
        self.gauges.forget(&self.access.queue);
    }
}

/// The moment of a due time on this process's clock; none for one that somebody must release.
fn instant(due: Due) -> Option<Instant> {
    let wait = match due {
        Due::After(wait) => wait,
        Due::At(at) => at.duration_since(SystemTime::now()).unwrap_or_default(),
        Due::Released => return None,
    };
    Instant::now().checked_add(wait)
}

#[cfg(test)]
mod tests;
