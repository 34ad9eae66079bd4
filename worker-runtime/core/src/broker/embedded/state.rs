//! Queues, bindings and consumers of the embedded broker, changed under one lock; no operation costs more than the
//! consumers of one queue or the messages it moves.

use super::message::{QueueId, Write};
use super::pending::Pending;
use super::queue::{Consumer, Life, Queue};
use crate::broker::{EXCHANGE, LinkState, QueueDepth, QueueSpec};
use std::collections::HashMap;
use tokio::sync::{oneshot, watch};

/// Why a queue cannot be used as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// Another connection has it for itself.
    Held,
    /// It is of another kind; the sentence says which.
    Kind(String),
}

/// Everything the broker knows.
pub(super) struct State {
    ids: u64,
    pub(super) names: HashMap<String, QueueId>,
    pub(super) queues: HashMap<QueueId, Queue>,
    /// Exchange → routing key → queues.
    bindings: HashMap<String, HashMap<String, Vec<QueueId>>>,
    pub(super) consumers: HashMap<u64, Consumer>,
    sessions: HashMap<u64, watch::Sender<LinkState>>,
    /// What waits for the disk; none without a state folder.
    pub(super) pending: Option<Pending>,
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    pub(super) memory_alarm: bool,
    /// Set when publishers that wait should look again.
    pub(super) room: bool,
    /// The writer waits for work.
    pub(super) writer_idle: bool,
}

impl State {
    pub(super) fn new(memory_limit: u64, pending: Option<Pending>) -> Self {
        Self {
            ids: 0,
            names: HashMap::new(),
            queues: HashMap::new(),
            bindings: HashMap::new(),
            consumers: HashMap::new(),
            sessions: HashMap::new(),
            pending,
            memory: 0,
            memory_limit,
            memory_alarm: false,
            room: false,
            writer_idle: false,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whom to wake after a change: the writer, the waiting publishers.
    pub(super) fn wakes(&mut self) -> (bool, bool) {
        let work = self.writer_idle
            && (self.is_closed() || self.pending.as_ref().is_some_and(|p| !p.is_empty()));
        if work {
            self.writer_idle = false;
        }
        (work, std::mem::take(&mut self.room))
    }

    /// Resolves when all writes so far are on disk; none without a disk.
    pub(super) fn flushed(&mut self) -> Option<oneshot::Receiver<()>> {
        let pending = self.pending.as_mut()?;
        let (done, written) = oneshot::channel();
        pending.push(Write::Mark(done));
        Some(written)
    }

    pub(super) fn open_session(&mut self) -> (u64, watch::Receiver<LinkState>) {
        let id = self.next_id();
        let (sender, receiver) = watch::channel(self.link());
        self.sessions.insert(id, sender);
        (id, receiver)
    }

    pub(super) fn has_session(&self, id: u64) -> bool {
        self.sessions.contains_key(&id)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn close_session(&mut self, id: u64) {
        let Some(link) = self.sessions.remove(&id) else {
            return;
        };
        let mine: Vec<u64> = self
            .consumers
            .values()
            .filter(|c| c.session == id)
            .map(|c| c.id)
            .collect();
        // All at once, so that what one returns is not delivered to another that is about to end.
        for consumer in &mine {
            if let Some(consumer) = self.consumers.get_mut(consumer) {
                consumer.cancelled = true;
            }
        }
        for consumer in mine {
            self.close_consumer(consumer);
        }
        let own: Vec<QueueId> = self
            .queues
            .iter()
            .filter(|(_, q)| q.life == Life::Exclusive(id))
            .map(|(id, _)| *id)
            .collect();
        for queue in own {
            self.delete(queue);
        }
        link.send_replace(LinkState::Closed);
        self.room = true;
    }

    fn link(&self) -> LinkState {
        if let Some(trouble) = self.pending.as_ref().and_then(|p| p.trouble.as_ref()) {
            return LinkState::Blocked(trouble.clone());
        }
        if self.memory_alarm {
            return LinkState::Blocked(format!(
                "more than {} MiB of messages wait in memory; publishers to long queues wait until consumers catch up",
                self.memory_limit >> 20
            ));
        }
        LinkState::Up {
            server: concat!("embedded ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// Tells every connection how things are.
    pub(super) fn tell_links(&mut self) {
        let now = self.link();
        for link in self.sessions.values() {
            link.send_if_modified(|old| {
                let changed = *old != now;
                *old = now.clone();
                changed
            });
        }
        self.room = true;
    }

    /// Declares a queue; `session` owns it if it is exclusive.
    pub(super) fn declare(&mut self, spec: &QueueSpec, session: u64) -> Result<QueueId, Clash> {
        let life = match spec {
            QueueSpec::Data(_) => Life::Durable { bound: true },
            QueueSpec::Parking(_) => Life::Durable { bound: false },
            QueueSpec::Reply(_) | QueueSpec::Copy { .. } | QueueSpec::Tap { .. } => {
                Life::Exclusive(session)
            }
        };
        let name = spec.name();
        let id = match self.names.get(name).copied() {
            None => self.create(name, life),
            Some(id) => {
                self.check(id, name, life)?;
                id
            }
        };
        let (exchange, keys) = match spec {
            QueueSpec::Copy { exchange, keys, .. } => (exchange.as_str(), keys.as_slice()),
            // Who publishes data declares its queue first, and no data queue is ever deleted here.
            QueueSpec::Tap { queues, .. } => (EXCHANGE, queues.as_slice()),
            _ => return Ok(id),
        };
        for key in keys {
            self.bind(exchange, key, id);
        }
        Ok(id)
    }

    fn create(&mut self, name: &str, life: Life) -> QueueId {
        let id = self.next_id();
        self.restore(id, Queue::new(name.to_owned(), life));
        if let (Life::Durable { bound }, Some(pending)) = (life, &mut self.pending) {
            let name = name.to_owned();
            pending.push(Write::Queue { id, name, bound });
        }
        id
    }

    /// Puts a queue in its place: a new one, or one from disk with its messages.
    pub(super) fn restore(&mut self, id: QueueId, queue: Queue) {
        self.ids = self.ids.max(id);
        let name = queue.name.clone();
        self.memory += queue.bytes;
        self.names.insert(name.clone(), id);
        if queue.life == (Life::Durable { bound: true }) {
            self.bind(EXCHANGE, &name, id);
        }
        self.queues.insert(id, queue);
        self.check_memory();
    }

    fn check(&mut self, id: QueueId, name: &str, wanted: Life) -> Result<(), Clash> {
        let Some(queue) = self.queues.get_mut(&id) else {
            return Ok(());
        };
        match (queue.life, wanted) {
            (Life::Durable { bound: false }, Life::Durable { bound: true }) => {
                queue.life = wanted;
                self.bind(EXCHANGE, name, id);
                if let Some(pending) = &mut self.pending {
                    let (name, bound) = (name.to_owned(), true);
                    pending.push(Write::Queue { id, name, bound });
                }
                Ok(())
            }
            (Life::Durable { .. }, Life::Durable { .. }) => Ok(()),
            (Life::Exclusive(a), Life::Exclusive(b)) if a == b => Ok(()),
            (Life::Exclusive(_), Life::Exclusive(_)) => Err(Clash::Held),
            (Life::Durable { .. }, _) => Err(Clash::Kind(format!(
                "queue {name:?} exists and is durable; a reply or copy queue needs another name"
            ))),
            (Life::Exclusive(_), _) => Err(Clash::Kind(format!(
                "queue {name:?} exists as a reply or copy queue of a connection; a durable queue needs another name"
            ))),
        }
    }

    fn bind(&mut self, exchange: &str, key: &str, queue: QueueId) {
        let bound = self
            .bindings
            .entry(exchange.to_owned())
            .or_default()
            .entry(key.to_owned())
            .or_default();
        if !bound.contains(&queue) {
            bound.push(queue);
        }
    }

    pub(super) fn route(&self, exchange: &str, key: &str) -> Vec<QueueId> {
        if exchange.is_empty() {
            return self.names.get(key).copied().into_iter().collect();
        }
        self.bindings
            .get(exchange)
            .and_then(|keys| keys.get(key))
            .cloned()
            .unwrap_or_default()
    }

    /// Ends an exclusive queue; whoever waits for its name gets its turn.
    pub(super) fn delete(&mut self, id: QueueId) {
        let Some(queue) = self.queues.remove(&id) else {
            return;
        };
        self.names.remove(&queue.name);
        self.freed(queue.bytes);
        for keys in self.bindings.values_mut() {
            keys.retain(|_, bound| {
                bound.retain(|b| *b != id);
                !bound.is_empty()
            });
        }
        let mut waiting: Vec<u64> = self
            .consumers
            .values()
            .filter(|c| c.queue.is_none() && c.spec.name() == queue.name)
            .map(|c| c.id)
            .collect();
        waiting.sort_unstable();
        for consumer in waiting {
            self.attach(consumer);
        }
    }

    pub(super) fn depth(&self, name: &str) -> Option<QueueDepth> {
        let queue = self.queues.get(self.names.get(name)?)?;
        let serving = queue.consumers.iter().filter(|id| {
            !queue.shelved
                && queue.holder.is_none_or(|holder| holder == **id)
                && self
                    .consumers
                    .get(id)
                    .is_some_and(|c| !c.cancelled && (queue.holder.is_some() || !c.fenced))
        });
        Some(QueueDepth {
            ready: u32::try_from(queue.ready.len()).unwrap_or(u32::MAX),
            consumers: u32::try_from(serving.count()).unwrap_or(u32::MAX),
        })
    }
}
