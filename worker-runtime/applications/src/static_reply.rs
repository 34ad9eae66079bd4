//! `staticReply`: answers every message with one fixed text and ends the session. The end of a session is not
//! answered.

use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::applications::StaticReply;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

pub(crate) struct Def;

struct StaticReplyWorker {
    text: String,
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = StaticReply;

    async fn build(
        config: StaticReply,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(StaticReplyWorker {
            text: config.text,
            cx,
        }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: closed}\nspec:\n  staticReply: {text: \"We are closed.\"}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for StaticReplyWorker {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let Some(message) = crate::question(&input) else {
            return Ok(Vec::new());
        };
        let reply = message.reply(self.cx.worker_name(), 0, Some(&self.text), true);
        Ok(vec![crate::answer(&self.cx, reply)])
    }
}
