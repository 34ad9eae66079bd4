//! What the broker says of a worker's queues.

use crate::status::{BACKLOG, class};
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::{Flow, Resource};

/// Readings of the queues of one virtual host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Broker {
    /// Host and virtual host for people, without credentials.
    pub address: Option<String>,
    /// Why depths cannot be read; none if they were.
    pub unread: Option<Unread>,
    /// Queues by name. With depths read, one that is not among them does not exist; where only consumers are counted, it was
    /// not asked for yet.
    pub queues: BTreeMap<String, Queue>,
}

/// Why depths are not known. An error is never taken for zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nobody has looked yet: the operator has just started, or the resource is new.
    NotYet,
    /// The broker itself does not answer.
    Broker(String),
    /// The broker answers and refuses user, password or virtual host of the Secret, which is that of the pods as well.
    Refused(String),
    /// The management API does not answer; consumers may be known all the same.
    Management(String),
    /// The management API refuses the user; consumers may be known all the same.
    Forbidden(String),
}

/// One queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Queue {
    /// Messages that wait.
    pub ready: u64,
    /// Messages in hand of consumers. None where only the broker was asked: it does not say.
    pub unacked: Option<u64>,
    /// Consumers. None if not known.
    pub consumers: Option<u32>,
    /// Messages that come, each second. None if not known.
    pub arriving: Option<f64>,
    /// Messages that consumers have finished, each second. None if not known.
    pub handled: Option<f64>,
}

/// All that a worker reads, taken together: its queues and the parts into which it divides them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Messages that wait.
    pub ready: u64,
    /// Messages in hand.
    pub unacked: u64,
    /// Messages that come, each second.
    pub arriving: f64,
    /// Messages that are finished, each second. None where the broker keeps no rates.
    pub handled: Option<f64>,
    /// Whether all its queues exist, so that what is published waits in them.
    pub declared: bool,
}

impl Queue {
    /// Whether a status could tell of the difference to another reading.
    fn is_news(&self, before: &Self) -> bool {
        let sign = |queue: &Self| {
            let idle = queue.handled.is_some_and(|rate| rate <= 0.0);
            (class(queue.ready, BACKLOG), queue.consumers, idle)
        };
        sign(self) != sign(before)
    }
}

impl Broker {
    /// The queues of which a status could tell something else than after the last reading.
    pub fn news(&self, before: &Self) -> BTreeSet<String> {
        let new = self.queues.iter().filter(|(name, queue)| {
            let before = before.queues.get(*name);
            before.is_none_or(|before| queue.is_news(before))
        });
        let gone = before.queues.keys();
        let gone = gone.filter(|name| !self.queues.contains_key(*name));
        new.map(|(name, _)| name).chain(gone).cloned().collect()
    }

    /// What a worker's queues hold. None if that is not known.
    pub fn totals(&self, resource: &Resource) -> Option<Totals> {
        if self.unread.is_some() {
            return None;
        }
        let mut totals = Totals {
            declared: true,
            ..Totals::default()
        };
        for (name, flow) in consumed(resource) {
            let whole = self.queues.get(&name);
            totals.declared &= whole.is_some();
            let whole = whole.copied().unwrap_or_default();
            totals.arriving += whole.arriving.unwrap_or(0.0);
            let parts: Vec<Queue> = resource
                .division(flow)
                .iter()
                .filter_map(|part| self.queues.get(&format!("{name}.{part}")))
                .copied()
                .collect();
            // What passes a whole queue on has not been handled yet.
            let handled = match parts.is_empty() {
                true => whole.handled,
                false => parts
                    .iter()
                    .filter_map(|part| part.handled)
                    .reduce(|a, b| a + b),
            };
            totals.handled = match (totals.handled, handled) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
            for queue in parts.iter().chain([&whole]) {
                totals.ready = totals.ready.saturating_add(queue.ready);
                let unacked = queue.unacked.unwrap_or(0);
                totals.unacked = totals.unacked.saturating_add(unacked);
            }
        }
        Some(totals)
    }

    /// Messages that were set aside. None if that is not known.
    pub fn parked(&self, resource: &Resource) -> Option<u64> {
        if self.unread.is_some() {
            return None;
        }
        let queues = consumed(resource).into_iter();
        let parked = queues.filter_map(|(name, _)| self.queues.get(&format!("{name}.parked")));
        Some(parked.map(|queue| queue.ready).sum())
    }

    /// The queues that the worker reads and the parts into which it divides them, those that are there.
    fn read(&self, resource: &Resource) -> Vec<(String, Queue)> {
        let mut read = Vec::new();
        for (name, flow) in consumed(resource) {
            let parts = resource.division(flow).into_iter();
            let parts = parts.map(|part| format!("{name}.{part}"));
            for name in std::iter::once(name.clone()).chain(parts) {
                read.extend(self.queues.get(&name).map(|queue| (name, *queue)));
            }
        }
        read
    }

    /// Consumers of each queue that the worker reads, and of the parts of these, as far as known. A queue that surely does not
    /// exist has none; a part is made by whoever is to read it first.
    pub fn consumers(&self, resource: &Resource) -> Vec<(String, u32)> {
        let there = self.read(resource).into_iter();
        let known = there.filter_map(|(name, queue)| Some((name, queue.consumers?)));
        let missing = consumed(resource).into_iter().filter(|(name, _)| {
            let read = self.unread.is_none();
            read && !self.queues.contains_key(name)
        });
        known.chain(missing.map(|(name, _)| (name, 0))).collect()
    }

    /// Whether it is known of each queue that the worker reads how many consumers it has. Of parts only readings of depths say
    /// that.
    pub fn knows_consumers(&self, resource: &Resource) -> bool {
        let known = |name: &str| self.queues.get(name).is_some_and(|q| q.consumers.is_some());
        self.unread.is_none() || consumed(resource).iter().all(|(name, _)| known(name))
    }

    /// Whether messages wait in a queue or a part that somebody reads.
    pub fn waits_before_consumers(&self, resource: &Resource) -> bool {
        let mut queues = self.read(resource).into_iter();
        queues.any(|(_, queue)| queue.ready > 0 && queue.consumers.is_some_and(|some| some > 0))
    }
}

fn consumed(resource: &Resource) -> Vec<(String, Flow)> {
    let topology = resource.topology();
    let ports = topology.intake.iter().chain(&topology.replies);
    ports.map(|port| (port.queue(), port.flow)).collect()
}
