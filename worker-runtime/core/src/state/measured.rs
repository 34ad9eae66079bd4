//! A state store whose operations are counted and timed, whatever it is.

use super::around::Around;
use super::{StateStore, StoreHealth};
use crate::error::WorkError;
use crate::telemetry::{StoreMetrics, Telemetry};
use async_trait::async_trait;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

/// A store and its metrics.
pub struct Measured {
    store: Arc<dyn StateStore>,
    metrics: StoreMetrics,
}

impl Measured {
    /// Measures `store` from now on. Must be called inside a Tokio runtime.
    pub fn new(store: Arc<dyn StateStore>, telemetry: &Telemetry) -> Arc<Self> {
        let metrics = telemetry.store(&store.describe());
        let (mut health, up) = (store.health(), metrics.up.clone());
        // Ends with the store.
        tokio::spawn(async move {
            loop {
                up.set(i64::from(*health.borrow_and_update() == StoreHealth::Up));
                if health.changed().await.is_err() {
                    return;
                }
            }
        });
        Arc::new(Self { store, metrics })
    }
}

#[async_trait]
impl Around for Measured {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        let began = Instant::now();
        let result = work.await;
        self.metrics
            .operation(operation, result.is_ok(), began.elapsed());
        result
    }
}
