//! Several nodes of RabbitMQ that form one broker on this machine.
//! Each has its own ports and folder; they share the port mapper, by which they find each other.

use super::process::Mapper;
use super::{Error, Options, RabbitMq, Version, software};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const NAMES: [&str; 3] = ["one", "two", "three"];
/// How long they may take to find each other.
const FORMING: Duration = Duration::from_secs(60);

/// Three nodes that form one broker.
pub struct Cluster {
    /// The nodes; each may be killed and restarted by itself.
    pub nodes: Vec<RabbitMq>,
}

impl Cluster {
    /// Starts three nodes at once and waits until each knows the others; none, said loudly and counted, if nothing is
    /// installed.
    ///
    /// # Panics
    /// If it is installed and does not start.
    pub async fn start_or_skip(version: Version) -> Option<Self> {
        match Self::start(version).await {
            Ok(cluster) => Some(cluster),
            Err(Error::NotInstalled(reason)) => {
                crate::skip(&reason);
                None
            }
            Err(error) => panic!(
                "a cluster of RabbitMQ {} does not start: {error}",
                version.as_str()
            ),
        }
    }

    async fn start(version: Version) -> Result<Self, Error> {
        let mapper = Mapper::start(software(version)?).await?;
        let starting = NAMES.map(|name| {
            let mapper = Arc::clone(&mapper);
            tokio::spawn(async move {
                RabbitMq::node(version, &Options::default(), &mapper, name, &NAMES).await
            })
        });
        let mut nodes = Vec::new();
        for node in starting {
            let node = node.await.map_err(|e| Error::Failed(e.to_string()))?;
            nodes.push(node?);
        }
        let cluster = Self { nodes };
        cluster.formed().await?;
        Ok(cluster)
    }

    /// Waits until every running node sees all of them.
    pub async fn formed(&self) -> Result<(), Error> {
        let deadline = Instant::now() + FORMING;
        for node in &self.nodes {
            loop {
                let seen = node.eval("length(rabbit_nodes:list_running())").await;
                if matches!(&seen, Ok(count) if count.trim() == NAMES.len().to_string()) {
                    break;
                }
                if Instant::now() > deadline {
                    let log = node.log();
                    let text = format!("{} sees {seen:?} nodes:\n{log}", node.node);
                    return Err(Error::Failed(text));
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Ports of plain AMQP, in the order of the nodes.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(RabbitMq::port).collect()
    }
}
