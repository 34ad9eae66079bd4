//! Deletes queues that nobody works with any more, for a person who says so. A connection of its own: no worker is concerned.

use super::config::AmqpConfig;
use super::errors::{Trouble, work_error};
use super::topology::{depth, short};
use super::{channels, dial};
use crate::broker::QueueDepth;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use lapin::Connection;
use lapin::options::QueueDeleteOptions;
use std::time::Duration;

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection to look at queues and to delete them.
pub struct Remover {
    connection: Connection,
}

impl Remover {
    /// Connects.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses the user.
    pub async fn open(config: &AmqpConfig) -> Result<Self, WorkError> {
        let connected = dial::connect(config.resolve()?, "vumi purge".into()).await;
        let connection = connected.map_err(|failure| match failure.refused {
            true => WorkError::new(ErrorClass::Auth, codes::BROKER_REFUSED, failure.text),
            false => WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, failure.text),
        })?;
        Ok(Self { connection })
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

    /// Deletes a queue with all that is in it. Returns how many messages went with it. Whether somebody reads it is for the caller to see
    /// before: quorum queues take no condition.
    ///
    /// # Errors
    /// The broker does not do it.
    pub async fn delete(&self, queue: &str) -> Result<u32, WorkError> {
        let deleted = async {
            let channel = channels::open(&self.connection).await;
            let channel = channel.map_err(|error| Trouble::of(&error))?;
            let name = short(queue).map_err(|error| Trouble::of(&error))?;
            let gone = channel.queue_delete(name, QueueDeleteOptions::default());
            gone.await.map_err(|error| Trouble::of(&error))
        };
        deleted
            .await
            .map_err(|trouble| work_error((trouble, queue.to_owned())))
    }

    /// Says goodbye.
    pub async fn close(self) {
        let _ = tokio::time::timeout(GOODBYE, self.connection.close(200, "done".into())).await;
    }
}
