//! A broker in front of another, for tests: everything goes to the inner one except what the test double changes.

use crate::broker::{
    Broker, Durability, LinkState, Publication, QueueDepth, QueueSpec, Receipt, Shelf, Subscribe,
    Subscription,
};
use crate::error::WorkError;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A double: names the broker behind it and changes what it wants of the four that doubles change.
#[async_trait]
pub trait Double: Send + Sync + 'static {
    /// The broker that does the work.
    fn inner(&self) -> &Arc<dyn Broker>;
    /// The link that is shown.
    fn shown_link(&self) -> watch::Receiver<LinkState> {
        self.inner().link()
    }
    /// What publishing does.
    async fn take(&self, publication: Publication) -> Receipt {
        self.inner().publish(publication).await
    }
    /// What a consumer gets.
    async fn give(&self, subscribe: Subscribe) -> Subscription {
        self.inner().subscribe(subscribe).await
    }
    /// What declaring does.
    async fn make(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.inner().declare(queue).await
    }
}

#[async_trait]
impl<D: Double> Broker for D {
    fn describe(&self) -> String {
        self.inner().describe()
    }

    fn durability(&self) -> Durability {
        self.inner().durability()
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.shown_link()
    }

    async fn publish(&self, publication: Publication) -> Receipt {
        self.take(publication).await
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Subscription {
        self.give(subscribe).await
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.make(queue).await
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        self.inner().depth(queue).await
    }

    async fn is_there(&self, queue: &str) -> Result<bool, WorkError> {
        self.inner().is_there(queue).await
    }

    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError> {
        self.inner().shelf(queue, limit).await
    }

    async fn close(&self, deadline: Duration) {
        self.inner().close(deadline).await;
    }
}
