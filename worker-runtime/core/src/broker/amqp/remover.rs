//! Deletes queues that nobody works with any more, for a person who says so. A connection of its own: no worker is concerned.

use super::config::AmqpConfig;
use super::errors::{Trouble, work_error};
use super::topology::{depth, short};
use super::{channels, dial};
use crate::broker::QueueDepth;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ErrorKind};
use std::time::Duration;

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Reply code of a condition that does not hold: somebody reads the queue, or messages are in it.
const PRECONDITION_FAILED: u16 = 406;
/// Reply code of what a queue of that type does not know; it closes the connection.
const NOT_IMPLEMENTED: u16 = 540;

/// A connection to look at queues and to delete them.
pub struct Remover {
    config: AmqpConfig,
    connection: Connection,
}

/// The name that the broker has given itself or its cluster; none if it does not say. Two brokers may have the same one; one broker
/// has not two.
pub async fn cluster_name(config: &AmqpConfig) -> Option<String> {
    dial::server(config.resolve().ok()?).await?.cluster
}

async fn connect(config: &AmqpConfig) -> Result<Connection, WorkError> {
    let connected = dial::connect(config.resolve()?, "vumi purge".into()).await;
    connected.map_err(|failure| match failure.refused {
        true => WorkError::new(ErrorClass::Auth, codes::BROKER_REFUSED, failure.text),
        false => WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, failure.text),
    })
}

impl Remover {
    /// Connects.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses the user.
    pub async fn open(config: &AmqpConfig) -> Result<Self, WorkError> {
        Ok(Self {
            connection: connect(config).await?,
            config: config.clone(),
        })
    }

    /// Messages and consumers of a queue; none if it is not there.
    ///
    /// # Errors
    /// The broker does not say.
    pub async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        // What is not there closes the channel.
        let asked = async {
            let channel = channels::open(&self.connection).await;
            let channel = channel.map_err(|error| Trouble::of(&error))?;
            depth(&channel, queue).await
        };
        match asked.await {
            Ok(depth) => Ok(Some(depth)),
            Err(Trouble::Missing(_)) => Ok(None),
            Err(trouble) => Err(work_error((trouble, queue.to_owned()))),
        }
    }

    /// Deletes a queue that nobody reads, and that is empty unless it goes `with_messages`. Returns how many messages went with it;
    /// none if it is kept, since that does not hold (any more).
    ///
    /// # Errors
    /// The broker does not do it.
    pub async fn delete(
        &mut self,
        queue: &str,
        with_messages: bool,
    ) -> Result<Option<u32>, WorkError> {
        let guarded = QueueDeleteOptions {
            if_unused: true,
            if_empty: !with_messages,
            ..QueueDeleteOptions::default()
        };
        let failed = |error: &lapin::Error| work_error((Trouble::of(error), queue.to_owned()));
        let error = match self.ask(queue, guarded).await {
            Ok(messages) => return Ok(Some(messages)),
            Err(error) => error,
        };
        let ErrorKind::ProtocolError(protocol) = error.kind() else {
            return Err(failed(&error));
        };
        match protocol.get_id() {
            PRECONDITION_FAILED => return Ok(None),
            NOT_IMPLEMENTED => {}
            _ => return Err(failed(&error)),
        }
        // A quorum queue takes no condition: it is asked right before.
        self.connection = connect(&self.config).await?;
        match self.depth(queue).await? {
            None => return Ok(Some(0)),
            Some(depth) if depth.consumers > 0 || depth.ready > 0 && !with_messages => {
                return Ok(None);
            }
            Some(_) => {}
        }
        let deleted = self.ask(queue, QueueDeleteOptions::default()).await;
        deleted.map(Some).map_err(|error| failed(&error))
    }

    async fn ask(&self, queue: &str, options: QueueDeleteOptions) -> lapin::Result<u32> {
        let channel = channels::open(&self.connection).await?;
        channel.queue_delete(short(queue)?, options).await
    }

    /// Says goodbye.
    pub async fn close(self) {
        let _ = tokio::time::timeout(GOODBYE, self.connection.close(200, "done".into())).await;
    }
}
