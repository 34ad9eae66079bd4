//! The broker and the state store of a campaign that is tested.

use super::clock::Beside;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use vumi_api::Resource;
use vumi_core::broker::Broker;
use vumi_core::broker::embedded::EmbeddedBroker;
use vumi_core::error::WorkError;
use vumi_core::state::StateStore;
use vumi_core::state::around::Around;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::supervisor::services::{BrokerSource, StateSource};

/// The broker of every worker of a test.
pub(super) struct BrokerOfTest(pub(super) Arc<EmbeddedBroker>);

#[async_trait]
impl BrokerSource for BrokerOfTest {
    fn identity(&self, _: &Resource) -> Result<String, WorkError> {
        Ok("embedded".into())
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn Broker>, WorkError> {
        Ok(self.0.connect())
    }
}

/// The state store of every worker of a test: in a folder, so that it is as durable as any worker asks for.
pub(super) struct StoreOfTest {
    pub(super) beside: Beside,
    pub(super) folder: PathBuf,
}

#[async_trait]
impl StateSource for StoreOfTest {
    fn identity(&self, _: &Resource) -> Result<Option<String>, WorkError> {
        Ok(Some("embedded".into()))
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        let _working = self.beside.begin();
        let store = EmbeddedStore::open(EmbeddedStoreOptions {
            folder: Some(self.folder.join("store")),
            sync: false,
        })?;
        Ok(Arc::new(CountedStore {
            store,
            beside: self.beside.clone(),
        }))
    }
}

/// A store whose operations are known to the clock.
struct CountedStore {
    store: Arc<dyn StateStore>,
    beside: Beside,
}

#[async_trait]
impl Around for CountedStore {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn around<T: Send>(
        &self,
        _: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        let _working = self.beside.begin();
        work.await
    }
}
