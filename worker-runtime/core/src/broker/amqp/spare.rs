//! A connection for what the broker may refuse by closing the channel. Each such channel costs its connection a number for
//! good (see `channels`), and a connection that has none left is replaced: that of the consumers must not be, since
//! everything unacknowledged would come again. This one is there while somebody has a channel of it.

use super::channels::{self, OpenChannel};
use super::config::AmqpConfig;
use super::dial;
use super::errors::Trouble;
use lapin::Connection;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use tokio::sync::Mutex;

pub(super) struct Spare {
    config: Arc<AmqpConfig>,
    connection: Mutex<Weak<Connection>>,
}

/// A channel, and the connection that is kept for it.
pub(super) struct KeptChannel {
    channel: OpenChannel,
    connection: Arc<Connection>,
}

impl KeptChannel {
    pub(super) async fn open(connection: Arc<Connection>) -> Result<Self, Trouble> {
        let opened = channels::open(&connection).await;
        Ok(Self {
            channel: opened.map_err(|e| Trouble::of(&e))?,
            connection,
        })
    }

    /// Whether the broker closed the channel, and not the connection.
    pub(super) fn is_refused(&self) -> bool {
        !self.channel.status().connected() && self.connection.status().connected()
    }
}

impl Deref for KeptChannel {
    type Target = OpenChannel;

    fn deref(&self) -> &OpenChannel {
        &self.channel
    }
}

impl Spare {
    pub(super) fn new(config: Arc<AmqpConfig>) -> Self {
        Self {
            config,
            connection: Mutex::default(),
        }
    }

    /// A new channel. Without a further connection, which a broker may refuse, one of `other`.
    pub(super) async fn channel(&self, other: &Arc<Connection>) -> Result<KeptChannel, Trouble> {
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(why) => {
                tracing::debug!(why, "no spare connection to the broker");
                Arc::clone(other)
            }
        };
        KeptChannel::open(connection).await
    }

    async fn connection(&self) -> Result<Arc<Connection>, String> {
        let mut slot = self.connection.lock().await;
        let there = slot.upgrade().filter(|c| c.status().connected());
        if let Some(connection) = there {
            return Ok(connection);
        }
        let endpoint = self.config.resolve().map_err(|error| error.text)?;
        let name = format!("{} (ask)", self.config.name());
        let dialled = dial::connect(endpoint, name).await;
        let connection = Arc::new(dialled.map_err(|failure| failure.text)?);
        *slot = Arc::downgrade(&connection);
        Ok(connection)
    }
}
