//! `echo`: answers every message with its own content, and keeps the session open. The end of a session is not answered.

use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::applications::Echo;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

/// What a user is told who wrote nothing.
const HELP: &str = "Enter text to echo:";

pub(crate) struct Def;

struct EchoWorker {
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = Echo;

    async fn build(_: Echo, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(EchoWorker { cx }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec:\n  echo: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for EchoWorker {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        Ok(crate::respond(&self.cx, &input, |text| {
            text.unwrap_or(HELP).to_owned()
        }))
    }
}
