//! Publishing many messages into one queue, in order, each until the broker confirmed it: what `vumi inject` does.
//! Whatever is unconfirmed when something goes wrong is published again with the same id, so a message may come twice
//! and none is missing.

use crate::broker::{Broker, Confirmation, EXCHANGE, Publication, PublicationClass, Receipt};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::glance::Glance;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Publications whose confirmations may be awaited at one time.
const WINDOW: usize = 2000;
/// Between attempts after the broker refused or lost something.
const PAUSE: Duration = Duration::from_millis(200);
/// A broker that refuses the same message so often is not asked again.
const ATTEMPTS: u32 = 50;

/// Publishes into one queue.
pub struct Injector {
    broker: Arc<dyn Broker>,
    queue: String,
    class: PublicationClass,
    flight: Arc<Mutex<Flight>>,
    repeated: u64,
}

/// What is not known to be confirmed together with all before it.
#[derive(Default)]
struct Flight {
    /// So many before it are.
    confirmed: u64,
    sent: VecDeque<Sent>,
}

struct Sent {
    body: Bytes,
    said: Said,
}

enum Said {
    Waiting(Receipt),
    Known(Confirmation),
}

impl Sent {
    fn look(&mut self) -> Option<&Confirmation> {
        if let Said::Waiting(receipt) = &mut self.said {
            self.said = Said::Known(receipt.look()?);
        }
        match &self.said {
            Said::Known(said) => Some(said),
            Said::Waiting(_) => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Confirmation> {
        let said = match &mut self.said {
            Said::Known(said) => said.clone(),
            Said::Waiting(receipt) => ready!(receipt.poll(cx)),
        };
        self.said = Said::Known(said.clone());
        Poll::Ready(said)
    }
}

impl Flight {
    /// Whether the broker does not have what goes before a message: the oldest one, or the one just before it. With a connection,
    /// all are lost that were unconfirmed.
    fn lacks(&mut self, before: u64) -> bool {
        let last = before.checked_sub(self.confirmed + 1);
        let last = last.and_then(|position| usize::try_from(position).ok());
        let mut is_bad = |position| {
            let sent: Option<&mut Sent> = self.sent.get_mut(position);
            let said = sent.and_then(Sent::look);
            said.is_some_and(|said| *said != Confirmation::Confirmed)
        };
        last.is_some_and(|last| is_bad(0) || is_bad(last))
    }
}

impl Injector {
    /// Publishes to the routing key `queue`. Without `create` a queue that does not exist is an error, with it, it is
    /// declared.
    pub fn new(broker: Arc<dyn Broker>, queue: impl Into<String>, create: bool) -> Self {
        Self {
            broker,
            queue: queue.into(),
            class: match create {
                true => PublicationClass::Data,
                false => PublicationClass::Direct,
            },
            flight: Arc::default(),
            repeated: 0,
        }
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        lock(&self.flight)
    }

    /// Messages that the broker confirmed: the first so many of those that were sent.
    pub fn confirmed(&self) -> u64 {
        self.flight().confirmed
    }

    /// Publications that had to be repeated.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Hands a message to the broker; waits while too many are unconfirmed.
    ///
    /// # Errors
    /// `route.no_queue` if no queue takes it, `broker.unreachable` if the broker goes on refusing it.
    pub async fn send(&mut self, body: Bytes) -> Result<(), WorkError> {
        self.publish(body).await;
        self.reap(false).await?;
        while self.flight().sent.len() > WINDOW {
            self.first().await?;
        }
        Ok(())
    }

    /// Waits until everything is confirmed.
    ///
    /// # Errors
    /// Those of [`Injector::send`].
    pub async fn flush(&mut self) -> Result<(), WorkError> {
        self.reap(true).await
    }

    /// Publishes a message behind those in flight; not by a connection that came after one which lost some of them.
    async fn publish(&self, body: Bytes) {
        let before = {
            let flight = self.flight();
            flight.confirmed + flight.sent.len() as u64
        };
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: self.queue.clone(),
            message_id: Glance::of(&body).id(),
            body: body.clone(),
            class: self.class,
        };
        let flight = Arc::clone(&self.flight);
        let wanted = Arc::new(move || !lock(&flight).lacks(before));
        let receipt = self.broker.publish_if(publication, wanted).await;
        let said = Said::Waiting(receipt);
        self.flight().sent.push_back(Sent { body, said });
    }

    /// Takes in confirmations that are there; with `all`, waits for the others.
    async fn reap(&mut self, all: bool) -> Result<(), WorkError> {
        loop {
            let is_next = match self.flight().sent.front_mut() {
                None => false,
                Some(sent) => all || sent.look().is_some(),
            };
            if !is_next {
                return Ok(());
            }
            self.first().await?;
        }
    }

    /// What was said of one in flight; waits for it.
    async fn said(&self, position: usize) -> Option<Confirmation> {
        poll_fn(|cx| match self.flight().sent.get_mut(position) {
            Some(sent) => sent.poll(cx).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }

    /// Waits for the oldest confirmation. If it is not a good one, everything in flight is published again, in order. Nothing
    /// is counted out of turn, also where the caller stops waiting.
    async fn first(&mut self) -> Result<(), WorkError> {
        let mut attempts = 0;
        while let Some(said) = self.said(0).await {
            match said {
                Confirmation::Confirmed => {
                    let mut flight = self.flight();
                    flight.sent.pop_front();
                    flight.confirmed += 1;
                    return Ok(());
                }
                Confirmation::Returned(why) => {
                    return Err(WorkError::new(
                        ErrorClass::Unroutable,
                        codes::ROUTE_NO_QUEUE,
                        format!("no queue takes messages for {}: {why}", self.queue),
                    ));
                }
                Confirmation::Nacked | Confirmation::Lost if attempts < ATTEMPTS => {
                    attempts += 1;
                    self.again().await;
                }
                Confirmation::Nacked | Confirmation::Lost => {
                    return Err(WorkError::new(
                        ErrorClass::Connect,
                        codes::BROKER_UNREACHABLE,
                        format!("the broker does not confirm messages for {}", self.queue),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The first one in flight was not confirmed: publishes it and whatever behind it is unconfirmed again, in order.
    async fn again(&mut self) {
        let count = self.flight().sent.len();
        for position in 0..count {
            self.said(position).await;
        }
        tokio::time::sleep(PAUSE).await;
        let known = std::mem::take(&mut self.flight().sent);
        for sent in known {
            match sent.said {
                Said::Known(Confirmation::Confirmed) => self.flight().sent.push_back(sent),
                _ => {
                    self.repeated += 1;
                    self.publish(sent.body).await;
                }
            }
        }
    }
}

fn lock(flight: &Mutex<Flight>) -> MutexGuard<'_, Flight> {
    flight.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::message::UserMessage;

    fn body() -> Bytes {
        UserMessage::new("sms", Some("1"), Some("2")).encode()
    }

    fn broker() -> Arc<dyn Broker> {
        EmbeddedBroker::open(EmbeddedOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn a_queue_that_does_not_exist_is_made_only_when_asked() {
        let broker = broker();
        let mut injector = Injector::new(Arc::clone(&broker), "t.inbound", false);
        let sent = async {
            injector.send(body()).await?;
            injector.flush().await
        };
        assert_eq!(sent.await.unwrap_err().code, codes::ROUTE_NO_QUEUE);
        assert_eq!(injector.confirmed(), 0);
        let mut injector = Injector::new(Arc::clone(&broker), "t.inbound", true);
        for _ in 0..WINDOW + 10 {
            injector.send(body()).await.unwrap();
        }
        injector.flush().await.unwrap();
        assert_eq!(injector.confirmed(), WINDOW as u64 + 10);
        let depth = broker.depth("t.inbound").await.unwrap().unwrap();
        assert_eq!(depth.ready as usize, WINDOW + 10);
    }

    /// The broker refused the first of three: the two behind it are not counted before it is there.
    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_sent_again_and_what_is_counted_has_no_gap() {
        let broker = broker();
        let mut injector = Injector::new(Arc::clone(&broker), "t.inbound", true);
        let mut bodies = Vec::new();
        for said in [
            Confirmation::Nacked,
            Confirmation::Confirmed,
            Confirmation::Lost,
        ] {
            let (resolve, receipt) = Receipt::new();
            resolve.send(said).unwrap();
            let (body, said) = (body(), Said::Waiting(receipt));
            bodies.push(body.clone());
            injector.flight().sent.push_back(Sent { body, said });
        }
        injector.again().await;
        assert_eq!((injector.confirmed(), injector.repeated()), (0, 2));
        let queued: Vec<Bytes> = {
            let flight = injector.flight();
            flight.sent.iter().map(|sent| sent.body.clone()).collect()
        };
        assert_eq!(queued, bodies);
        injector.flush().await.unwrap();
        assert_eq!(injector.confirmed(), 3);
    }
}
