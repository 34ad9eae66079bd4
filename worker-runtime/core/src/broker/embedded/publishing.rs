//! Publishing into the embedded broker's state: routing, room, numbering for the disk, arrival, removal.

use super::message::{Arriving, QueueId, Stored, Write};
use super::queue::Life;
use super::state::{Clash, State};
use crate::broker::{Confirmation, Publication, PublicationClass, QueueSpec};
use tokio::sync::oneshot;

/// A publication that has to wait for room.
pub(super) type Refused = Box<(Publication, oneshot::Sender<Confirmation>)>;

impl State {
    /// Takes a publication over, or gives it back when there is no room for it now.
    pub(super) fn publish(
        &mut self,
        session: u64,
        publication: Publication,
        resolve: oneshot::Sender<Confirmation>,
    ) -> Result<(), Refused> {
        if !self.has_session(session) {
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
                queue.mark(*id, queue.next_key, self.pending.as_mut());
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

    pub(super) fn check_memory(&mut self) {
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

    pub(super) fn freed(&mut self, bytes: u64) {
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
}
