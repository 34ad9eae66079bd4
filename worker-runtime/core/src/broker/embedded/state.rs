//! Queues, bindings and consumers of the embedded broker, changed under one lock; no operation costs more than the
//! consumers of one queue or the messages it moves.

use super::message::{Arriving, QueueId, Stored, Write};
use super::pending::Pending;
use super::queue::{Consumer, Life, Queue};
use crate::broker::{
    Confirmation, ConsumerState, EXCHANGE, LinkState, Publication, PublicationClass, QueueDepth,
    QueueSpec,
};
use crate::codes;
use std::collections::HashMap;
use tokio::sync::{oneshot, watch};

/// So many messages are marked as perhaps delivered at a time: the cost of a mark against messages that come back
/// flagged although nobody had them.
const MARK_STEP: u64 = 512;

/// Why a queue cannot be used as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Clash {
    /// Another connection has it for itself.
    Held,
    /// It is of another kind; the sentence says which.
    Kind(String),
}

/// A publication that has to wait for room.
pub(super) type Refused = Box<(Publication, oneshot::Sender<Confirmation>)>;

/// Everything the broker knows.
pub(super) struct State {
    ids: u64,
    names: HashMap<String, QueueId>,
    pub(super) queues: HashMap<QueueId, Queue>,
    /// Exchange → routing key → queues.
    bindings: HashMap<String, HashMap<String, Vec<QueueId>>>,
    consumers: HashMap<u64, Consumer>,
    sessions: HashMap<u64, watch::Sender<LinkState>>,
    /// What waits for the disk; none without a state folder.
    pub(super) pending: Option<Pending>,
    memory: u64,
    memory_limit: u64,
    memory_alarm: bool,
    /// Set when publishers that wait should look again.
    room: bool,
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
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Whom to wake after a change: the writer, the waiting publishers.
    pub(super) fn wakes(&mut self) -> (bool, bool) {
        let work = self.pending.as_ref().is_some_and(|p| !p.is_empty());
        (work, std::mem::take(&mut self.room))
    }

    // ---- connections

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

    // ---- topology

    /// Declares a queue; `session` owns it if it is exclusive.
    pub(super) fn declare(&mut self, spec: &QueueSpec, session: u64) -> Result<QueueId, Clash> {
        let life = match spec {
            QueueSpec::Data(_) => Life::Durable { bound: true },
            QueueSpec::Parking(_) => Life::Durable { bound: false },
            QueueSpec::Reply(_) | QueueSpec::Copy { .. } => Life::Exclusive(session),
        };
        let name = spec.name();
        let id = match self.names.get(name).copied() {
            None => self.create(name, life),
            Some(id) => {
                self.check(id, name, life)?;
                id
            }
        };
        if let QueueSpec::Copy { exchange, keys, .. } = spec {
            for key in keys {
                self.bind(exchange, key, id);
            }
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

    fn route(&self, exchange: &str, key: &str) -> Vec<QueueId> {
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
    fn delete(&mut self, id: QueueId) {
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

    // ---- publishing

    /// Takes a publication over, or gives it back when there is no room for it now.
    pub(super) fn publish(
        &mut self,
        session: u64,
        publication: Publication,
        resolve: oneshot::Sender<Confirmation>,
    ) -> Result<(), Refused> {
        if !self.sessions.contains_key(&session) {
            // The receipt of a dropped sender says Lost.
            return Ok(());
        }
        let persistent = publication.class != PublicationClass::Telemetry;
        if publication.class == PublicationClass::Data
            && let Err(reason) = self.declare_for(&publication.routing_key, session)
        {
            let _ = resolve.send(Confirmation::Returned(reason));
            return Ok(());
        }
        let targets = self.route(&publication.exchange, &publication.routing_key);
        if targets.is_empty() {
            let _ = resolve.send(if persistent {
                Confirmation::Returned(format!(
                    "no queue is bound to exchange {:?} by key {:?}",
                    publication.exchange, publication.routing_key
                ))
            } else {
                Confirmation::Confirmed
            });
            return Ok(());
        }
        let to_disk =
            persistent && self.pending.is_some() && targets.iter().any(|id| self.is_durable(*id));
        if !self.has_room(&targets, to_disk) {
            return Err(Box::new((publication, resolve)));
        }
        let mut arriving = Arriving {
            message: Stored::new(publication),
            targets: targets.into_iter().map(|id| (id, None)).collect(),
            resolve,
        };
        if to_disk {
            self.number(&mut arriving);
            if let Some(pending) = &mut self.pending {
                pending.push(Write::Put(Box::new(arriving)));
            }
        } else {
            self.arrive(arriving);
        }
        Ok(())
    }

    fn declare_for(&mut self, key: &str, session: u64) -> Result<(), String> {
        let known = self
            .names
            .get(key)
            .and_then(|id| self.queues.get(id))
            .is_some_and(|q| q.life == Life::Durable { bound: true });
        if known {
            return Ok(());
        }
        match self.declare(&QueueSpec::Data(key.to_owned()), session) {
            Ok(_) => Ok(()),
            Err(Clash::Kind(reason)) => Err(reason),
            Err(Clash::Held) => Err(format!("queue {key:?} belongs to another connection")),
        }
    }

    fn is_durable(&self, id: QueueId) -> bool {
        self.queues
            .get(&id)
            .is_some_and(|q| matches!(q.life, Life::Durable { .. }))
    }

    /// Over the memory limit a publication waits only if its own queue holds more than an equal share: so whoever
    /// drains a long queue into a short one goes on, and one dead consumer does not stop the others.
    fn has_room(&self, targets: &[QueueId], to_disk: bool) -> bool {
        if to_disk && self.pending.as_ref().is_some_and(|p| !p.has_room()) {
            return false;
        }
        if !self.memory_alarm {
            return true;
        }
        let share = self.memory_limit / (self.queues.len() as u64).max(1);
        targets
            .iter()
            .filter_map(|id| self.queues.get(id))
            .all(|q| q.bytes < share)
    }

    /// Gives a publication its keys on disk. A hungry queue's mark goes with the message, so that it is not held up.
    fn number(&mut self, arriving: &mut Arriving) {
        for (id, key) in &mut arriving.targets {
            let Some(queue) = self.queues.get_mut(id) else {
                continue;
            };
            if !matches!(queue.life, Life::Durable { .. }) {
                continue;
            }
            *key = Some(queue.next_key);
            if queue.ready.is_empty() && !queue.consumers.is_empty() {
                mark(self.pending.as_mut(), *id, queue, queue.next_key);
            }
            queue.next_key += 1;
        }
    }

    /// A publication is safe where it must be: it becomes visible and confirmed.
    pub(super) fn arrive(&mut self, arriving: Arriving) {
        let Arriving {
            message,
            targets,
            resolve,
        } = arriving;
        let _ = resolve.send(Confirmation::Confirmed);
        let last = targets.len().saturating_sub(1);
        let mut message = Some(message);
        for (n, (id, key)) in targets.into_iter().enumerate() {
            let copy = if n == last {
                message.take()
            } else {
                message.clone()
            };
            let (Some(mut copy), Some(queue)) = (copy, self.queues.get_mut(&id)) else {
                continue;
            };
            copy.key = key;
            self.memory += copy.cost();
            queue.push(copy);
            self.pump(id);
        }
        self.check_memory();
    }

    fn check_memory(&mut self) {
        let alarm = if self.memory_alarm {
            self.memory >= self.memory_limit / 10 * 9
        } else {
            self.memory >= self.memory_limit
        };
        if alarm != self.memory_alarm {
            self.memory_alarm = alarm;
            self.tell_links();
        }
    }

    fn freed(&mut self, bytes: u64) {
        self.memory = self.memory.saturating_sub(bytes);
        if self.memory_alarm {
            self.room = true;
            self.check_memory();
        }
    }

    /// Writes that are on disk now take effect.
    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::Put(arriving) => self.arrive(*arriving),
            Write::Delivered { queue, below } => {
                if let Some(q) = self.queues.get_mut(&queue) {
                    q.delivered_below = q.delivered_below.max(below);
                }
                self.pump(queue);
            }
            Write::Mark(done) => {
                let _ = done.send(());
            }
            Write::Queue { .. } | Write::Remove { .. } => {}
        }
    }

    /// A message is gone for good.
    pub(super) fn removed(&mut self, queue: QueueId, message: &Stored) {
        if let Some(q) = self.queues.get_mut(&queue) {
            q.bytes = q.bytes.saturating_sub(message.cost());
        }
        if let (Some(key), Some(pending)) = (message.key, &mut self.pending) {
            pending.push(Write::Remove { queue, key });
        }
        self.freed(message.cost());
    }

    // ---- consuming

    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        let id = consumer.id;
        self.consumers.insert(id, consumer);
        self.attach(id);
    }

    fn attach(&mut self, id: u64) {
        let Some((spec, session)) = self.consumers.get(&id).map(|c| (c.spec.clone(), c.session))
        else {
            return;
        };
        let declared = self.declare(&spec, session);
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        match declared {
            Ok(queue) => {
                consumer.queue = Some(queue);
                if let Some(q) = self.queues.get_mut(&queue) {
                    q.consumers.push(id);
                }
                self.elect(queue);
                self.pump(queue);
            }
            Err(Clash::Held) => consumer.say(ConsumerState::Standby(None)),
            Err(Clash::Kind(sentence)) => consumer.say(ConsumerState::Refused(
                codes::BROKER_QUEUE_TYPE.name.into(),
                sentence,
            )),
        }
    }

    /// Decides who holds the fence and tells every consumer of the queue what it is now.
    fn elect(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let consumers = &self.consumers;
        let active = |id: &u64| consumers.get(id).is_some_and(|c| !c.cancelled);
        let plain = queue
            .consumers
            .iter()
            .filter_map(|id| consumers.get(id))
            .find(|c| !c.cancelled && !c.fenced);
        queue.holder = queue.holder.filter(active);
        if queue.holder.is_none() && plain.is_none() {
            queue.holder = queue.consumers.iter().find(|id| active(id)).copied();
        }
        let reader = match queue.holder {
            _ if queue.shelved => Some("a command that looks at the queue".to_owned()),
            Some(holder) => consumers.get(&holder).map(|c| c.tag.clone()),
            None => plain.map(|c| c.tag.clone()),
        };
        for consumer in queue.consumers.iter().filter_map(|id| consumers.get(id)) {
            let away = queue.shelved
                || queue.holder.is_some_and(|holder| holder != consumer.id)
                || (consumer.fenced && queue.holder.is_none());
            consumer.say(if consumer.cancelled {
                ConsumerState::Stopped
            } else if away {
                ConsumerState::Standby(reader.clone())
            } else {
                ConsumerState::Consuming
            });
        }
    }

    /// Delivers as much as the consumers' windows take.
    fn pump(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        if queue.shelved {
            return;
        }
        let mut passed_over = 0;
        let mut deserted = None;
        while passed_over < queue.consumers.len() {
            let Some(front) = queue.ready.front() else {
                break;
            };
            if let Some(key) = front.key.filter(|_| self.pending.is_some())
                && !mark(self.pending.as_mut(), id, queue, key)
            {
                break;
            }
            queue.turn = (queue.turn + 1) % queue.consumers.len();
            let reader = queue.consumers.get(queue.turn).copied().unwrap_or_default();
            let allowed = queue.holder.is_none_or(|holder| holder == reader);
            let Some(consumer) = self.consumers.get_mut(&reader).filter(|c| {
                allowed
                    && !c.cancelled
                    && c.unacked.len() < c.prefetch
                    && (queue.holder.is_some() || !c.fenced)
            }) else {
                passed_over += 1;
                continue;
            };
            let permit = match consumer.sender.try_reserve() {
                Ok(permit) => permit,
                Err(error) => {
                    if matches!(error, tokio::sync::mpsc::error::TrySendError::Closed(())) {
                        deserted = Some(reader);
                    }
                    passed_over += 1;
                    continue;
                }
            };
            let Some(message) = queue.ready.pop_front() else {
                break;
            };
            let tag = consumer.next_tag;
            consumer.next_tag += 1;
            permit.send(message.delivery(tag, consumer.generation));
            consumer.unacked.insert(tag, message);
            passed_over = 0;
        }
        if let Some(reader) = deserted {
            // Nobody listens any more; verdicts on what it has may still come.
            self.set_cancelled(reader, true);
        }
    }

    /// A consumer, if its generation is the given one.
    fn current(&mut self, id: u64, generation: u64) -> Option<&mut Consumer> {
        self.consumers
            .get_mut(&id)
            .filter(|c| c.generation == generation)
    }

    pub(super) fn ack(&mut self, id: u64, generation: u64, tag: u64, multiple: bool) -> bool {
        let Some(consumer) = self.current(id, generation) else {
            return false;
        };
        let Some(queue) = consumer.queue else {
            return false;
        };
        if !multiple {
            let Some(message) = consumer.unacked.remove(&tag) else {
                return false;
            };
            self.removed(queue, &message);
        } else {
            if tag >= consumer.next_tag {
                return false;
            }
            let rest = consumer.unacked.split_off(&(tag + 1));
            let done = std::mem::replace(&mut consumer.unacked, rest);
            for message in done.values() {
                self.removed(queue, message);
            }
        }
        self.pump(queue);
        true
    }

    pub(super) fn requeue(&mut self, id: u64, generation: u64, tag: u64) -> bool {
        let Some(consumer) = self.current(id, generation) else {
            return false;
        };
        let (Some(queue), Some(message)) = (consumer.queue, consumer.unacked.remove(&tag)) else {
            return false;
        };
        self.put_back(queue, vec![message]);
        true
    }

    fn put_back(&mut self, queue: QueueId, messages: Vec<Stored>) {
        if let Some(q) = self.queues.get_mut(&queue) {
            q.put_back(messages);
        }
        self.pump(queue);
    }

    /// After a receiver made room.
    pub(super) fn pump_consumer(&mut self, id: u64) {
        if let Some(queue) = self.consumers.get(&id).and_then(|c| c.queue) {
            self.pump(queue);
        }
    }

    pub(super) fn set_cancelled(&mut self, id: u64, cancelled: bool) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.cancelled = cancelled;
        match consumer.queue {
            Some(queue) => {
                self.elect(queue);
                self.pump(queue);
            }
            None if cancelled => consumer.say(ConsumerState::Stopped),
            None => self.attach(id),
        }
    }

    /// Begins a new generation. Returns the sending side and the window if old deliveries may still fill the stream.
    pub(super) fn rebuild(
        &mut self,
        id: u64,
    ) -> Option<(tokio::sync::mpsc::Sender<crate::broker::RawDelivery>, usize)> {
        let consumer = self.consumers.get_mut(&id)?;
        consumer.generation += 1;
        consumer.next_tag = 1;
        let held = std::mem::take(&mut consumer.unacked);
        let stream = (consumer.sender.capacity() < consumer.prefetch)
            .then(|| (consumer.sender.clone(), consumer.prefetch));
        let queue = consumer.queue?;
        self.put_back(queue, held.into_values().collect());
        stream
    }

    pub(super) fn close_consumer(&mut self, id: u64) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        consumer.say(ConsumerState::Stopped);
        let Some(queue_id) = consumer.queue else {
            return;
        };
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return;
        };
        queue.consumers.retain(|c| *c != id);
        queue.turn = 0;
        if queue.holder == Some(id) {
            queue.holder = None;
        }
        if queue.consumers.is_empty() && matches!(queue.life, Life::Exclusive(_)) {
            self.delete(queue_id);
            return;
        }
        queue.put_back(consumer.unacked.into_values().collect());
        self.elect(queue_id);
        self.pump(queue_id);
    }

    // ---- shelves

    /// Takes up to `limit` messages off a queue for a shelf; refuses with the name of whoever reads it.
    pub(super) fn take(
        &mut self,
        name: &str,
        limit: usize,
    ) -> Result<Option<(QueueId, Vec<Stored>)>, String> {
        let found = self.names.get(name).copied();
        let Some((id, queue)) = found.and_then(|id| Some((id, self.queues.get_mut(&id)?))) else {
            return Ok(None);
        };
        if queue.shelved {
            return Err("another command".into());
        }
        let reader = queue
            .consumers
            .iter()
            .filter_map(|id| self.consumers.get(id))
            .find(|c| !c.cancelled);
        if let Some(reader) = reader {
            return Err(format!("consumer {}", reader.tag));
        }
        queue.shelved = true;
        let count = limit.min(queue.ready.len());
        let taken: Vec<Stored> = queue.ready.drain(..count).collect();
        if let Some(key) = taken.iter().rev().find_map(|m| m.key) {
            mark(self.pending.as_mut(), id, queue, key);
        }
        self.elect(id);
        Ok(Some((id, taken)))
    }

    /// Ends a shelf: what it still has goes back.
    pub(super) fn release(&mut self, id: QueueId, kept: Vec<Stored>) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.shelved = false;
            queue.put_back(kept);
        }
        self.elect(id);
        self.pump(id);
    }
}

/// Makes sure that the disk knows about deliveries of a queue up to `key`, in good time and many at once. Returns
/// whether the message with that key may be delivered now.
fn mark(pending: Option<&mut Pending>, id: QueueId, queue: &mut Queue, key: u64) -> bool {
    if let Some(pending) = pending
        && key + MARK_STEP / 2 >= queue.requested_below
    {
        queue.requested_below = key + MARK_STEP;
        pending.push(Write::Delivered {
            queue: id,
            below: queue.requested_below,
        });
    }
    key < queue.delivered_below
}
