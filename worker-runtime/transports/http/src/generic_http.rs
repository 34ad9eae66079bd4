//! `genericHttp`: any provider that speaks HTTP, by the description in its manifest.

use crate::described::Described;
use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::transports::GenericHttp;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Dedupe, Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = GenericHttp;
    const DEDUPE: Dedupe =
        Dedupe::ProviderId("`message.id` of the request, where the description has one");

    fn receipts(config: &GenericHttp) -> bool {
        config.has_receipts()
    }

    async fn build(
        config: GenericHttp,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        Described::worker(&config, cx)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: include_str!("generic_http.fixture.yaml"),
            peer: Some(|port| Box::new(crate::peer::HttpPeer::new(port))),
        }
    }
}
