//! The state stores: the shared suite on each, in every durability.

use crate::state_suite::Source;
use async_trait::async_trait;
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};

struct Embedded {
    store: Arc<EmbeddedStore>,
    _folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Source for Embedded {
    async fn client(&self) -> Arc<dyn StateStore> {
        Arc::clone(&self.store) as Arc<dyn StateStore>
    }
}

fn in_memory() -> Embedded {
    Embedded {
        store: EmbeddedStore::open(EmbeddedStoreOptions::default()).expect("open"),
        _folder: None,
    }
}

fn on_disk(sync: bool) -> Embedded {
    let folder = tempfile::tempdir().expect("folder");
    let options = EmbeddedStoreOptions {
        folder: Some(folder.path().join("state")),
        sync,
    };
    Embedded {
        store: EmbeddedStore::open(options).expect("open"),
        _folder: Some(folder),
    }
}

crate::state_suite!(memory, in_memory());
crate::state_suite!(process, on_disk(false));
crate::state_suite!(host, on_disk(true));
