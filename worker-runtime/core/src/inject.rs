//! Publishing many messages into one queue, in order, each until the broker confirmed it: what `vumi inject` does.
//! Whatever is unconfirmed when something goes wrong is published again with the same id, so a message may come twice
//! and none is missing.

use crate::broker::{Broker, Confirmation, EXCHANGE, Publication, PublicationClass, Receipt};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::glance::Glance;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
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
    /// What is not known to be confirmed together with all before it; without a receipt it is confirmed itself.
    flight: VecDeque<(Bytes, Option<Receipt>)>,
    confirmed: u64,
    repeated: u64,
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
            flight: VecDeque::new(),
            confirmed: 0,
            repeated: 0,
        }
    }

    /// Messages that the broker confirmed: the first so many of those that were sent.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
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
        let receipt = self.publish(body.clone()).await;
        self.flight.push_back((body, Some(receipt)));
        self.reap(false).await?;
        while self.flight.len() > WINDOW {
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

    async fn publish(&self, body: Bytes) -> Receipt {
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: self.queue.clone(),
            message_id: Glance::of(&body).id(),
            body,
            class: self.class,
        };
        self.broker.publish(publication).await
    }

    /// Takes in confirmations that are there; with `all`, waits for the others.
    async fn reap(&mut self, all: bool) -> Result<(), WorkError> {
        while let Some((_, receipt)) = self.flight.front() {
            if !all && receipt.as_ref().is_some_and(|receipt| !receipt.is_there()) {
                return Ok(());
            }
            self.first().await?;
        }
        Ok(())
    }

    /// Waits for the oldest confirmation. If it is not a good one, everything in flight is published again, in order. Nothing
    /// is counted out of turn, also where the caller stops waiting.
    async fn first(&mut self) -> Result<(), WorkError> {
        let mut attempts = 0;
        while let Some((_, receipt)) = self.flight.front_mut() {
            let said = match receipt {
                Some(receipt) => receipt.arrived().await,
                None => Confirmation::Confirmed,
            };
            match said {
                Confirmation::Confirmed => {
                    self.flight.pop_front();
                    self.confirmed += 1;
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
        let mut known = Vec::new();
        for (position, (body, receipt)) in std::mem::take(&mut self.flight).into_iter().enumerate()
        {
            let confirmed = match receipt {
                Some(receipt) if position > 0 => {
                    receipt.confirmation().await == Confirmation::Confirmed
                }
                Some(_) => false,
                None => true,
            };
            known.push((body, confirmed));
        }
        tokio::time::sleep(PAUSE).await;
        for (body, confirmed) in known {
            let receipt = match confirmed {
                true => None,
                false => {
                    self.repeated += 1;
                    Some(self.publish(body.clone()).await)
                }
            };
            self.flight.push_back((body, receipt));
        }
    }
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
        for said in [
            Confirmation::Nacked,
            Confirmation::Confirmed,
            Confirmation::Lost,
        ] {
            let (resolve, receipt) = Receipt::new();
            resolve.send(said).unwrap();
            injector.flight.push_back((body(), Some(receipt)));
        }
        injector.again().await;
        assert_eq!((injector.confirmed(), injector.repeated()), (0, 2));
        let known = injector.flight.iter().map(|(_, receipt)| receipt.is_none());
        assert_eq!(known.collect::<Vec<_>>(), [false, true, false]);
        injector.flush().await.unwrap();
        assert_eq!(injector.confirmed(), 3);
    }
}
