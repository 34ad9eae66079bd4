//! The state stores: the shared suite on each, in every durability.

use crate::redis;
use crate::state_suite::Source;
use async_trait::async_trait;
use std::sync::Arc;
use vumi_core::state::StateStore;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_testkit::redis::{Append, Options, Redis};

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

/// A Redis of the test's own; each client has its connection.
struct OnRedis(Redis);

#[async_trait]
impl Source for OnRedis {
    async fn client(&self) -> Arc<dyn StateStore> {
        let store = redis::store(&self.0);
        redis::up(&store).await;
        store
    }
}

/// Where nothing is installed the case ends here, and is counted.
macro_rules! on_redis {
    ($append:expr) => {{
        let options = Options {
            append: $append,
            ..Options::default()
        };
        match Redis::start_or_skip(options).await {
            Some(redis) => OnRedis(redis),
            None => return,
        }
    }};
}

crate::state_suite!(memory, in_memory());
crate::state_suite!(process, on_disk(false));
crate::state_suite!(host, on_disk(true));
crate::state_suite!(redis_everysec, on_redis!(Append::EverySec));
crate::state_suite!(redis_always, on_redis!(Append::Always));
