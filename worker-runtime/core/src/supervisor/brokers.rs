//! The brokers of a process: one connection per distinct broker, shared by the workers that use it, closed when none
//! does.

use crate::broker::Broker;
use crate::error::WorkError;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use vumi_api::Resource;

/// Confirms of a broker that nobody uses any more are awaited so long.
const CLOSE: Duration = Duration::from_secs(5);

/// Knows which broker a resource uses, and opens it.
#[async_trait]
pub trait BrokerSource: Send + Sync + 'static {
    /// Which broker it is: host, port and virtual host, without credentials. Workers with equal texts share one
    /// connection, and a running worker whose text changes is replaced.
    fn identity(&self, resource: &Resource) -> Result<String, WorkError>;

    /// Opens it. A broker that is away is not an error.
    async fn open(&self, resource: &Resource) -> Result<Arc<dyn Broker>, WorkError>;
}

/// The open brokers.
pub(super) struct Brokers {
    source: Box<dyn BrokerSource>,
    open: Mutex<BTreeMap<String, Arc<dyn Broker>>>,
}

impl Brokers {
    pub(super) fn new(source: Box<dyn BrokerSource>) -> Self {
        Self {
            source,
            open: Mutex::default(),
        }
    }

    /// Which broker a resource uses now, as far as that is known.
    pub(super) fn identity(&self, resource: &Resource) -> Option<String> {
        self.source.identity(resource).ok()
    }

    /// The broker of a resource, with its identity.
    pub(super) async fn get(
        &self,
        resource: &Resource,
    ) -> Result<(String, Arc<dyn Broker>), WorkError> {
        let identity = self.source.identity(resource)?;
        let mut open = self.open.lock().await;
        if let Some(broker) = open.get(&identity) {
            return Ok((identity, Arc::clone(broker)));
        }
        let broker = self.source.open(resource).await?;
        tracing::info!(broker = identity, "broker opened");
        open.insert(identity.clone(), Arc::clone(&broker));
        Ok((identity, broker))
    }

    /// Identities of the open ones.
    pub(super) async fn names(&self) -> Vec<String> {
        self.open.lock().await.keys().cloned().collect()
    }

    /// Closes those that are not in use.
    pub(super) async fn keep_only(&self, in_use: &BTreeSet<String>) {
        let unused: Vec<(String, Arc<dyn Broker>)> = {
            let mut open = self.open.lock().await;
            let names: Vec<String> = open.keys().cloned().collect();
            names
                .into_iter()
                .filter(|name| !in_use.contains(name))
                .filter_map(|name| open.remove_entry(&name))
                .collect()
        };
        futures::future::join_all(unused.iter().map(|(name, broker)| async move {
            broker.close(CLOSE).await;
            tracing::info!(broker = name, "broker closed");
        }))
        .await;
    }
}
