//! The lane journal of one consumed queue (R3): what waits longer than the window may hold moves into the state store,
//! lane by lane, and is replayed from its head.
//!
//! On a fenced queue nobody else works on the journal, so which lanes have one is known here, without asking the store.
//! A lane moves as a whole: when a message is appended, everything of its lane before it is handled or in the store.

mod append;
mod book;
mod exit;
mod gauges;
mod hold;
mod import;
mod kept;
mod replay;
mod store;
mod turn;

pub(super) use exit::{Exit, Takes};
pub(super) use gauges::Gauges;
pub(super) use hold::{Hold, Look, Schedules, millis};
pub(super) use kept::JournalWatch;

use super::consumer::PREFETCH;
use super::lanes::Lane;
use super::store_watch::Trouble;
use crate::state::journal::{
    About, Append, Claimed, Depth, Due, Lane as Place, Next, Reason, Step,
};
use crate::state::legacy::Reading;
use crate::state::{StateStore, StoreHealth};
use book::Book;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use store::{Access, LEASE, Taken};
use tokio::sync::watch;
use tokio::time::Instant;
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
/// A clock that was set back by less changes nothing that matters.
const SET_BACK: Duration = Duration::from_secs(2);
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

    /// The number of its entry, if that is removed once it is done.
    pub(super) fn last(&self) -> Option<u64> {
        (self.then == Step::Done).then_some(self.id)
    }
}

/// Who hears that a message is in the store.
pub(super) enum Receipt {
    /// The broker: it is acknowledged.
    Delivery {
        tag: u64,
        generation: u64,
        body: Bytes,
        message_id: Option<String>,
    },
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
    Found(u64, Option<Vec<Place>>),
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
    Depth(u64, Option<u64>, Option<Depth>),
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
    fenced: bool,
    imports: Option<(String, Reading)>,
    /// What Vumi kept is to be taken over as soon as the store takes it.
    import_now: bool,
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
    /// Heads of a fenced queue that a process that died may have been working on: its claims were ended.
    suspects: usize,
    /// Counts appends, so that a depth that was read before one is not believed.
    appends: u64,
    depth_at: Instant,
    /// Both clocks when they were looked at last.
    clocks: (Instant, SystemTime),
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
    /// The transport whose messages Vumi kept for later are taken over, and from where on.
    pub(super) imports: Option<(String, Reading)>,
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
            fenced: parts.fenced,
            import_now: !parts.fenced && parts.imports.is_some(),
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
            suspects: if parts.fenced { REPLAYS } else { 0 },
            appends: 0,
            depth_at: now,
            clocks: (now, crate::clock::now()),
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
        // Whoever has the fence counts from now on; if that is us, soon again.
        self.oldest = [None; 2];
        self.gauges.forget(&self.access.queue);
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
        let importing = self.fenced && self.importing;
        self.is_quiet() && self.in_hand.is_empty() && !self.claiming && !importing
    }

    fn is_empty(&self) -> bool {
        self.fenced && self.known == Known::Yes && self.book.is_empty()
    }
}

/// The moment of a due time on this process's clock; none for one that somebody must release.
fn instant(due: Due) -> Option<Instant> {
    let wait = match due {
        Due::After(wait) => wait,
        Due::At(at) => at.duration_since(crate::clock::now()).unwrap_or_default(),
        Due::Released => return None,
    };
    Instant::now().checked_add(wait)
}

#[cfg(test)]
mod tests;
