//! A message inside the embedded broker, and what waits to be written to disk about messages and queues.

use crate::broker::{Confirmation, Publication, RawDelivery};
use bytes::Bytes;
use tokio::sync::oneshot;

/// Number of a queue, never reused, also on disk.
pub(super) type QueueId = u64;

/// What a message costs in memory beside its own bytes.
const OVERHEAD: u64 = 200;

/// A message in a queue, held unacknowledged by a consumer, or taken by a shelf.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) routing_key: String,
    pub(super) body: Bytes,
    pub(super) message_id: Option<String>,
    pub(super) redelivered: bool,
    /// Place in its queue, for returning it where it was.
    pub(super) position: u64,
    /// Its key on disk within its queue; none for what lives in memory only.
    pub(super) key: Option<u64>,
}

impl Stored {
    pub(super) fn new(publication: Publication) -> Self {
        Self {
            routing_key: publication.routing_key,
            body: publication.body,
            message_id: publication.message_id,
            redelivered: false,
            position: 0,
            key: None,
        }
    }

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

    /// Bytes it is charged for.
    pub(super) fn cost(&self) -> u64 {
        (self.body.len() + self.routing_key.len()) as u64 + OVERHEAD
    }
}

/// A publication on its way into its queues; on disk first where a target has a key for it.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) message: Stored,
    pub(super) targets: Vec<(QueueId, Option<u64>)>,
    pub(super) resolve: oneshot::Sender<Confirmation>,
}

/// Resolves when a write is on disk; dropped when it never will be.
pub(super) type Done = oneshot::Sender<()>;

/// One change that belongs on disk, in the order in which changes happened.
#[derive(Debug)]
pub(super) enum Write {
    /// A durable queue exists; `bound` if it is a data queue.
    Queue {
        id: QueueId,
        name: String,
        bound: bool,
    },
    /// Messages of a queue with keys below this may have been delivered.
    Delivered { queue: QueueId, below: u64 },
    /// A message arrives.
    Put(Box<Arriving>),
    /// A message is acknowledged or removed.
    Remove { queue: QueueId, key: u64 },
    /// Nothing: tells when everything before it is on disk.
    Mark(Done),
}
