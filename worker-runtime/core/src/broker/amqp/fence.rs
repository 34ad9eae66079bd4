//! The fence: who may consume, enforced by the broker and proved (R1, R2); which one a queue has says its profile.

use super::channels::{self, OpenChannel};
use super::errors::Trouble;
use super::profile::Profile;
use super::spare::Spare;
use super::topology::{self, short};
use crate::broker::{QueueDepth, QueueSpec};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long after its declaration a quorum queue has surely started, in case someone else declared it a moment before.
/// Consuming one that has not crashes the broker's side of the connection, and an empty one looks no different.
const STARTING: Duration = Duration::from_millis(300);

/// How a consumer is kept alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    /// Not at all: competing consumers.
    Open,
    /// `exclusive` on a classic queue, proved by a second consumer that is refused.
    ExclusiveConsumer,
    /// A queue that sends to one consumer at a time, proved by its declaration, which is only accepted where it equals
    /// ours. Such a queue takes any consumer and tells none that it waits, so whoever would consume first takes a lock,
    /// which only says who waits: a lock that is lost lets nobody overtake.
    SingleActiveConsumer,
}

/// A consumer behind its fence, which falls when this is dropped.
pub(super) struct Taken {
    pub(super) consumer: Consumer,
    /// Messages that were ready under the lock, before the first was taken.
    pub(super) ready: Option<u32>,
    lock: Option<Lock>,
}

/// The sign that a queue has a consumer: `<queue>.fence`, a queue of this connection alone, on the node that serves the
/// connection and gone with it, and in it a consumer of this channel alone.
struct Lock {
    channel: OpenChannel,
    _consumer: Consumer,
}

impl Fence {
    /// Starts consuming a queue that was `declared` then, behind the fence. [`Trouble::Held`] means that another holder
    /// lives; the broker may then have closed the channel.
    pub(super) async fn consume(
        self,
        (connection, spare): (&Arc<Connection>, &Spare),
        channel: &Channel,
        queue: &str,
        tag: &str,
        declared: Instant,
    ) -> Result<Taken, Trouble> {
        // A refusal costs a channel, and a standby asks many times.
        if self != Fence::Open && topology::depth(channel, queue).await?.consumers > 0 {
            return Err(Trouble::Held("the queue has a consumer".into()));
        }
        if self != Fence::SingleActiveConsumer {
            return self.resume((connection, spare), channel, queue, tag).await;
        }
        let lock = Lock::take(connection, queue, tag).await?;
        let ready = lock.is_alone(queue).await?;
        if ready == 0 {
            tokio::time::sleep_until((declared + STARTING).into()).await;
        }
        let mut taken = behind(lock, channel, queue, tag).await?;
        taken.ready = Some(ready);
        Ok(taken)
    }

    /// The same for a channel that cancelled its consumer and may hold deliveries of it.
    pub(super) async fn resume(
        self,
        (connection, spare): (&Arc<Connection>, &Spare),
        channel: &Channel,
        queue: &str,
        tag: &str,
    ) -> Result<Taken, Trouble> {
        let options = match self {
            Fence::Open => BasicConsumeOptions::default(),
            Fence::ExclusiveConsumer => exclusive(),
            // The broker counts a cancelled consumer as long as it holds something, and here that is our own.
            Fence::SingleActiveConsumer => {
                let lock = Lock::take(connection, queue, tag).await?;
                return behind(lock, channel, queue, tag).await;
            }
        };
        let consumer = start(channel, queue, tag, options).await?;
        if self == Fence::ExclusiveConsumer {
            probe((connection, spare), queue, tag).await?;
        }
        Ok(Taken {
            consumer,
            ready: None,
            lock: None,
        })
    }
}

async fn behind(lock: Lock, channel: &Channel, queue: &str, tag: &str) -> Result<Taken, Trouble> {
    let consumer = start(channel, queue, tag, BasicConsumeOptions::default()).await?;
    Ok(Taken {
        consumer,
        ready: None,
        lock: Some(lock),
    })
}

impl Taken {
    /// Before its channel is closed: makes sure that the queue hears of every acknowledgement. A quorum queue's channel
    /// keeps back what follows on more than a few that are not in the log yet, and forgets it when it closes. One more
    /// consumer, which only waits, is answered when those are in the log, and the question behind it when the channel has
    /// sent the rest. Cancelling would be answered as late, but what is on its way to a cancelled consumer is put last.
    pub(super) async fn settle(&self, channel: &Channel, queue: &str) {
        if self.lock.is_none() {
            return;
        }
        let settled = async {
            let options = BasicConsumeOptions::default();
            let waiting = start(channel, queue, "vumi (closing)", options).await;
            (topology::depth(channel, queue).await, waiting)
        };
        // What is not settled comes again.
        let _ = settled.await;
    }
}

fn exclusive() -> BasicConsumeOptions {
    BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    }
}

impl Lock {
    async fn take(connection: &Connection, queue: &str, tag: &str) -> Result<Self, Trouble> {
        let name = format!("{queue}.fence");
        let opened = channels::open(connection).await;
        let channel = opened.map_err(|e| Trouble::of(&e))?;
        // Exclusive and gone with its only consumer, in every profile.
        let spec = QueueSpec::Reply(name.clone());
        topology::declare_to_read(&channel, Profile::default(), &spec).await?;
        match start(&channel, &name, tag, exclusive()).await {
            Ok(consumer) => {
                channel.unread(None);
                Ok(Self {
                    channel,
                    _consumer: consumer,
                })
            }
            // It went with its holder after we declared it.
            Err(Trouble::Missing(text)) => Err(Trouble::Held(text)),
            Err(other) => Err(other),
        }
    }

    /// Nobody else consumes the queue: no holder before us that is not gone yet, and none that knows no lock (S16). Returns how many messages are ready.
    async fn is_alone(&self, queue: &str) -> Result<u32, Trouble> {
        match topology::depth(&self.channel, queue).await? {
            QueueDepth {
                ready,
                consumers: 0,
            } => Ok(ready),
            _ => Err(Trouble::Held("the queue has a consumer".into())),
        }
    }
}

/// A second consumer must be refused. If it is not, it takes at most one message, which returns when its channel
/// closes.
async fn probe(
    (connection, spare): (&Arc<Connection>, &Spare),
    queue: &str,
    tag: &str,
) -> Result<(), Trouble> {
    let tag = format!("{tag} (probe)");
    let tried = async {
        let channel = spare.channel(connection).await?;
        let narrowed = channel.basic_qos(1, BasicQosOptions::default()).await;
        narrowed.map_err(|e| Trouble::of(&e))?;
        let consumer = start(&channel, queue, &tag, BasicConsumeOptions::default()).await?;
        let closed = channel.close(200, "probe".into()).await;
        drop(consumer);
        closed.map_err(|e| Trouble::of(&e))
    };
    match tried.await {
        Ok(()) => Err(Trouble::FenceIgnored),
        Err(Trouble::Held(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

pub(super) async fn start(
    channel: &Channel,
    queue: &str,
    tag: &str,
    options: BasicConsumeOptions,
) -> Result<Consumer, Trouble> {
    // Shown by the broker's tools only, so a long one may be cut.
    let cut = (0..=tag.len().min(255)).rfind(|n| tag.is_char_boundary(*n));
    let started = async {
        let (queue, tag) = (short(queue)?, short(&tag[..cut.unwrap_or(0)])?);
        channel
            .basic_consume(queue, tag, options, FieldTable::default())
            .await
    };
    started.await.map_err(|e| Trouble::of(&e))
}

#[cfg(test)]
mod tests {
    use super::super::config::AmqpConfig;
    use super::*;
    use lapin::ConnectionProperties;
    use lapin::options::QueueDeclareOptions;
    use lapin::types::AMQPValue;
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::time::{sleep, timeout};
    use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

    /// `future`, which is given up when it has waited `waits` times and would once more.
    async fn cut<T>(future: impl Future<Output = T>, mut waits: usize) -> Option<T> {
        let mut future = Box::pin(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if waits == 0 => Poll::Ready(None),
            Poll::Pending => {
                waits -= 1;
                Poll::Pending
            }
        })
        .await
    }

    /// Whoever is told to stop while it takes a lock, at whatever point, leaves nothing that keeps others out.
    #[tokio::test]
    async fn a_lock_that_was_given_up_half_way_is_free() {
        for version in [Version::V3_10, Version::V4_0] {
            let Some(server) = RabbitMq::start_or_skip(version, Options::default()).await else {
                return;
            };
            let url = server.url("/");
            let connected = async || {
                let connected = Connection::connect(&url, ConnectionProperties::default());
                connected.await.unwrap()
            };
            let (first, second) = (connected().await, connected().await);
            let in_time = async |what: &str, connection| {
                let taking = async {
                    loop {
                        match Lock::take(connection, "data", "test").await {
                            Ok(lock) => return lock,
                            Err(Trouble::Held(_)) => sleep(Duration::from_millis(20)).await,
                            Err(trouble) => panic!("{what}: {trouble:?}"),
                        }
                    }
                };
                let taken = timeout(Duration::from_secs(10), taking).await;
                taken.unwrap_or_else(|_| panic!("{what}: it is still held on {version:?}"))
            };
            let mut waits = 0;
            loop {
                match cut(Lock::take(&first, "data", "first"), waits).await {
                    Some(Ok(_)) => break,
                    // The second one's goes.
                    Some(Err(_)) => drop(in_time("once more", &first).await),
                    None => {
                        let what = format!("given up at wait {waits}");
                        drop(in_time(&what, &second).await);
                        waits += 1;
                    }
                }
            }
            // A channel, the queue, its consumer.
            assert!(waits >= 3, "{waits}");
        }
    }

    async fn declare(channel: &Channel, queue: &str, kind: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        channel
            .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
            .await
            .unwrap();
    }

    /// A quorum queue takes a second consumer beside an exclusive one (R1). Our own declaration would refuse such a
    /// queue before, so here it is made by hand.
    #[tokio::test]
    async fn a_fence_that_the_broker_ignores_is_refused() {
        for version in [Version::V3_10, Version::V4_0] {
            let Some(server) = RabbitMq::start_or_skip(version, Options::default()).await else {
                return;
            };
            let url = server.url("/");
            let connected = Connection::connect(&url, ConnectionProperties::default());
            let connection = Arc::new(connected.await.unwrap());
            let spare = Spare::new(Arc::new(AmqpConfig::from_url(&url).unwrap()));
            for (kind, held) in [("classic", true), ("quorum", false)] {
                let channel = connection.create_channel().await.unwrap();
                declare(&channel, kind, kind).await;
                let fence = Fence::ExclusiveConsumer;
                let taken = fence
                    .consume(
                        (&connection, &spare),
                        &channel,
                        kind,
                        "test",
                        Instant::now(),
                    )
                    .await;
                match taken {
                    Ok(_) => assert!(held, "{kind} on {version:?}"),
                    Err(trouble) => {
                        assert!(!held, "{kind} on {version:?}: {trouble:?}");
                        assert_eq!(trouble, Trouble::FenceIgnored);
                    }
                }
            }
        }
    }
}
