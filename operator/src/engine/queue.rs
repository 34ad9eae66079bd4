//! The queue of resources to look at: each stands in it once, however many events there were; one that fails waits longer each
//! time, whatever else happens to it, until it succeeds or somebody edits it.

use rand::RngExt;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Waiting times after failures.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(120),
        }
    }
}

impl Backoff {
    /// After this many failures in a row: between half and all of a time that doubles.
    pub fn after(self, failures: u32) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(20);
        let full = self.initial.saturating_mul(factor).min(self.max);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// How looking at something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All is well: nothing is to be done until something happens.
    Well,
    /// All is well so far; look again after this time.
    Again(Duration),
    /// It failed; it is tried again, and not before the time that the server asked for.
    Failed(Option<Duration>),
    /// It was not tried at all.
    Dropped,
}

#[derive(Debug, Default)]
struct Entry {
    /// When it is to be looked at; none while nothing is to be done.
    due: Option<Instant>,
    running: bool,
    failures: u32,
    /// Until when a failure holds it back.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Inner<K> {
    entries: HashMap<K, Entry>,
    /// Those that are due and not in hand, by time.
    order: BTreeSet<(Instant, K)>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
    backoff: Backoff,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            order: BTreeSet::new(),
        };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            backoff,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened: look at it after a while, in which more may happen. A failure holds it back all the same.
    pub fn add(&self, key: K, after: Duration) {
        self.inner().schedule(key, Instant::now() + after);
        self.changed.notify_one();
    }

    /// Somebody edited it: what failed before says nothing any more.
    pub fn add_edited(&self, key: K) {
        let mut inner = self.inner();
        let entry = inner.entries.entry(key.clone()).or_default();
        (entry.failures, entry.held_until) = (0, None);
        inner.schedule(key, Instant::now());
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits for the next one that is due. It is in hand until [`Queue::done`].
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let first = {
                let mut inner = self.inner();
                let first = inner.order.first().map(|(due, _)| *due);
                match first {
                    Some(due) if due <= Instant::now() => {
                        if let Some((_, key)) = inner.order.pop_first() {
                            let entry = inner.entries.entry(key.clone()).or_default();
                            (entry.due, entry.running) = (None, true);
                            return key;
                        }
                        None
                    }
                    first => first,
                }
            };
            match first {
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = changed => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// It is out of hand.
    pub fn done(&self, key: &K, ended: Ended) {
        let now = Instant::now();
        let mut inner = self.inner();
        let Some(entry) = inner.entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        let mut due = entry.due.take();
        match ended {
            Ended::Well | Ended::Again(_) => (entry.failures, entry.held_until) = (0, None),
            Ended::Failed(asked) => {
                entry.failures = entry.failures.saturating_add(1);
                let wait = self
                    .backoff
                    .after(entry.failures)
                    .max(asked.unwrap_or_default());
                entry.held_until = Some(now + wait);
                due = Some(now);
            }
            Ended::Dropped => {}
        }
        if let Ended::Again(after) = ended {
            let again = now + after;
            due = Some(due.map_or(again, |due| due.min(again)));
        }
        match due {
            Some(due) => inner.schedule(key.clone(), due),
            None if entry.failures == 0 => {
                inner.entries.remove(key);
            }
            None => {}
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// How many are due or wait for their time, and how many failed last time.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.inner();
        let failing = inner.entries.values().filter(|entry| entry.failures > 0);
        (inner.order.len(), failing.count())
    }

    /// Whether nothing is in hand and nothing is due before that time.
    pub fn is_idle(&self, within: Duration) -> bool {
        let inner = self.inner();
        let soon = Instant::now() + within;
        let due = inner.order.first().is_some_and(|(due, _)| *due <= soon);
        !due && !inner.entries.values().any(|entry| entry.running)
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    /// Makes it due at a time, unless it is due earlier; not before its failure allows.
    fn schedule(&mut self, key: K, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        let at = entry.due.map_or(at, |due| due.min(at));
        let at = entry.held_until.map_or(at, |held| held.max(at));
        if let Some(due) = entry.due.replace(at)
            && !entry.running
        {
            self.order.remove(&(due, key.clone()));
        }
        if !entry.running {
            self.order.insert((at, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(100);

    fn queue() -> Queue<&'static str> {
        Queue::new(Backoff::default())
    }

    async fn nothing(queue: &Queue<&'static str>, within: Duration) {
        let next = timeout(within, queue.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_events_are_one_look() {
        let queue = queue();
        for _ in 0..100 {
            queue.add("a", SOON);
        }
        nothing(&queue, SOON / 2).await;
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Well);
        nothing(&queue, Duration::from_secs(3600)).await;
        assert_eq!(queue.sizes(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_in_two_hands_and_no_event_is_lost() {
        let queue = queue();
        queue.add("a", Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        queue.add("a", Duration::ZERO);
        nothing(&queue, Duration::from_secs(3600)).await;
        assert!(!queue.is_idle(Duration::ZERO));
        queue.done(&"a", Ended::Well);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Well);
        assert!(queue.is_idle(Duration::from_secs(3600)));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_whatever_happens_meanwhile() {
        let queue = queue();
        queue.add("a", Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let began = Instant::now();
            assert_eq!(queue.next().await, "a");
            waits.push(began.elapsed());
            queue.done(&"a", Ended::Failed(None));
            // Events do not make it come earlier.
            for _ in 0..10 {
                queue.add("a", Duration::ZERO);
            }
        }
        let backoff = Backoff::default();
        for (failures, wait) in (1u32..).zip(&waits[1..]) {
            let full = backoff
                .initial
                .saturating_mul(1 << (failures - 1))
                .min(backoff.max);
            let slack = Duration::from_millis(2);
            assert!(
                *wait + slack >= full / 2 && *wait <= full + slack,
                "{failures}: {wait:?}"
            );
        }
        assert_eq!(queue.sizes(), (1, 1));
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Well);
        queue.add("a", Duration::ZERO);
        let began = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(began.elapsed(), Duration::ZERO, "success forgets");
    }

    #[tokio::test(start_paused = true)]
    async fn an_edit_is_tried_at_once() {
        let queue = queue();
        queue.add("a", Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Failed(Some(Duration::from_secs(60))));
        nothing(&queue, Duration::from_secs(59)).await;
        queue.add_edited("a");
        let began = Instant::now();
        assert_eq!(queue.next().await, "a");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_looked_at_again() {
        let queue = queue();
        queue.add("a", Duration::ZERO);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Again(Duration::from_secs(10)));
        nothing(&queue, Duration::from_secs(9)).await;
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Ended::Well);
        nothing(&queue, Duration::from_secs(60)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_comes_first() {
        let queue = queue();
        queue.add("late", Duration::from_secs(5));
        queue.add("early", Duration::from_secs(1));
        queue.add("late", Duration::from_secs(9));
        assert_eq!(queue.next().await, "early");
        assert_eq!(queue.next().await, "late");
    }
}
