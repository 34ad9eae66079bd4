//! What passed between a worker and its broker, counted as the engine counts its own deliveries, and what a case wants to
//! happen to it.

use crate::conformance::faults::{Mischief, Mishap};
use crate::engine::Counts;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Shared by all connections of one worker.
pub(in crate::conformance) struct Book {
    page: Mutex<Page>,
    /// Confirmations pass while this is false.
    pub(super) held: watch::Sender<bool>,
    /// Connections live while this is false.
    pub(super) away: watch::Sender<bool>,
    /// Queues whose publications are data.
    data: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct Page {
    pub(super) received: u64,
    /// Deliveries that the worker is rid of: acknowledged, or refused for good.
    pub(super) ended: u64,
    pub(super) parked: u64,
    pub(super) returned: u64,
    pub(super) open: u64,
    /// Returned to the queue, and not delivered again yet.
    pub(super) owed: u64,
    pub(super) attempts: HashMap<String, u32>,
    pub(super) acks_tried: u64,
    pub(super) acks_passed: u64,
    pub(super) swallowed: bool,
    pub(super) unroutable: BTreeSet<String>,
    pub(super) unrouted: u64,
    pub(super) mishaps: VecDeque<Mishap>,
    pub(super) careless: Option<String>,
}

impl Book {
    pub(super) fn new(data: BTreeSet<String>) -> Self {
        Self {
            page: Mutex::default(),
            held: watch::Sender::new(false),
            away: watch::Sender::new(false),
            data,
        }
    }

    /// Whether messages published to this queue are data.
    pub(super) fn is_data(&self, queue: &str) -> bool {
        self.data.contains(queue)
    }

    pub(super) fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is with the worker, or about to be again.
    pub(super) fn is_at_rest(&self) -> bool {
        let page = self.page();
        page.open == 0 && page.owed == 0
    }

    /// See [`Counts`]; what a worker does inside itself is not seen.
    pub(super) fn counts(&self) -> Counts {
        let page = self.page();
        Counts {
            received: page.received,
            done: page.ended.saturating_sub(page.parked),
            parked: page.parked,
            returned: page.returned,
            in_flight: page.open,
            ..Counts::default()
        }
    }
}

impl Mischief for Book {
    fn hold_confirmations(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    fn go_away(&self) {
        self.away.send_replace(true);
    }

    fn come_back(&self) {
        self.away.send_replace(false);
    }

    fn next(&self, mishaps: &[Mishap]) {
        self.page().mishaps.extend(mishaps);
    }

    fn mishaps_left(&self) -> usize {
        self.page().mishaps.len()
    }

    fn unroutable(&self, queues: impl IntoIterator<Item = String>) {
        self.page().unroutable = queues.into_iter().collect();
    }

    fn unrouted(&self) -> u64 {
        self.page().unrouted
    }

    fn swallow_acks(&self, swallow: bool) {
        self.page().swallowed = swallow;
    }

    fn acks_tried(&self) -> u64 {
        self.page().acks_tried
    }

    fn acks_passed(&self) -> u64 {
        self.page().acks_passed
    }

    fn careless(&self) -> Option<String> {
        self.page().careless.clone()
    }
}
