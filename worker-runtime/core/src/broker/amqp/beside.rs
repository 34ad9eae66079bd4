//! A tap's queue is bound beside a data queue only while that one exists (S4): else a message of a queue that was deleted
//! would count as delivered, and nobody but the tap would have it.

use super::errors::Trouble;
use super::spare::{KeptChannel, Spare};
use super::topology;
use crate::broker::{EXCHANGE, QueueSpec};
use lapin::{Channel, Connection};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the data queues.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Beside {
    tap: String,
    queues: Vec<String>,
    bound: BTreeSet<String>,
    asking: Option<KeptChannel>,
}

impl Beside {
    /// None for what is no tap. Its queue is declared and not bound.
    pub(super) fn of(queue: &QueueSpec) -> Option<Self> {
        let QueueSpec::Tap { name, queues } = queue else {
            return None;
        };
        Some(Self {
            tap: name.clone(),
            queues: queues.clone(),
            bound: BTreeSet::new(),
            asking: None,
        })
    }

    /// Binds beside the queues that are there, and no others.
    pub(super) async fn look(
        &mut self,
        ways: (&Arc<Connection>, &Spare),
        channel: &Channel,
    ) -> Result<(), Trouble> {
        for queue in self.queues.clone() {
            let there = self.is_there(ways, &queue).await?;
            let changed = match (there, self.bound.contains(&queue)) {
                (true, false) => topology::bind(channel, &self.tap, EXCHANGE, &queue).await,
                (false, true) => topology::unbind(channel, &self.tap, EXCHANGE, &queue).await,
                _ => continue,
            };
            changed.map_err(|e| Trouble::of(&e))?;
            match there {
                true => self.bound.insert(queue),
                false => self.bound.remove(&queue),
            };
        }
        Ok(())
    }

    /// Looks again and again, until something is wrong with the connection.
    pub(super) async fn keep(
        &mut self,
        ways: (&Arc<Connection>, &Spare),
        channel: &Channel,
    ) -> Trouble {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(trouble) = self.look(ways, channel).await {
                return trouble;
            }
        }
    }

    /// Unbinds, before the queue goes.
    pub(super) async fn leave(&mut self, channel: &Channel) {
        for queue in std::mem::take(&mut self.bound) {
            if topology::unbind(channel, &self.tap, EXCHANGE, &queue)
                .await
                .is_err()
            {
                return;
            }
        }
    }

    async fn is_there(
        &mut self,
        (connection, spare): (&Arc<Connection>, &Spare),
        queue: &str,
    ) -> Result<bool, Trouble> {
        // One that was refused keeps its connection until the next has it.
        let before = self.asking.take();
        let channel = match before {
            Some(channel) if channel.status().connected() => channel,
            before => {
                let channel = spare.channel(connection).await?;
                drop(before);
                channel
            }
        };
        let there = match topology::depth(&channel, queue).await {
            Ok(_) => true,
            Err(Trouble::Lost(why)) => return Err(Trouble::Lost(why)),
            // Missing, or on a node that is away.
            Err(_) => false,
        };
        self.asking = Some(channel);
        Ok(there)
    }
}
