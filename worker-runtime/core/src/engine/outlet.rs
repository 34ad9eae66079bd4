//! The way out of a worker: publish chain, mandatory publication, confirmation. Shared by everything that a worker
//! causes: outputs of handled messages, messages of the peer, nack events, parked messages.

use super::backlog::Backlog;
use super::backoff::Backoff;
use crate::broker::{
    Broker, Confirmation, EXCHANGE, LinkState, Publication, PublicationClass, QueueSpec,
    RawDelivery, Receipt, Wanted,
};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::MAX_BODY;
use crate::middleware::Chain;
use crate::parking::{Envelope, parked_queue};
use crate::telemetry::{TargetMetrics, WorkerMetrics};
use crate::worker::Output;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::Port;

const REPUBLISH: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
/// While the broker is away, whoever waits for it looks so often whether the wait is still worth it.
const AWAY: Duration = Duration::from_millis(100);
/// How often a publication that no queue takes is repeated before its cause is retried as a whole.
const RETURNS: u32 = 3;

pub(super) struct Outlet {
    broker: Arc<dyn Broker>,
    chain: Arc<Chain>,
    pub(super) backlog: Arc<Backlog>,
    targets: HashMap<String, TargetMetrics>,
    /// Held while several publications of one message are handed over.
    together: tokio::sync::Mutex<()>,
}

/// Why something was not published.
#[derive(Debug)]
pub(super) enum Unpublished {
    /// The engine wants to stop, or the delivery behind it is no longer ours.
    Interrupted,
    /// It cannot be published.
    Failed(WorkError),
}

impl From<WorkError> for Unpublished {
    fn from(error: WorkError) -> Self {
        Unpublished::Failed(error)
    }
}

/// For whom something is published.
#[derive(Clone, Copy)]
pub(super) struct Cause<'a> {
    /// Asked before a publication is repeated.
    pub(super) interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Asked before it is sent; none for what nothing else brings back.
    pub(super) wanted: Option<&'a Wanted>,
}

impl<'a> From<&'a (dyn Fn() -> bool + Sync)> for Cause<'a> {
    fn from(interrupted: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            interrupted,
            wanted: None,
        }
    }
}

/// A publication under way.
struct Sent {
    publication: Publication,
    receipt: Receipt,
}

impl Outlet {
    pub(super) fn new(
        broker: Arc<dyn Broker>,
        chain: Arc<Chain>,
        backlog: Arc<Backlog>,
        metrics: &WorkerMetrics,
        publishes: &[Port],
    ) -> Self {
        let targets = publishes
            .iter()
            .map(|port| (port.queue(), metrics.target(&port.queue())))
            .collect();
        Self {
            broker,
            chain,
            backlog,
            targets,
            together: tokio::sync::Mutex::default(),
        }
    }

    /// Publishes outputs in their order and waits until the broker has every one.
    pub(super) async fn publish_all(
        &self,
        outputs: Vec<Output>,
        cause: Cause<'_>,
    ) -> Result<(), Unpublished> {
        let mut ready = Vec::with_capacity(outputs.len());
        for output in outputs {
            ready.push(self.prepare(output).await?);
        }
        let mut sent = Vec::with_capacity(ready.len());
        {
            // Each in a queue of its own, the second publication of every message would wait behind the first of all
            // others, and what a process that dies has half published comes twice.
            let _together = match ready.len() {
                0 | 1 => None,
                _ => Some(self.together.lock().await),
            };
            for publication in ready {
                sent.push(self.hand_on(publication, cause).await?);
            }
        }
        for one in sent {
            self.confirmed(one, cause).await?;
        }
        Ok(())
    }

    /// Publishes one output and waits until the broker has it. `interrupted` is asked before it is repeated.
    pub(super) async fn publish(
        &self,
        output: Output,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Unpublished> {
        let publication = self.prepare(output).await?;
        self.send(publication, interrupted.into()).await
    }

    /// Puts a message into a queue as it is, past the publish chain; false if there is no such queue.
    pub(super) async fn offer(
        &self,
        queue: &str,
        id: &str,
        body: bytes::Bytes,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, Unpublished> {
        let publication = Publication {
            exchange: String::new(),
            routing_key: queue.to_owned(),
            message_id: Some(id.to_owned()),
            body,
            class: PublicationClass::Direct,
        };
        self.taken(publication, interrupted.into()).await
    }

    /// Publishes to a queue that its reader declares; false if nobody did.
    pub(super) async fn entrust(
        &self,
        routing_key: String,
        body: bytes::Bytes,
        cause: Cause<'_>,
    ) -> Result<bool, Unpublished> {
        let publication = Publication {
            exchange: EXCHANGE.to_owned(),
            routing_key,
            message_id: None,
            body,
            class: PublicationClass::Direct,
        };
        self.taken(publication, cause).await
    }

    /// Publishes until the broker has it; false if no queue took it.
    async fn taken(&self, publication: Publication, cause: Cause<'_>) -> Result<bool, Unpublished> {
        let mut attempt = 0;
        loop {
            let receipt = self.hand_over(&publication, cause).await?;
            let wait = match receipt.confirmation().await {
                Confirmation::Confirmed => return Ok(true),
                Confirmation::Returned(_) => return Ok(false),
                Confirmation::Nacked => {
                    attempt += 1;
                    REPUBLISH.after(attempt)
                }
                Confirmation::Lost => Duration::ZERO,
            };
            if (cause.interrupted)() {
                return Err(Unpublished::Interrupted);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Publishes for whoever listens: nobody may, and then it is gone.
    pub(super) async fn announce(&self, routing_key: String, body: bytes::Bytes) {
        let publication = Publication {
            exchange: EXCHANGE.to_owned(),
            routing_key,
            message_id: None,
            body,
            class: PublicationClass::Telemetry,
        };
        let receipt = self.broker.publish(publication).await;
        let _ = receipt.confirmation().await;
    }

    /// Whether the broker is there and takes publications.
    pub(super) fn is_open(&self) -> bool {
        crate::beacon::is_up(&self.broker.link().borrow())
    }

    /// Whether a queue is there, also one that is another replica's own.
    pub(super) async fn is_there(&self, queue: &str) -> Result<bool, WorkError> {
        self.broker.is_there(queue).await
    }

    /// Puts a word without a body into a queue of our own, as far as that is there; it may get lost.
    pub(super) async fn mark(&self, queue: &str, id: String) -> Receipt {
        let publication = Publication {
            exchange: String::new(),
            routing_key: queue.to_owned(),
            message_id: Some(id),
            body: bytes::Bytes::new(),
            class: PublicationClass::Telemetry,
        };
        self.broker.publish(publication).await
    }

    /// Publishes a delivery to another queue as it is, body and properties, and waits until the broker has it.
    pub(super) async fn pass_on(
        &self,
        raw: &RawDelivery,
        queue: &str,
        cause: Cause<'_>,
    ) -> Result<(), Unpublished> {
        let publication = Publication {
            exchange: EXCHANGE.to_owned(),
            routing_key: queue.to_owned(),
            body: raw.body.clone(),
            message_id: raw.message_id.clone(),
            class: PublicationClass::Data,
        };
        self.send(publication, cause).await
    }

    /// Puts a message into the parking queue of the queue it came from.
    pub(super) async fn park(
        &self,
        envelope: &Envelope,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Unpublished> {
        let parking = parked_queue(&envelope.origin);
        let publication = envelope.publication();
        let mut attempt = 0;
        loop {
            let declared = self
                .broker
                .declare(&QueueSpec::Parking(parking.clone()))
                .await;
            let failed = match declared {
                Ok(()) => {
                    let publication = publication.clone();
                    match self.send(publication, interrupted.into()).await {
                        Err(Unpublished::Failed(error)) => error,
                        done => return done,
                    }
                }
                Err(error) => error,
            };
            // Parking is the last resort: nothing else can become of the message, so this goes on until it works.
            if interrupted() {
                return Err(Unpublished::Interrupted);
            }
            attempt += 1;
            tracing::warn!(queue = parking, code = %failed.code, reason = %failed, "cannot set a message aside; trying again");
            tokio::time::sleep(REPUBLISH.after(attempt)).await;
        }
    }

    /// Hands a publication to the broker, once it is there and takes any. A delivery whose channel ended meanwhile comes
    /// again, and what it caused would come twice.
    async fn hand_over(
        &self,
        publication: &Publication,
        cause: Cause<'_>,
    ) -> Result<Receipt, Unpublished> {
        let mut link = self.broker.link();
        while matches!(
            *link.borrow_and_update(),
            LinkState::Connecting { .. } | LinkState::Blocked(_)
        ) {
            // Before, since others may wait behind this one, and after, since it may come again by now.
            if (cause.interrupted)() {
                return Err(Unpublished::Interrupted);
            }
            let _ = tokio::time::timeout(AWAY, link.changed()).await;
            if (cause.interrupted)() {
                return Err(Unpublished::Interrupted);
            }
        }
        let publication = publication.clone();
        Ok(match cause.wanted {
            Some(wanted) => {
                let wanted = Arc::clone(wanted);
                self.broker.publish_if(publication, wanted).await
            }
            None => self.broker.publish(publication).await,
        })
    }

    /// Publish chain and encoding.
    async fn prepare(&self, output: Output) -> Result<Publication, Unpublished> {
        let Output { port, mut message } = output;
        self.backlog.sends(&port, &message);
        if !self.chain.is_empty() {
            message = self.chain.publish(&port, message).await?;
        }
        let body = message.encode();
        if body.len() > MAX_BODY {
            // Every reader refuses it: better now, while its sender can still be told.
            return Err(WorkError::new(
                ErrorClass::BadInput,
                codes::MESSAGE_TOO_LARGE,
                format!(
                    "the message has {} bytes as JSON, {MAX_BODY} are allowed",
                    body.len()
                ),
            )
            .into());
        }
        Ok(Publication {
            exchange: EXCHANGE.to_owned(),
            routing_key: port.queue(),
            message_id: Some(message.id().to_owned()),
            body,
            class: PublicationClass::Data,
        })
    }

    /// Hands a publication to the broker and waits until that has it.
    async fn send(&self, publication: Publication, cause: Cause<'_>) -> Result<(), Unpublished> {
        let sent = self.hand_on(publication, cause).await?;
        self.confirmed(sent, cause).await
    }

    async fn hand_on(
        &self,
        publication: Publication,
        cause: Cause<'_>,
    ) -> Result<Sent, Unpublished> {
        let receipt = self.hand_over(&publication, cause).await?;
        Ok(Sent {
            publication,
            receipt,
        })
    }

    async fn confirmed(&self, sent: Sent, cause: Cause<'_>) -> Result<(), Unpublished> {
        let Sent {
            publication,
            mut receipt,
        } = sent;
        let metrics = self.targets.get(&publication.routing_key);
        let (mut attempt, mut returns) = (0, 0);
        loop {
            let wait = match receipt.confirmation().await {
                Confirmation::Confirmed => {
                    if let Some(metrics) = metrics {
                        metrics.published.inc();
                    }
                    return Ok(());
                }
                Confirmation::Returned(reason) => {
                    returns += 1;
                    if returns >= RETURNS {
                        return Err(Unpublished::Failed(WorkError::new(
                            ErrorClass::Connect,
                            codes::ROUTE_NO_QUEUE,
                            format!("no queue took {:?}: {reason}", publication.routing_key),
                        )));
                    }
                    REPUBLISH.after(returns)
                }
                Confirmation::Nacked => {
                    attempt += 1;
                    REPUBLISH.after(attempt)
                }
                Confirmation::Lost => Duration::ZERO,
            };
            if (cause.interrupted)() {
                return Err(Unpublished::Interrupted);
            }
            tokio::time::sleep(wait).await;
            if let Some(metrics) = metrics {
                metrics.republished.inc();
            }
            receipt = self.hand_over(&publication, cause).await?;
        }
    }

    pub(super) fn target_metrics(&self, queue: &str) -> Option<&TargetMetrics> {
        self.targets.get(queue)
    }
}
