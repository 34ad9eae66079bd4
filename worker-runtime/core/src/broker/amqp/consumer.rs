//! A consumer that outlives channels and connections. Each life of its channel is a generation; whatever ends a life
//! (cut connection, cancelled consumer, consumer timeout, deleted queue) the next one declares and consumes again.

use super::Lifeline;
use super::beside::Beside;
use super::channels::{self, OpenChannel};
use super::errors::Trouble;
use super::fence::{Fence, Taken};
use super::holder::Herald;
use super::link::Line;
use super::orders::{Desk, Handle};
use super::profile::{self, Profile};
use super::spare::Spare;
use super::topology;
use crate::backoff::Backoff;
use crate::broker::{ConsumerState, QueueSpec, RawDelivery, Subscribe, Subscription};
use crate::codes;
use futures::future::{FutureExt, try_join_all};
use futures::stream::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, Connection};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Between tries for a fence that another holds; jittered by a fifth (R2).
const STANDBY: Duration = Duration::from_millis(50);
/// Between tries where someone must act first.
const REFUSED: Duration = Duration::from_secs(2);
/// Between lives that ended by themselves.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// A life that was longer was a good one.
const LIVED: Duration = Duration::from_secs(1);
/// How long the reader of a queue that is gone may take to make room for what was delivered of it.
const SAVING: Duration = Duration::from_secs(5);
/// How long closing a channel may take; its connection may be dead without anyone knowing yet.
const CLOSING: Duration = Duration::from_secs(2);

/// The subscription and the task that serves it until it is closed or `stop` is cancelled.
pub(super) fn subscription(
    subscribe: Subscribe,
    profile: Profile,
    herald: Herald,
    (line, spare): (Line, Arc<Spare>),
    stop: &CancellationToken,
    lifeline: Arc<Lifeline>,
) -> (Subscription, impl Future<Output = ()> + Send + use<>) {
    let prefetch = subscribe.prefetch.max(1);
    // Twice the prefetch, so that deliveries of a dead generation do not hold up the next one.
    let (sender, deliveries) = mpsc::channel(usize::from(prefetch) * 2);
    let (state, shown) = watch::channel(ConsumerState::Connecting(None));
    let desk = Arc::new(Desk::new(stop));
    let acker = Arc::new(Handle::new(&desk, lifeline));
    let keeper = Keeper {
        fence: profile::fence(profile, &subscribe.queue, subscribe.access),
        subscribe,
        profile,
        herald,
        prefetch,
        line,
        spare,
        desk: Arc::clone(&desk),
        sender,
        state,
        generation: 0,
        refused: false,
    };
    let task = keeper.run();
    let subscription = Subscription {
        deliveries,
        state: shown,
        acker,
    };
    (subscription, task)
}

/// What one life of a consumer has.
struct Prepared {
    connection: Arc<Connection>,
    channel: OpenChannel,
    taken: Taken,
    /// Of a tap: what it is bound to.
    beside: Option<Beside>,
}

struct Keeper {
    subscribe: Subscribe,
    profile: Profile,
    herald: Herald,
    fence: Fence,
    prefetch: u16,
    line: Line,
    spare: Arc<Spare>,
    desk: Arc<Desk>,
    sender: mpsc::Sender<RawDelivery>,
    state: watch::Sender<ConsumerState>,
    generation: u64,
    /// The broker refused the queue, and may do so again.
    refused: bool,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0u32;
        while self.wanted().await {
            let (begin, generation) = (Instant::now(), self.generation);
            let ended = self.life().await;
            self.desk.live(None);
            if self.generation > generation && begin.elapsed() > LIVED {
                failures = 0;
            }
            // Without an error it was rebuilt, cancelled or closed on purpose.
            let Err(trouble) = ended else { continue };
            failures = failures.saturating_add(1);
            let wait = match trouble {
                Trouble::Differs(_) | Trouble::Denied(_) | Trouble::FenceIgnored => {
                    self.refused = true;
                    jittered(REFUSED)
                }
                _ => PAUSE.after(failures),
            };
            self.show(shown(trouble));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.desk.closed() => {}
            }
        }
        self.show(ConsumerState::Stopped);
    }

    /// Waits while the consumer is cancelled; false once it is closed.
    async fn wanted(&self) -> bool {
        while self.desk.is_cancelled() && !self.desk.is_closed() {
            self.show(ConsumerState::Stopped);
            tokio::select! {
                () = self.desk.ordered() => {}
                () = self.desk.closed() => {}
            }
        }
        !self.desk.is_closed()
    }

    fn show(&self, state: ConsumerState) {
        self.state.send_if_modified(|shown| {
            let change = *shown != state;
            if change {
                tracing::debug!(queue = self.subscribe.queue.name(), ?state, "consumer");
                *shown = state;
            }
            change
        });
    }

    /// One generation, from connection to the end of its channel.
    async fn life(&mut self) -> Result<(), Trouble> {
        let desk = Arc::clone(&self.desk);
        let Prepared {
            connection,
            channel,
            taken,
            mut beside,
        } = tokio::select! {
            prepared = self.prepare() => prepared?,
            () = desk.closed() => return Ok(()),
            // Cancelled, perhaps: the loop around looks again.
            () = desk.ordered() => return Ok(()),
        };
        self.generation += 1;
        self.desk.live(Some(self.generation));
        self.show(ConsumerState::Consuming);
        let mut line = self.line.clone();
        let mut taken = Some(taken);
        let served = tokio::select! {
            served = self.serve(&connection, &channel, &mut taken) => served,
            () = line.lost(&connection) => Err(Trouble::Lost("the connection ended".into())),
            () = self.herald.speak(|| !desk.is_cancelled()) => Ok(()),
            trouble = async {
                match &mut beside {
                    Some(beside) => beside.keep((&connection, &self.spare), &channel).await,
                    None => std::future::pending().await,
                }
            } => Err(trouble),
        };
        self.desk.live(None);
        if let (QueueSpec::Reply(_), Some(taken)) = (&self.subscribe.queue, &mut taken) {
            self.save(taken).await;
        }
        // Waits, so that everything is back in the queue before the next life looks.
        let closing = async {
            if let Some(beside) = &mut beside {
                beside.leave(&channel).await;
            }
            if let Some(taken) = &taken {
                taken.settle(&channel, self.subscribe.queue.name()).await;
            }
            channel.close(200, "closed by vumi".into()).await
        };
        let _ = tokio::time::timeout(CLOSING, closing).await;
        // And only now the fence falls.
        drop(taken);
        served
    }

    /// Connection, declared queue, consumer behind its fence.
    async fn prepare(&mut self) -> Result<Prepared, Trouble> {
        let connection = match self.line.connection().now_or_never() {
            Some(connection) => connection?,
            None => {
                self.show(ConsumerState::Connecting(None));
                self.line.connection().await?
            }
        };
        let queue = &self.subscribe.queue;
        if self.refused && matches!(queue, QueueSpec::Data(_) | QueueSpec::Parking(_)) {
            let asking = self.spare.channel(&connection).await?;
            topology::declare_queue(&asking, self.profile, queue).await?;
        }
        let declaring = open(&connection, self.prefetch).await?;
        topology::declare_to_read(&declaring, self.profile, queue).await?;
        let declared = Instant::now();
        let taking = self.take(&connection, declaring, queue.name(), declared);
        let (channel, taken) = taking.await?;
        channel.unread(None);
        let mut beside = Beside::of(queue);
        if let Some(beside) = &mut beside {
            beside.look((&connection, &self.spare), &channel).await?;
        }
        Ok(Prepared {
            connection,
            channel,
            taken,
            beside,
        })
    }

    /// Consumes behind the fence, standing by while another holds it. A refusal closes the channel, so each try has
    /// its own.
    async fn take(
        &self,
        connection: &Arc<Connection>,
        first: OpenChannel,
        queue: &str,
        declared: Instant,
    ) -> Result<(OpenChannel, Taken), Trouble> {
        let mut channel = first;
        let mut ear = None;
        let tag = &self.subscribe.tag;
        loop {
            let ways = (connection, &*self.spare);
            let taken = self.fence.consume(ways, &channel, queue, tag, declared);
            match taken.await {
                Ok(taken) => return Ok((channel, taken)),
                Err(Trouble::Held(_)) => {
                    // The broker does not say who holds it, so the holder does.
                    let pause = tokio::time::sleep(jittered(STANDBY));
                    match &mut ear {
                        None => {
                            self.show(ConsumerState::Standby(None));
                            let (listening, ()) =
                                tokio::join!(self.herald.listen(connection), pause);
                            ear = Some(listening);
                        }
                        Some(ear) => {
                            self.show(ear.state());
                            pause.await;
                        }
                    }
                    if !channel.status().connected() {
                        channel = open(connection, self.prefetch).await?;
                    }
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Forwards deliveries and carries out orders until the consumer or its channel ends.
    async fn serve(
        &self,
        connection: &Arc<Connection>,
        channel: &Channel,
        taken: &mut Option<Taken>,
    ) -> Result<(), Trouble> {
        loop {
            let next = async {
                match (&mut *taken, self.sender.reserve().await) {
                    (Some(taken), Ok(permit)) => (taken.consumer.next().await, permit),
                    // Cancelled, or the reader left and only acknowledges what it has.
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.desk.closed() => {
                    // What was acknowledged before closing is.
                    self.carry_out(channel).await?;
                    return Ok(());
                }
                () = self.desk.ordered() => {
                    if self.carry_out(channel).await? {
                        return Ok(());
                    }
                    match (self.desk.is_cancelled(), &*taken) {
                        (true, Some(_)) => self.stop(channel, taken).await?,
                        (false, None) => {
                            let tag = &self.subscribe.tag;
                            let queue = self.subscribe.queue.name();
                            let ways = (connection, &*self.spare);
                            *taken = Some(self.fence.resume(ways, channel, queue, tag).await?);
                            self.show(ConsumerState::Consuming);
                        }
                        _ => {}
                    }
                }
                (delivery, permit) = next => match delivery {
                    Some(Ok(delivery)) => { permit.send(self.raw(delivery)); }
                    Some(Err(error)) => return Err(Trouble::of(&error)),
                    None => return Err(Trouble::Lost("the broker cancelled the consumer".into())),
                },
            }
        }
    }

    /// Stops the broker from sending. What it sent before it heard is handed on as usual.
    async fn stop(&self, channel: &Channel, taken: &mut Option<Taken>) -> Result<(), Trouble> {
        let Some(mut stopping) = taken.take() else {
            return Ok(());
        };
        channel
            .basic_cancel(stopping.consumer.tag(), BasicCancelOptions::default())
            .await
            .map_err(|e| Trouble::of(&e))?;
        if let QueueSpec::Reply(_) = self.subscribe.queue {
            self.save(&mut stopping).await;
        } else if !self.hand_on(&mut stopping) {
            return Err(Trouble::Lost(
                "the reader did not take what was delivered".into(),
            ));
        }
        self.show(ConsumerState::Stopped);
        Ok(())
    }

    /// Hands on what the broker delivered; false if the reader does not take it.
    fn hand_on(&self, taken: &mut Taken) -> bool {
        while let Some(Some(Ok(delivery))) = taken.consumer.next().now_or_never() {
            // At most the prefetch, and the channel holds two.
            if self.sender.try_send(self.raw(delivery)).is_err() {
                return false;
            }
        }
        true
    }

    /// Hands on what the broker delivered of a queue that is gone with its channel: nobody else will get it. A reader that has
    /// no room is waited for, and not for ever: until then there is no new queue.
    async fn save(&self, taken: &mut Taken) {
        let deadline = tokio::time::Instant::now() + SAVING;
        let mut lost = Vec::new();
        while let Some(Some(Ok(delivery))) = taken.consumer.next().now_or_never() {
            let raw = self.raw(delivery);
            let id = raw.message_id.clone().unwrap_or_default();
            let handed = tokio::time::timeout_at(deadline, self.sender.send(raw)).await;
            if !matches!(handed, Ok(Ok(()))) {
                lost.push(id);
            }
        }
        if !lost.is_empty() {
            let queue = self.subscribe.queue.name();
            tracing::warn!(
                queue,
                messages = lost.len(),
                message_ids = lost.join(" "),
                "lost with the channel of a queue of our own: they were delivered, and there was no room for them"
            );
        }
    }

    /// Sends what was ordered; true to rebuild.
    async fn carry_out(&self, channel: &Channel) -> Result<bool, Trouble> {
        let orders = self.desk.take();
        let back = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        let returned = orders
            .requeue
            .iter()
            .map(|tag| channel.basic_nack(*tag, back));
        try_join_all(returned).await.map_err(|e| Trouble::of(&e))?;
        let single = BasicAckOptions { multiple: false };
        let acked = orders
            .single
            .iter()
            .map(|tag| channel.basic_ack(*tag, single));
        try_join_all(acked).await.map_err(|e| Trouble::of(&e))?;
        if let Some(tag) = orders.multiple {
            let multiple = BasicAckOptions { multiple: true };
            channel
                .basic_ack(tag, multiple)
                .await
                .map_err(|e| Trouble::of(&e))?;
        }
        Ok(orders.rebuild)
    }

    fn raw(&self, delivery: Delivery) -> RawDelivery {
        let mut raw = raw(delivery, self.generation);
        if self.profile == Profile::Quorum {
            // Declared without a limit, so the count threatens nothing.
            raw.delivery_count = None;
        }
        raw
    }
}

fn shown(trouble: Trouble) -> ConsumerState {
    let refused = |code: codes::Code, text: String| ConsumerState::Refused(code.name.into(), text);
    match trouble {
        Trouble::Lost(text) | Trouble::Missing(text) | Trouble::Held(text) => {
            ConsumerState::Connecting(Some(text))
        }
        Trouble::Down(text) => refused(codes::BROKER_QUEUE_DOWN, text),
        Trouble::Differs(text) => refused(codes::BROKER_QUEUE_TYPE, text),
        Trouble::Denied(text) => refused(codes::BROKER_REFUSED, text),
        Trouble::FenceIgnored => refused(codes::BROKER_FENCE, codes::BROKER_FENCE.meaning.into()),
    }
}

/// A delivery as the engine sees it; the body is moved, not copied.
pub(super) fn raw(delivery: Delivery, generation: u64) -> RawDelivery {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|h| h.inner().get("x-delivery-count"));
    let delivery_count = match count {
        Some(AMQPValue::LongLongInt(n)) => Some(*n),
        Some(AMQPValue::LongInt(n)) => Some(i64::from(*n)),
        Some(AMQPValue::ShortInt(n)) => Some(i64::from(*n)),
        Some(AMQPValue::ShortShortInt(n)) => Some(i64::from(*n)),
        _ => None,
    };
    RawDelivery {
        tag: delivery.delivery_tag,
        generation,
        redelivered: delivery.redelivered,
        routing_key: delivery.routing_key.into(),
        message_id: delivery
            .properties
            .message_id()
            .as_ref()
            .map(ToString::to_string),
        delivery_count,
        body: delivery.data.into(),
    }
}

async fn open(connection: &Connection, prefetch: u16) -> Result<OpenChannel, Trouble> {
    let opening = async {
        let channel = channels::open(connection).await?;
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await?;
        Ok(channel)
    };
    opening.await.map_err(|e: lapin::Error| Trouble::of(&e))
}

/// More or less by a fifth.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.8 + 0.4 * rand::random::<f64>())
}
