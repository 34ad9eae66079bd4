//! Opening channels. The one place for it, since lapin keeps the error that ended a channel under the channel's number
//! for as long as the connection lives, and hands it to whoever gets that number next: thousands of channels later an
//! error about one queue would be told of another. Such a number is given up; when all are, the connection is.

use lapin::options::QueueDeleteOptions;
use lapin::types::ShortString;
use lapin::{Channel, Connection, Error, ErrorKind, Result};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Longest wait for the broker's answer to a channel's end.
const CLOSING: Duration = Duration::from_secs(5);

/// A channel that ends when nobody has it any more. lapin's own does not where a consumer was asked for and nobody waited
/// for the answer: the broker would go on delivering to a consumer that nobody reads. A queue of this connection alone, which
/// goes with its last consumer, goes with the channel where it never got one: it would stay as long as the connection, filled
/// by whoever publishes to it, and a lock that nobody has and nobody else can take.
#[derive(Debug)]
pub(super) struct OpenChannel {
    channel: Channel,
    unread: Mutex<Option<ShortString>>,
}

impl OpenChannel {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            unread: Mutex::default(),
        }
    }

    /// Just before a queue of this connection alone is declared here, to be read here: its name, or none once it is read.
    pub(super) fn unread(&self, queue: Option<ShortString>) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = queue;
    }
}

impl Deref for OpenChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        // Where nothing runs any more, the connection ends as well.
        if let Ok(runtime) = Handle::try_current() {
            let channel = self.channel.clone();
            let unread = self.unread.get_mut();
            let unread = unread.unwrap_or_else(PoisonError::into_inner).take();
            runtime.spawn(async move {
                if let Some(queue) = unread {
                    // Waited for as long as the connection lives: so long nobody else can remove it. It is no error where the
                    // queue is not there.
                    let deleting = channel.queue_delete(queue, QueueDeleteOptions::default());
                    let _ = deleting.await;
                }
                let _ = timeout(CLOSING, channel.close(200, "nobody reads".into())).await;
            });
        }
    }
}

/// A new channel.
pub(super) async fn open(connection: &Connection) -> Result<OpenChannel> {
    loop {
        match connection.create_channel().await {
            // Its number stays taken, so this ends.
            Err(error) if connection.status().connected() && is_stale(&error) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ChannelsLimitReached) => {
                tracing::info!("the connection to the broker has no channel left: it is replaced");
                let closing = connection.close(200, "no channel left".into());
                // Whoever keeps the connection sees its end, and makes a new one.
                let _ = closing.await;
                return Err(error);
            }
            opened => return opened.map(OpenChannel::new),
        }
    }
}

/// Opening a channel is answered with success or with the end of the connection: any other error is an old channel's.
fn is_stale(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ProtocolError(_) | ErrorKind::InvalidChannelState(..)
    )
}

#[cfg(test)]
mod tests {
    use super::super::errors::Trouble;
    use super::super::profile::Profile;
    use super::super::{fence, topology};
    use super::*;
    use crate::broker::{EXCHANGE, QueueSpec};
    use lapin::ConnectionProperties;
    use lapin::options::QueueDeclareOptions;
    use lapin::types::FieldTable;
    use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

    const CHANNELS: usize = 12;
    const ENDED: usize = 8;

    /// Most numbers ended with an error; those that are left work, and the last word is the end of the connection.
    #[tokio::test]
    async fn an_error_of_an_old_channel_is_not_told_of_a_new_one() {
        let Some(server) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
            return;
        };
        let url = format!("{}?channel_max={CHANNELS}", server.url("/"));
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let there = open(&connection).await.unwrap();
        let declared = there.queue_declare(
            "there".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        );
        declared.await.unwrap();
        for n in 0..ENDED {
            let channel = open(&connection).await.unwrap();
            let name = format!("missing-{n}");
            match topology::depth(&channel, &name).await {
                Err(Trouble::Missing(text)) => assert!(text.contains(&name), "{text}"),
                other => panic!("{name} is there: {other:?}"),
            }
        }
        // The numbers that are left come first, and then those that ended with an error.
        let mut opened = vec![there];
        while opened.len() < CHANNELS - ENDED {
            let channel = open(&connection).await.unwrap();
            assert!(topology::depth(&channel, "there").await.is_ok());
            opened.push(channel);
        }
        let error = open(&connection).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ChannelsLimitReached),
            "{error}"
        );
        assert!(!connection.status().connected());
    }

    /// Queues of one connection go with the channel that should have read them, and else with their reader.
    #[tokio::test]
    async fn a_queue_that_nobody_came_to_read_goes_with_its_channel() {
        let Some(server) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
            return;
        };
        let url = server.url("/");
        let connected = Connection::connect(&url, ConnectionProperties::default());
        let connection = connected.await.unwrap();
        let copy = |name: &str| QueueSpec::Copy {
            name: name.into(),
            exchange: EXCHANGE.into(),
            keys: vec!["spoken".into()],
        };
        for queue in [QueueSpec::Reply("reply".into()), copy("copy")] {
            let gone = async || {
                let there = open(&connection).await.unwrap();
                let depth = topology::depth(&there, queue.name()).await;
                matches!(depth, Err(Trouble::Missing(_)))
            };
            let declared = async || {
                let channel = open(&connection).await.unwrap();
                let declaring = topology::declare_to_read(&channel, Profile::default(), &queue);
                declaring.await.unwrap();
                channel
            };
            let channel = declared().await;
            assert!(!gone().await);
            drop(channel);
            let waited = timeout(CLOSING, async {
                while !gone().await {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            assert!(waited.await.is_ok(), "{queue:?} stays");

            let channel = declared().await;
            let started = fence::start(&channel, queue.name(), "reader", Default::default());
            let _reader = started.await.unwrap();
            channel.unread(None);
            assert!(!gone().await);
        }
    }
}
