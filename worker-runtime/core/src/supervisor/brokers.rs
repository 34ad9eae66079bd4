//! The brokers of a process: one connection per distinct broker, shared by the workers that use it, closed when none
//! does.

use super::lock;
use crate::broker::Broker;
use crate::error::WorkError;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
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

/// The use of a broker: it stays open while anyone holds one.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) identity: String,
    pub(super) broker: Arc<dyn Broker>,
    _user: Arc<()>,
}

/// A broker and the count of its users, of which the entry itself is one.
struct Open {
    broker: Arc<dyn Broker>,
    users: Arc<()>,
}

impl Open {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }
}

/// The open brokers.
pub(super) struct Brokers {
    source: Box<dyn BrokerSource>,
    open: Mutex<BTreeMap<String, Open>>,
    /// Held while one is opened or closed: what is closing is opened again only when it is closed.
    turn: tokio::sync::Mutex<()>,
}

impl Brokers {
    pub(super) fn new(source: Box<dyn BrokerSource>) -> Self {
        Self {
            source,
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Which broker a resource uses now, as far as that is known.
    pub(super) fn identity(&self, resource: &Resource) -> Option<String> {
        self.source.identity(resource).ok()
    }

    /// The broker of a resource, opened if need be.
    pub(super) async fn get(&self, resource: &Resource) -> Result<Lease, WorkError> {
        let identity = self.source.identity(resource)?;
        if let Some(lease) = self.lease(&identity) {
            return Ok(lease);
        }
        let _turn = self.turn.lock().await;
        if let Some(lease) = self.lease(&identity) {
            return Ok(lease);
        }
        let broker = self.source.open(resource).await?;
        tracing::info!(broker = identity, "broker opened");
        let users = Arc::new(());
        let open = Open {
            broker: Arc::clone(&broker),
            users: Arc::clone(&users),
        };
        lock(&self.open).insert(identity.clone(), open);
        Ok(Lease {
            identity,
            broker,
            _user: users,
        })
    }

    /// Counted under the lock under which unused ones are taken out, so that no lease is of a broker that is closed.
    fn lease(&self, identity: &str) -> Option<Lease> {
        let open = lock(&self.open);
        let found = open.get(identity)?;
        Some(Lease {
            identity: identity.to_owned(),
            broker: Arc::clone(&found.broker),
            _user: Arc::clone(&found.users),
        })
    }

    /// Identities of the open ones.
    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.open).keys().cloned().collect()
    }

    /// Closes those that nobody uses.
    pub(super) async fn close_unused(&self) {
        self.close(|open| !open.is_used()).await;
    }

    /// Closes all of them, in use or not.
    pub(super) async fn close_all(&self) {
        self.close(|_| true).await;
    }

    async fn close(&self, which: impl Fn(&Open) -> bool) {
        let _turn = self.turn.lock().await;
        let closing: Vec<(String, Open)> = lock(&self.open)
            .extract_if(.., |_, open| which(open))
            .collect();
        futures::future::join_all(closing.iter().map(|(name, open)| async move {
            open.broker.close(CLOSE).await;
            tracing::info!(broker = name, "broker closed");
        }))
        .await;
    }
}
