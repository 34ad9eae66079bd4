//! The test bench of one case: the worker under test between a broker that can be made faulty, the far end of its queues
//! and its peer. Where the worker runs is the matter of [`UnderTest`]: in this process ([`super::inside`]) or in one of its
//! own ([`super::outside`]).

use super::Peer;
use super::far_end::{FarEnd, patience};
use super::faults::Mischief;
use crate::broker::{Broker, Confirmation, EXCHANGE, Publication, PublicationClass};
use crate::engine::{Counts, StopLimits};
use crate::message::{Event, Message, UserMessage, derived_id};
use crate::parking::parked_queue;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::{Flow, Kind, OrderingMode, Port, Topology};

/// In every content that the suite sends; must never be in a log line, a status or a metric of ours.
pub(super) const MARK: &str = "mArKeD-c0ntent";

/// Stop limits that no case should need to the full.
pub(super) const LIMITS: StopLimits = StopLimits {
    drain: Duration::from_secs(20),
    flush: Duration::from_secs(20),
    close: Duration::from_secs(5),
};

/// Limits of a stop that waits for nobody who waits for a reply.
pub(super) const WITHOUT_REPLIES: StopLimits = StopLimits {
    drain: Duration::from_millis(100),
    ..LIMITS
};

/// A worker under test, wherever it runs.
pub(super) trait UnderTest {
    /// What can be broken around it.
    type Faults: Mischief + ?Sized;

    /// Starts it, and waits until it consumes.
    async fn run(&mut self) -> Result<(), String>;
    /// Waits until it consumes all its queues.
    async fn until_consuming(&self) -> Result<(), String>;
    /// Ends its process as a crash does: no goodbye, channels gone, then a new one starts.
    async fn crash_and_restart(&mut self) -> Result<(), String>;
    /// Begins to stop it; it has stopped when the future ends.
    fn stopping(
        &mut self,
        limits: StopLimits,
    ) -> Result<BoxFuture<'static, Result<(), String>>, String>;
    /// What became of its deliveries; an error where nobody can see that.
    fn counts(&self) -> Result<Counts, String>;
    /// Makes this a message on which handling fails each time.
    fn poison(&self, message: &mut UserMessage);
    /// How often the message was handed to it.
    fn attempts(&self, id: &str) -> u32;
    /// Waits until nothing is in flight, and demands that every delivery has exactly one fate.
    async fn settle(&self) -> Result<Counts, String>;
    /// Waits until so many messages are done and so many parked, and nothing is in flight.
    async fn finished(&self, done: u64, parked: u64) -> Result<(), String>;
    /// Waits until it says that it has no broker, if it says such things.
    async fn notices_outage(&self) -> Result<(), String>;
    /// Whether it hands a message to its peer at most once, whatever happens (R17).
    fn writes_ahead(&self) -> bool;
    /// Whether the codes of what it sets aside are those of this runtime.
    fn has_our_codes(&self) -> bool;
    /// A far end of the transport.
    fn peer(&self) -> Result<Box<dyn Peer>, String>;
}

/// A bench, and on it the worker `under` test.
pub(super) struct Rig<W: UnderTest> {
    pub(super) kind: Kind,
    /// Its `transportName`.
    pub(super) name: String,
    pub(super) ordering: OrderingMode,
    /// What users say to it; `{}` stands for the suite's own text.
    pub(super) saying: String,
    pub(super) topology: Topology,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) faults: Arc<W::Faults>,
    pub(super) far_end: FarEnd,
    /// Names this run in derived ids.
    pub(super) run_name: String,
    pub(super) under: W,
}

impl<W: UnderTest> Rig<W> {
    /// Starts the worker, and waits until it consumes.
    pub(super) async fn run(&mut self) -> Result<(), String> {
        self.under.run().await
    }

    pub(super) async fn until_consuming(&self) -> Result<(), String> {
        self.under.until_consuming().await
    }

    /// See [`UnderTest::crash_and_restart`].
    pub(super) async fn crash_and_restart(&mut self) -> Result<(), String> {
        self.under.crash_and_restart().await
    }

    /// Stops the worker.
    pub(super) async fn stop(&mut self, limits: StopLimits) -> Result<(), String> {
        self.under.stopping(limits)?.await
    }

    pub(super) fn counts(&self) -> Result<Counts, String> {
        self.under.counts()
    }

    /// See [`UnderTest::settle`].
    pub(super) async fn settle(&self) -> Result<Counts, String> {
        self.under.settle().await
    }

    pub(super) fn peer(&self) -> Result<Box<dyn Peer>, String> {
        self.under.peer()
    }

    /// The ports of the data queues that it consumes.
    pub(super) fn consumed(&self) -> impl Iterator<Item = &Port> {
        self.topology.intake.iter().chain(&self.topology.replies)
    }

    /// Whether a message on `port` must cause an output: applications take events without a word.
    pub(super) fn answers(&self, port: &Port) -> bool {
        !(self.kind == Kind::Application && port.flow == Flow::Event)
    }

    /// Whether messages on `port` are handed to a peer, at most once whatever happens (R17).
    pub(super) fn sends(&self, port: &Port) -> bool {
        self.under.writes_ahead() && self.kind == Kind::Transport && port.flow == Flow::Outbound
    }

    /// Whether what it publishes has ids of its own: a dispatcher only forwards.
    pub(super) fn answers_itself(&self) -> bool {
        self.kind != Kind::Dispatcher
    }

    /// The ports whose messages cause outputs.
    pub(super) fn answering(&self) -> Vec<Port> {
        let ports = self.consumed().filter(|port| self.answers(port));
        ports.cloned().collect()
    }

    /// The `n`-th message of `user` for `port`: the same at every call.
    pub(super) fn message(&self, port: &Port, user: usize, n: usize) -> Message {
        let id = derived_id(&[
            "conformance",
            &self.run_name,
            &port.queue(),
            &user.to_string(),
            &n.to_string(),
        ]);
        let address = format!("+2782900{user:04}");
        let outbound_target = self.topology.publishes.iter();
        let transport = match port.flow {
            Flow::Outbound => outbound_target
                .filter(|p| p.flow == Flow::Outbound)
                .map(|p| p.connector.as_str())
                .next()
                .unwrap_or(&port.connector),
            Flow::Inbound | Flow::Event => &port.connector,
        };
        if port.flow == Flow::Event {
            let mut event = Event::ack(&id, "remote");
            event.set_field("event_id", derived_id(&["event", &id]));
            event.set_transport_name(transport);
            return event.into();
        }
        let (to, from) = match port.flow {
            Flow::Outbound => (address.as_str(), "55555"),
            _ => ("55555", address.as_str()),
        };
        let mut message = UserMessage::new("sms", Some(to), Some(from));
        message.set_message_id(&id);
        message.set_transport_name(transport);
        let text = format!("{MARK} {user} {n}");
        let text = self.saying.replace("{}", &text);
        message.set_content(Some(&text));
        message.into()
    }

    /// Publishes a body to a consumed queue, past all faults.
    pub(super) async fn feed(&self, queue: &str, body: Bytes) -> Result<(), String> {
        self.feed_all([(queue.to_owned(), body)]).await
    }

    /// Publishes bodies to consumed queues, in their order and without a wait for each, past all faults.
    async fn feed_all(
        &self,
        bodies: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<(), String> {
        let mut receipts = Vec::new();
        for (queue, body) in bodies {
            receipts.push(self.publish(queue, body, PublicationClass::Data).await);
        }
        for receipt in receipts {
            match receipt.confirmation().await {
                Confirmation::Confirmed => {}
                other => return Err(format!("the suite cannot publish: {other:?}")),
            }
        }
        Ok(())
    }

    /// Publishes one body, past all faults.
    pub(super) async fn publish(
        &self,
        queue: String,
        body: Bytes,
        class: PublicationClass,
    ) -> crate::broker::Receipt {
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: queue,
            body,
            message_id: None,
            class,
        };
        self.broker.publish(publication).await
    }

    /// Publishes a message to the queue of its port; its id.
    pub(super) async fn send(&self, port: &Port, message: &Message) -> Result<String, String> {
        self.feed(&port.queue(), message.encode()).await?;
        Ok(message.id().to_owned())
    }

    /// Publishes the `n`-th messages of `users` to `port`, for each `n`; their users and ids, in the order sent.
    pub(super) async fn send_many(
        &self,
        port: &Port,
        users: std::ops::Range<usize>,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<(usize, String)>, String> {
        let each = numbers.flat_map(|n| users.clone().map(move |user| (user, n)));
        let messages: Vec<(usize, Message)> = each
            .map(|(user, n)| (user, self.message(port, user, n)))
            .collect();
        let bodies = messages.iter().map(|(_, m)| (port.queue(), m.encode()));
        self.feed_all(bodies).await?;
        let ids = messages.iter().map(|(user, m)| (*user, m.id().to_owned()));
        Ok(ids.collect())
    }

    /// Messages in the parking queue of a consumed queue.
    pub(super) async fn parked(
        &self,
        port: &Port,
    ) -> Result<Vec<crate::parking::Envelope>, String> {
        let shelf = self.broker.shelf(&parked_queue(&port.queue()), 100).await;
        let shelf = match shelf {
            Ok(shelf) => shelf,
            Err(_) => return Ok(Vec::new()),
        };
        let decoded = shelf.messages().iter();
        let envelopes = decoded
            .map(|m| crate::parking::Envelope::decode(&m.body))
            .collect();
        shelf.close().await;
        envelopes
    }
}

/// Lets every task that can do something do it: all of a case runs on one thread.
pub(super) async fn everything_turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Asks until the answer is good; the last bad one if it never is.
pub(super) async fn eventually<T>(
    what: &str,
    ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    within(patience(), what, ask).await
}

/// As [`eventually`], for what may take so long.
pub(super) async fn within<T>(
    time: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + time;
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= deadline => {
                return Err(format!("never came true: {what}; at last: {last}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
