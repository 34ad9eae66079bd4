//! The embedded broker: the shared suite in every durability.

use crate::broker_suite::Rig;
use async_trait::async_trait;
use std::sync::Arc;
use vumi_core::broker::Broker;
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};

struct Embedded {
    broker: Arc<EmbeddedBroker>,
    _folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Rig for Embedded {
    async fn connect(&self) -> Arc<dyn Broker> {
        self.broker.connect()
    }
}

fn in_memory() -> Embedded {
    let broker = EmbeddedBroker::start(EmbeddedOptions::default()).expect("start");
    Embedded {
        broker,
        _folder: None,
    }
}

crate::broker_suite!(memory, in_memory());

fn on_disk(sync: bool) -> Embedded {
    let folder = tempfile::tempdir().expect("folder");
    let options = EmbeddedOptions {
        state: Some(folder.path().join("state")),
        sync,
        ..EmbeddedOptions::default()
    };
    Embedded {
        broker: EmbeddedBroker::start(options).expect("start"),
        _folder: Some(folder),
    }
}

crate::broker_suite!(process, on_disk(false));
crate::broker_suite!(host, on_disk(true));
