//! Messages taken off a queue to look at, by an exclusive consumer on a channel of its own (R18).
//! Closing the channel returns what was not removed, in its old place.

use super::consumer::raw;
use super::errors::{self, Trouble};
use super::fence;
use super::topology;
use crate::broker::{RawDelivery, Shelf};
use crate::error::WorkError;
use async_trait::async_trait;
use futures::stream::StreamExt;
use lapin::options::{BasicAckOptions, BasicQosOptions};
use lapin::{Channel, Consumer};
use std::time::Duration;

/// How long the messages may take to arrive; as many are waited for as were counted before.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// After this without a message, the broker is asked whether the rest is still there.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) struct AmqpShelf {
    queue: String,
    channel: Channel,
    messages: Vec<RawDelivery>,
    /// Holds the fence until the shelf is closed.
    _consumer: Option<Consumer>,
}

pub(super) async fn take(
    channel: Channel,
    queue: &str,
    limit: usize,
) -> Result<AmqpShelf, Trouble> {
    let mut shelf = AmqpShelf {
        queue: queue.to_owned(),
        channel,
        messages: Vec::new(),
        _consumer: None,
    };
    let ready = match topology::depth(&shelf.channel, queue)
        .await
        .map_err(|e| Trouble::of(&e))
    {
        Ok(depth) => depth.ready as usize,
        Err(Trouble::Missing(_)) => return Ok(shelf),
        Err(trouble) => return Err(trouble),
    };
    // The window must hold the whole shelf, for nothing is acknowledged while it is read; zero would mean no limit.
    let limit = limit.min(usize::from(u16::MAX));
    let window = u16::try_from(limit.max(1)).unwrap_or(u16::MAX);
    let qos = shelf.channel.basic_qos(window, BasicQosOptions::default());
    qos.await.map_err(|e| Trouble::of(&e))?;
    let mut consumer = fence::exclusive(&shelf.channel, queue, "vumi shelf").await?;
    let expected = limit.min(ready);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut empty = false;
    while shelf.messages.len() < expected {
        match tokio::time::timeout(SILENCE, consumer.next()).await {
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
                empty = depth.map_err(|e| Trouble::of(&e))?.ready == 0;
            }
        }
    }
    shelf._consumer = Some(consumer);
    Ok(shelf)
}

#[async_trait]
impl Shelf for AmqpShelf {
    fn messages(&self) -> &[RawDelivery] {
        &self.messages
    }

    async fn remove(&mut self, tag: u64) -> Result<(), WorkError> {
        let removed = async {
            self.channel
                .basic_ack(tag, BasicAckOptions::default())
                .await?;
            // An acknowledgement has no answer; a question behind it proves that it was taken.
            topology::depth(&self.channel, &self.queue).await
        };
        match removed.await {
            Ok(_) => Ok(()),
            Err(error) => Err(errors::work_error((
                Trouble::of(&error),
                self.queue.clone(),
            ))),
        }
    }

    async fn close(self: Box<Self>) {
        let closing = self.channel.close(200, "shelf".into());
        let _ = tokio::time::timeout(PATIENCE, closing).await;
    }
}
