//! What the workers of a process share: opened for the first that uses it, one per distinct identity, and closed when
//! nobody uses it any more.

use super::lock;
use crate::error::WorkError;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

/// Something that can be leased.
#[async_trait]
pub(super) trait Leased: Send + Sync {
    /// What it is, in the log.
    const WHAT: &'static str;

    /// Ends it, bounded.
    async fn end(&self);
}

/// The use of something: it stays open while anyone holds one.
pub(super) struct Lease<T: Leased + ?Sized> {
    pub(super) identity: String,
    pub(super) held: Arc<T>,
    _user: Arc<()>,
}

/// Something open and the count of its users, of which the entry itself is one.
struct Open<T: Leased + ?Sized> {
    held: Arc<T>,
    users: Arc<()>,
}

impl<T: Leased + ?Sized> Open<T> {
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }
}

/// Everything of one sort that is open.
pub(super) struct Leases<T: Leased + ?Sized> {
    open: Mutex<BTreeMap<String, Open<T>>>,
    /// Held while one is opened or closed: what is closing is opened again only when it is closed.
    turn: tokio::sync::Mutex<()>,
}

impl<T: Leased + ?Sized> Default for Leases<T> {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl<T: Leased + ?Sized> Leases<T> {
    /// A lease of what has this identity, opened by `open` if need be.
    pub(super) async fn get(
        &self,
        identity: String,
        open: impl Future<Output = Result<Arc<T>, WorkError>>,
    ) -> Result<Lease<T>, WorkError> {
        if let Some(lease) = self.lease(&identity) {
            return Ok(lease);
        }
        let _turn = self.turn.lock().await;
        if let Some(lease) = self.lease(&identity) {
            return Ok(lease);
        }
        let held = open.await?;
        tracing::info!(identity, "{} opened", T::WHAT);
        let users = Arc::new(());
        let open = Open {
            held: Arc::clone(&held),
            users: Arc::clone(&users),
        };
        lock(&self.open).insert(identity.clone(), open);
        Ok(Lease {
            identity,
            held,
            _user: users,
        })
    }

    /// Counted under the lock under which unused ones are taken out, so that no lease is of what is closed.
    fn lease(&self, identity: &str) -> Option<Lease<T>> {
        let open = lock(&self.open);
        let found = open.get(identity)?;
        Some(Lease {
            identity: identity.to_owned(),
            held: Arc::clone(&found.held),
            _user: Arc::clone(&found.users),
        })
    }

    /// Identities of what is open.
    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.open).keys().cloned().collect()
    }

    /// Everything that is open, leased.
    pub(super) fn all(&self) -> Vec<Lease<T>> {
        let names = self.names();
        names.iter().filter_map(|name| self.lease(name)).collect()
    }

    /// Closes what nobody uses.
    pub(super) async fn close_unused(&self) {
        self.close(|open| !open.is_used()).await;
    }

    /// Closes everything, in use or not.
    pub(super) async fn close_all(&self) {
        self.close(|_| true).await;
    }

    async fn close(&self, which: impl Fn(&Open<T>) -> bool) {
        let _turn = self.turn.lock().await;
        let closing: Vec<(String, Open<T>)> = lock(&self.open)
            .extract_if(.., |_, open| which(open))
            .collect();
        futures::future::join_all(closing.iter().map(|(identity, open)| async move {
            open.held.end().await;
            tracing::info!(identity, "{} closed", T::WHAT);
        }))
        .await;
    }
}
