//! Messages taken off a queue to look at, behind the queue's fence on a channel of its own (R18).
//! Closing the channel returns what was not removed, in its old place.

use super::channels::{self, OpenChannel};
use super::consumer::raw;
use super::errors::{self, Trouble};
use super::fence::Taken;
use super::profile::{self, Profile};
use super::spare::Spare;
use super::topology;
use crate::broker::{Access, QueueDepth, QueueSpec, RawDelivery, Shelf};
use crate::error::WorkError;
use async_trait::async_trait;
use futures::stream::StreamExt;
use lapin::Connection;
use lapin::options::{BasicAckOptions, BasicQosOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the messages may take to arrive; as many are waited for as were counted before.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// After this without a message, the broker is asked whether the rest is still there.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) struct AmqpShelf {
    queue: String,
    channel: OpenChannel,
    messages: Vec<RawDelivery>,
    /// Holds the fence until the shelf is closed.
    taken: Option<Taken>,
}

pub(super) async fn take(
    (connection, spare): (&Arc<Connection>, &Spare),
    profile: Profile,
    queue: &str,
    limit: usize,
) -> Result<AmqpShelf, Trouble> {
    let opened = channels::open(connection).await;
    let channel = opened.map_err(|e| Trouble::of(&e))?;
    let mut shelf = AmqpShelf {
        queue: queue.to_owned(),
        channel,
        messages: Vec::new(),
        taken: None,
    };
    let ready = match topology::depth(&shelf.channel, queue).await {
        // Nobody else has any of it, and there is nothing to hold.
        Ok(QueueDepth {
            ready: 0,
            consumers: 0,
        }) => return Ok(shelf),
        Ok(depth) => depth.ready as usize,
        Err(Trouble::Missing(_)) => return Ok(shelf),
        Err(trouble) => return Err(trouble),
    };
    // The window must hold the whole shelf, for nothing is acknowledged while it is read; zero would mean no limit.
    let limit = limit.min(usize::from(u16::MAX));
    let window = match profile {
        Profile::Vumi => u16::try_from(limit.max(1)).unwrap_or(u16::MAX),
        // What returns to a quorum queue goes behind what returned before and was not taken since. Everybody takes all
        // of that, so it keeps its order.
        Profile::Quorum => u16::MAX,
    };
    let qos = shelf.channel.basic_qos(window, BasicQosOptions::default());
    qos.await.map_err(|e| Trouble::of(&e))?;
    let fence = profile::fence(profile, &QueueSpec::Parking(queue.into()), Access::Fenced);
    let begin = Instant::now();
    let mut taken = loop {
        let taken = fence.consume(
            (connection, spare),
            &shelf.channel,
            queue,
            "vumi shelf",
            begin,
        );
        match taken.await {
            // A quorum queue hears a little later that the shelf before this one is closed.
            Err(Trouble::Held(_)) if profile == Profile::Quorum && begin.elapsed() < SILENCE => {
                tokio::time::sleep(SILENCE / 20).await;
            }
            taken => break taken?,
        }
    };
    let expected = limit.min(taken.ready.map_or(ready, |ready| ready as usize));
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut empty = false;
    while shelf.messages.len() < expected {
        match tokio::time::timeout(SILENCE, taken.consumer.next()).await {
            Ok(Some(Ok(delivery))) => {
                shelf.messages.push(raw(delivery, 0));
                empty = false;
            }
            Ok(Some(Err(error))) => return Err(Trouble::of(&error)),
            Ok(None) => return Err(Trouble::Lost("the broker cancelled the consumer".into())),
            // Somebody took messages between the count and the fence: the queue is empty, and what it had sent before
            // it said so has had time to arrive.
            Err(_) if empty => break,
            Err(_) if tokio::time::Instant::now() > deadline => {
                let (came, all) = (shelf.messages.len(), expected);
                let text = format!("{came} of {all} messages arrived within {PATIENCE:?}");
                return Err(Trouble::Lost(text));
            }
            Err(_) => {
                let depth = topology::depth(&shelf.channel, queue).await;
                empty = depth?.ready == 0;
            }
        }
    }
    shelf.taken = Some(taken);
    Ok(shelf)
}

#[async_trait]
impl Shelf for AmqpShelf {
    fn messages(&self) -> &[RawDelivery] {
        &self.messages
    }

    async fn remove(&mut self, tag: u64) -> Result<(), WorkError> {
        let removed = async {
            let acked = self.channel.basic_ack(tag, BasicAckOptions::default());
            acked.await.map_err(|e| Trouble::of(&e))?;
            // An acknowledgement has no answer; a question behind it proves that it was taken.
            topology::depth(&self.channel, &self.queue).await
        };
        match removed.await {
            Ok(_) => Ok(()),
            Err(trouble) => Err(errors::work_error((trouble, self.queue.clone()))),
        }
    }

    async fn close(self: Box<Self>) {
        let closing = async {
            if let Some(taken) = &self.taken {
                taken.settle(&self.channel, &self.queue).await;
            }
            self.channel.close(200, "shelf".into()).await
        };
        let _ = tokio::time::timeout(PATIENCE, closing).await;
    }
}
