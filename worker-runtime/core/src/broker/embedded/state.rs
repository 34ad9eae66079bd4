//! Queues, bindings and consumers of the embedded broker: plain data, changed under one lock.

use crate::broker::{ConsumerState, EXCHANGE, QueueDepth, QueueSpec, RawDelivery};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use tokio::sync::{mpsc, watch};

/// A message in a queue or held unacknowledged by a consumer.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) routing_key: String,
    pub(super) body: Bytes,
    pub(super) message_id: Option<String>,
    pub(super) redelivered: bool,
    /// Place in its queue, for returning it where it was.
    pub(super) sequence: u64,
}

impl Stored {
    pub(super) fn delivery(&self, tag: u64, generation: u64) -> RawDelivery {
        RawDelivery {
            tag,
            generation,
            redelivered: self.redelivered,
            routing_key: self.routing_key.clone(),
            body: self.body.clone(),
            message_id: self.message_id.clone(),
            delivery_count: None,
        }
    }
}

pub(super) struct Consumer {
    pub(super) id: u64,
    pub(super) queue: String,
    pub(super) tag: String,
    pub(super) prefetch: usize,
    pub(super) fenced: bool,
    pub(super) cancelled: bool,
    pub(super) generation: u64,
    pub(super) next_tag: u64,
    pub(super) unacked: BTreeMap<u64, Stored>,
    pub(super) sender: mpsc::Sender<RawDelivery>,
    pub(super) state: watch::Sender<ConsumerState>,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Stored>,
    next_sequence: u64,
    consumers: Vec<u64>,
    /// Index of the consumer that is served next.
    turn: usize,
    /// The fence's holder.
    holder: Option<u64>,
    /// Taken by a shelf: nobody else reads.
    shelved: bool,
    /// Vanishes with this consumer.
    owner: Option<u64>,
}

/// Everything the broker knows.
#[derive(Default)]
pub(super) struct State {
    ids: u64,
    queues: HashMap<String, Queue>,
    /// Exchange → routing key → queues.
    bindings: HashMap<String, HashMap<String, Vec<String>>>,
    consumers: HashMap<u64, Consumer>,
}

impl State {
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn declare(&mut self, spec: &QueueSpec, owner: Option<u64>) {
        let name = spec.name();
        if self.queues.contains_key(name) {
            return;
        }
        let temporary = matches!(spec, QueueSpec::Reply(_) | QueueSpec::Copy { .. });
        let queue = Queue {
            owner: owner.filter(|_| temporary),
            ..Queue::default()
        };
        self.queues.insert(name.to_owned(), queue);
        match spec {
            QueueSpec::Data(name) => self.bind(EXCHANGE, name, name),
            QueueSpec::Copy {
                name,
                exchange,
                keys,
            } => {
                for key in keys {
                    self.bind(exchange, key, name);
                }
            }
            QueueSpec::Parking(_) | QueueSpec::Reply(_) => {}
        }
    }

    fn bind(&mut self, exchange: &str, key: &str, queue: &str) {
        let bound = self
            .bindings
            .entry(exchange.to_owned())
            .or_default()
            .entry(key.to_owned())
            .or_default();
        if !bound.iter().any(|b| b == queue) {
            bound.push(queue.to_owned());
        }
    }

    /// Queues that a publication reaches.
    pub(super) fn route(&self, exchange: &str, key: &str) -> Vec<String> {
        if exchange.is_empty() {
            return self
                .queues
                .contains_key(key)
                .then(|| key.to_owned())
                .into_iter()
                .collect();
        }
        self.bindings
            .get(exchange)
            .and_then(|keys| keys.get(key))
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn push(&mut self, queue: &str, mut message: Stored) {
        if let Some(queue) = self.queues.get_mut(queue) {
            message.sequence = queue.next_sequence;
            queue.next_sequence += 1;
            queue.ready.push_back(message);
        }
    }

    pub(super) fn depth(&self, queue: &str) -> Option<QueueDepth> {
        self.queues.get(queue).map(|q| QueueDepth {
            ready: u32::try_from(q.ready.len()).unwrap_or(u32::MAX),
            consumers: u32::try_from(
                q.consumers
                    .iter()
                    .filter(|id| self.is_serving(q, **id))
                    .count(),
            )
            .unwrap_or(u32::MAX),
        })
    }

    fn is_serving(&self, queue: &Queue, id: u64) -> bool {
        !queue.shelved
            && queue.holder.is_none_or(|holder| holder == id)
            && self.consumers.get(&id).is_some_and(|c| !c.cancelled)
    }

    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        if let Some(queue) = self.queues.get_mut(&consumer.queue) {
            queue.consumers.push(consumer.id);
        }
        self.consumers.insert(consumer.id, consumer);
    }

    /// Decides who holds the fence and tells every consumer of the queue what it is now.
    pub(super) fn elect(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        let consumers = &self.consumers;
        let active = |id: &u64| consumers.get(id).is_some_and(|c| !c.cancelled);
        let plain = queue
            .consumers
            .iter()
            .any(|id| active(id) && consumers.get(id).is_some_and(|c| !c.fenced));
        queue.holder = queue.holder.filter(active);
        if queue.holder.is_none() && !plain {
            queue.holder = queue.consumers.iter().find(|id| active(id)).copied();
        }
        let holder_tag = queue
            .holder
            .and_then(|id| consumers.get(&id))
            .map(|c| c.tag.clone());
        for id in &queue.consumers {
            let Some(consumer) = consumers.get(id) else {
                continue;
            };
            let state = if consumer.cancelled {
                ConsumerState::Stopped
            } else if queue.shelved
                || queue.holder.is_some_and(|holder| holder != *id)
                || (consumer.fenced && plain)
            {
                ConsumerState::Standby(holder_tag.clone())
            } else {
                ConsumerState::Consuming
            };
            consumer.state.send_if_modified(|old| {
                let changed = *old != state;
                *old = state.clone();
                changed
            });
        }
    }

    /// Delivers as much as the consumers' windows take.
    pub(super) fn pump(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        if queue.shelved || queue.consumers.is_empty() {
            return;
        }
        let mut passed_over = 0;
        while !queue.ready.is_empty() && passed_over < queue.consumers.len() {
            queue.turn = (queue.turn + 1) % queue.consumers.len();
            let id = queue.consumers.get(queue.turn).copied().unwrap_or_default();
            let allowed = queue.holder.is_none_or(|holder| holder == id);
            let Some(consumer) = self.consumers.get_mut(&id).filter(|c| {
                allowed
                    && !c.cancelled
                    && c.unacked.len() < c.prefetch
                    && (queue.holder.is_some() || !c.fenced)
            }) else {
                passed_over += 1;
                continue;
            };
            let Ok(permit) = consumer.sender.try_reserve() else {
                passed_over += 1;
                continue;
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
    }

    /// The queue of a consumer, if its generation is the given one.
    fn current(&mut self, id: u64, generation: u64) -> Option<&mut Consumer> {
        self.consumers
            .get_mut(&id)
            .filter(|c| c.generation == generation)
    }

    pub(super) fn ack(&mut self, id: u64, generation: u64, tag: u64, multiple: bool) -> bool {
        let known = match self.current(id, generation) {
            None => false,
            Some(consumer) if multiple => {
                consumer.unacked = consumer.unacked.split_off(&(tag + 1));
                true
            }
            Some(consumer) => consumer.unacked.remove(&tag).is_some(),
        };
        self.pump_of(id);
        known
    }

    pub(super) fn requeue(&mut self, id: u64, generation: u64, tag: u64) -> bool {
        let Some(message) = self
            .current(id, generation)
            .and_then(|c| c.unacked.remove(&tag))
        else {
            return false;
        };
        let Some(queue) = self.consumers.get(&id).map(|c| c.queue.clone()) else {
            return false;
        };
        self.put_back(&queue, vec![message]);
        self.pump(&queue);
        true
    }

    fn pump_of(&mut self, id: u64) {
        if let Some(queue) = self.consumers.get(&id).map(|c| c.queue.clone()) {
            self.pump(&queue);
        }
    }

    /// Returns messages to where they were in their queue, marked as redelivered.
    pub(super) fn put_back(&mut self, queue: &str, messages: Vec<Stored>) {
        let Some(queue) = self.queues.get_mut(queue) else {
            return;
        };
        for mut message in messages.into_iter().rev() {
            message.redelivered = true;
            let place = queue
                .ready
                .partition_point(|m| m.sequence < message.sequence);
            queue.ready.insert(place, message);
        }
    }

    pub(super) fn set_cancelled(&mut self, id: u64, cancelled: bool) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.cancelled = cancelled;
        let queue = consumer.queue.clone();
        self.elect(&queue);
        self.pump(&queue);
    }

    pub(super) fn rebuild(&mut self, id: u64) {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return;
        };
        consumer.generation += 1;
        consumer.next_tag = 1;
        let held = std::mem::take(&mut consumer.unacked);
        let queue = consumer.queue.clone();
        self.put_back(&queue, held.into_values().collect());
        self.pump(&queue);
    }

    pub(super) fn close_consumer(&mut self, id: u64) {
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        consumer.state.send_replace(ConsumerState::Stopped);
        let name = consumer.queue;
        self.put_back(&name, consumer.unacked.into_values().collect());
        let Some(queue) = self.queues.get_mut(&name) else {
            return;
        };
        queue.consumers.retain(|c| *c != id);
        queue.turn = 0;
        if queue.holder == Some(id) {
            queue.holder = None;
        }
        if queue.owner == Some(id) {
            self.queues.remove(&name);
            for keys in self.bindings.values_mut() {
                for bound in keys.values_mut() {
                    bound.retain(|b| *b != name);
                }
            }
            return;
        }
        self.elect(&name);
        self.pump(&name);
    }

    /// Takes up to `limit` messages off a queue for a shelf; refuses with the name of whoever reads it.
    pub(super) fn take(&mut self, name: &str, limit: usize) -> Result<Vec<Stored>, String> {
        let Some(queue) = self.queues.get_mut(name) else {
            return Ok(Vec::new());
        };
        if queue.shelved {
            return Err("another command".into());
        }
        if let Some(reader) = queue
            .consumers
            .first()
            .and_then(|id| self.consumers.get(id))
        {
            return Err(reader.tag.clone());
        }
        queue.shelved = true;
        let count = limit.min(queue.ready.len());
        Ok(queue.ready.drain(..count).collect())
    }

    pub(super) fn release(&mut self, name: &str) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.shelved = false;
        }
        self.elect(name);
    }
}
