//! One queue and one consumer of the embedded broker: plain data with the rules that concern nobody else.

use super::message::{QueueId, Stored, Write};
use super::pending::Pending;
use crate::broker::{ConsumerState, QueueSpec, RawDelivery};
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::{mpsc, watch};

/// So many messages are marked as perhaps delivered at a time: the cost of a mark against messages that come back
/// flagged although nobody had them. A long queue takes larger steps, at least as large as a batch of publications, so
/// that its consumer keeps up with its publishers.
const MARK_STEP: u64 = 512;
const LONG_MARK_STEP: u64 = 16_384;

pub(super) struct Consumer {
    pub(super) id: u64,
    pub(super) session: u64,
    pub(super) spec: QueueSpec,
    /// None while it cannot be attached: its queue is another connection's own, or of another kind.
    pub(super) queue: Option<QueueId>,
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

impl Consumer {
    pub(super) fn say(&self, state: ConsumerState) {
        self.state.send_if_modified(|old| {
            let changed = *old != state;
            *old = state;
            changed
        });
    }
}

/// How long a queue lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// For ever; on disk if there is a state folder.
    Durable {
        /// Bound to the exchange by its own name: a data queue.
        bound: bool,
    },
    /// Until its last consumer leaves or this connection closes; nobody else may consume it.
    Exclusive(u64),
}

pub(super) struct Queue {
    pub(super) name: String,
    pub(super) life: Life,
    pub(super) ready: VecDeque<Stored>,
    pub(super) next_position: u64,
    pub(super) consumers: Vec<u64>,
    /// Index of the consumer that was served last.
    pub(super) turn: usize,
    /// The fence's holder.
    pub(super) holder: Option<u64>,
    /// Taken by a shelf: nobody else reads.
    pub(super) shelved: bool,
    /// Memory its messages take, unacknowledged ones included.
    pub(super) bytes: u64,
    /// Key of the next message on disk.
    pub(super) next_key: u64,
    /// Messages with keys below this are marked on disk as perhaps delivered; no other is delivered before it is.
    pub(super) delivered_below: u64,
    /// The mark that is on its way to disk.
    pub(super) requested_below: u64,
}

impl Queue {
    pub(super) fn new(name: String, life: Life) -> Self {
        Self {
            name,
            life,
            ready: VecDeque::new(),
            next_position: 0,
            consumers: Vec::new(),
            turn: 0,
            holder: None,
            shelved: false,
            bytes: 0,
            next_key: 0,
            delivered_below: 0,
            requested_below: 0,
        }
    }

    pub(super) fn push(&mut self, mut message: Stored) {
        message.position = self.next_position;
        self.next_position += 1;
        self.bytes += message.cost();
        self.ready.push_back(message);
    }

    /// Returns messages to where they were, marked as redelivered: merged with what was returned before, which is all
    /// that can stand ahead of them.
    pub(super) fn put_back(&mut self, mut messages: Vec<Stored>) {
        // Not in order if something was returned and delivered again in between.
        messages.sort_unstable_by_key(|m| m.position);
        let Some(last) = messages.last().map(|m| m.position) else {
            return;
        };
        let ahead = self.ready.partition_point(|m| m.position < last);
        let mut ahead: Vec<Stored> = self.ready.drain(..ahead).collect();
        while let Some(mut message) = messages.pop() {
            while let Some(other) = ahead.pop_if(|m| m.position > message.position) {
                self.ready.push_front(other);
            }
            message.redelivered = true;
            self.ready.push_front(message);
        }
        for other in ahead.into_iter().rev() {
            self.ready.push_front(other);
        }
    }

    /// Makes sure that the disk knows about deliveries up to the message with this key: in good time, many at once.
    /// Returns whether that message may be delivered now.
    pub(super) fn mark(&mut self, id: QueueId, key: u64, pending: Option<&mut Pending>) -> bool {
        let Some(pending) = pending else {
            return true;
        };
        let step = (self.ready.len() as u64).clamp(MARK_STEP, LONG_MARK_STEP);
        if key + step / 2 >= self.requested_below {
            self.requested_below = key + step;
            pending.push(Write::Delivered {
                queue: id,
                below: self.requested_below,
            });
        }
        key < self.delivered_below
    }
}
