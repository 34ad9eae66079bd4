//! Messages sent and not yet confirmed, and the matching of returned ones to their receipts.
//!
//! lapin hands a returned message to whichever confirmation it happens to complete next, which with `multiple`
//! confirms is any message of the batch. The broker sends each return before that message's own confirm, and returned
//! messages are confirmed in their order, so: look at *all* confirmations that are complete, and only then resolve.

use super::Job;
use super::room::Room;
use crate::broker::{Confirmation, Publication, PublicationClass};
use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

type Outcome = (u64, lapin::Result<lapin::Confirmation>);
type Sending<'c> = Pin<Box<dyn Future<Output = Outcome> + Send + 'c>>;

/// A message in flight.
struct Sent {
    job: Job,
    at: Instant,
    returned: Option<String>,
}

pub(super) struct Flight<'c> {
    channel: &'c Channel,
    sending: FuturesUnordered<Sending<'c>>,
    /// By number, from `first` on; resolved ones in the middle are none.
    sent: VecDeque<Option<Sent>>,
    first: u64,
    bytes: usize,
    room: Room,
    done: Vec<Outcome>,
    early: Arc<Early>,
}

/// Notices that the set wants to be polled again.
#[derive(Default)]
struct Early(AtomicBool);

impl Wake for Early {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<'c> Flight<'c> {
    pub(super) fn new(channel: &'c Channel) -> Self {
        Self {
            channel,
            sending: FuturesUnordered::new(),
            sent: VecDeque::new(),
            first: 0,
            bytes: 0,
            room: Room::new(),
            done: Vec::new(),
            early: Arc::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sending.len() + self.done.len()
    }

    /// So many may be in flight.
    pub(super) fn limit(&self) -> usize {
        self.room.limit()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sending.is_empty() && self.done.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands one message to lapin. Its names fit AMQP's short strings, see `Routes`.
    pub(super) fn start(&mut self, job: Job) {
        let number = self.first + self.sent.len() as u64;
        let publication = &job.publication;
        let (Ok(exchange), Ok(key)) = (
            ShortString::try_new(publication.exchange.as_str()),
            ShortString::try_new(publication.routing_key.as_str()),
        ) else {
            return;
        };
        let telemetry = publication.class == PublicationClass::Telemetry;
        let mut properties =
            BasicProperties::default().with_delivery_mode(if telemetry { 1 } else { 2 });
        if let Some(id) = property(publication) {
            properties = properties.with_message_id(id.into());
        }
        let options = BasicPublishOptions {
            mandatory: !telemetry,
            ..BasicPublishOptions::default()
        };
        let body = publication.body.clone();
        let mut sending: Sending<'c> = Box::pin(send(
            self.channel,
            number,
            exchange,
            key,
            options,
            body,
            properties,
        ));
        self.bytes += job.publication.body.len();
        self.sent.push_back(Some(Sent {
            job,
            at: Instant::now(),
            returned: None,
        }));
        // The first poll queues the frames: here, so that messages leave in the order they came. The set polls again
        // with a real waker.
        match sending
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => self.sending.push(sending),
            // Even confirmed already, if this thread was set aside meanwhile.
            Poll::Ready(outcome) => self.done.push(outcome),
        }
    }

    /// Waits for confirmations and resolves their receipts. Returns the routing keys that no queue took. Safe to drop
    /// while waiting.
    pub(super) async fn settle(&mut self) -> lapin::Result<Vec<String>> {
        if self.done.is_empty()
            && let Some(outcome) = self.sending.next().await
        {
            self.done.push(outcome);
        }
        // Takes and frees the lock under which lapin completes one batch of confirmations, so the batch is whole.
        let _ = self.channel.wait_for_confirms().now_or_never();
        self.collect();
        let mut outcomes = std::mem::take(&mut self.done);
        for (number, result) in &mut outcomes {
            let message = match result {
                Ok(lapin::Confirmation::Ack(message) | lapin::Confirmation::Nack(message)) => {
                    message.take()
                }
                _ => None,
            };
            if let Some(message) = message {
                self.mark(&message, *number);
            }
        }
        let mut returned = Vec::new();
        let mut failure = None;
        let full = self.sending.len() + outcomes.len() >= self.room.limit();
        let (mut confirmed, mut first) = (0, None::<Instant>);
        for (number, result) in outcomes.drain(..) {
            let Some(sent) = self.take(number) else {
                continue;
            };
            self.bytes -= sent.job.publication.body.len();
            confirmed += 1;
            first = Some(first.map_or(sent.at, |first| first.min(sent.at)));
            let fate = match (result, sent.returned) {
                (Err(error), _) => {
                    failure = Some(error);
                    continue;
                }
                (Ok(_), Some(why)) => {
                    returned.push(sent.job.publication.routing_key);
                    Confirmation::Returned(why)
                }
                (Ok(lapin::Confirmation::Nack(_)), None) => Confirmation::Nacked,
                (Ok(_), None) => Confirmation::Confirmed,
            };
            let _ = sent.job.resolve.send(fate);
        }
        self.done = outcomes;
        if let Some(first) = first {
            self.room.confirmed(confirmed, first, Instant::now(), full);
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(returned),
        }
    }

    /// Moves every complete confirmation to `done`. The set may pause early, and then wakes whoever polls it; only a
    /// pause without a wake means that nothing is left.
    fn collect(&mut self) {
        let waker = Waker::from(Arc::clone(&self.early));
        let mut context = Context::from_waker(&waker);
        loop {
            self.early.0.store(false, Ordering::SeqCst);
            match self.sending.poll_next_unpin(&mut context) {
                Poll::Ready(Some(outcome)) => self.done.push(outcome),
                Poll::Ready(None) => return,
                Poll::Pending if self.early.0.load(Ordering::SeqCst) => {}
                Poll::Pending => return,
            }
        }
    }

    /// Finds whose message came back: the oldest in flight that is equal to it. If none is, the one whose
    /// confirmation carried it counts as returned, so that nothing is taken for delivered that may not be.
    fn mark(&mut self, message: &BasicReturnMessage, carrier: u64) {
        let id = message
            .properties
            .message_id()
            .as_ref()
            .map(ShortString::as_str);
        let equal = |sent: &Sent| {
            let publication = &sent.job.publication;
            sent.returned.is_none()
                && publication.class != PublicationClass::Telemetry
                && publication.routing_key == message.routing_key.as_str()
                && publication.exchange == message.exchange.as_str()
                && property(publication) == id
                && publication.body[..] == message.data[..]
        };
        let why = format!(
            "no queue took it: {} (exchange {:?}, routing key {:?})",
            message.reply_text,
            message.exchange.as_str(),
            message.routing_key.as_str()
        );
        let found = self.sent.iter_mut().flatten().find(|sent| equal(sent));
        match found {
            Some(sent) => sent.returned = Some(why),
            None => {
                tracing::warn!(
                    routing_key = message.routing_key.as_str(),
                    "a returned message matches none in flight"
                );
                let slot = usize::try_from(carrier - self.first).ok();
                if let Some(Some(sent)) = slot.and_then(|slot| self.sent.get_mut(slot)) {
                    sent.returned = Some(why);
                }
            }
        }
    }

    fn take(&mut self, number: u64) -> Option<Sent> {
        let slot = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let sent = self.sent.get_mut(slot)?.take();
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        sent
    }
}

/// The id as a property. One that does not fit is in the body all the same.
fn property(publication: &Publication) -> Option<&str> {
    publication
        .message_id
        .as_deref()
        .filter(|id| id.len() <= 255)
}

async fn send(
    channel: &Channel,
    number: u64,
    exchange: ShortString,
    key: ShortString,
    options: BasicPublishOptions,
    body: Bytes,
    properties: BasicProperties,
) -> Outcome {
    let published = channel
        .basic_publish(exchange, key, options, &body, properties)
        .await;
    let result = match published {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (number, result)
}
