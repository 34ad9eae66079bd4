//! Consuming from the embedded broker's state: windows, fence, verdicts, generations, shelves.

use super::message::{QueueId, Stored};
use super::queue::{Consumer, Life};
use super::state::{Clash, State};
use crate::broker::{ConsumerState, RawDelivery};
use crate::codes;
use tokio::sync::mpsc;

/// Places for messages that an empty queue may keep: the memory of a backlog is given back.
const SPARE: usize = 4096;

impl State {
    pub(super) fn add_consumer(&mut self, consumer: Consumer) {
        let id = consumer.id;
        self.consumers.insert(id, consumer);
        self.attach(id);
    }

    pub(super) fn attach(&mut self, id: u64) {
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
    pub(super) fn pump(&mut self, id: QueueId) {
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
            if let Some(key) = front.key
                && !queue.mark(id, key, self.pending.as_mut())
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
                    if matches!(error, mpsc::error::TrySendError::Closed(())) {
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
        if queue.ready.is_empty() && queue.ready.capacity() > SPARE {
            queue.ready.shrink_to(SPARE / 2);
        }
        if let Some(reader) = deserted {
            // Nobody listens any more; verdicts on what it has may still come.
            self.set_cancelled(reader, true);
        }
    }

    pub(super) fn generation(&self, id: u64) -> Option<u64> {
        self.consumers.get(&id).map(|c| c.generation)
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
    pub(super) fn rebuild(&mut self, id: u64) -> Option<(mpsc::Sender<RawDelivery>, usize)> {
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

    /// Gives up what is held, then the fence: what returns comes before what its next holder gets.
    pub(super) fn release_consumer(&mut self, id: u64) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            consumer.cancelled = true;
        }
        // Whoever resumes has read what is left in the stream.
        let _ = self.rebuild(id);
        self.set_cancelled(id, true);
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
            queue.mark(id, key, self.pending.as_mut());
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
