//! `staticReply`: answers every message with one text and ends the session. The end of a session is not answered.

use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::applications::StaticReply;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::{Timestamp, UserMessage};
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

/// Vumi's text.
const TEXT: &str = "Hello {user} at {now}.";

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
            text: config.text.unwrap_or_else(|| TEXT.to_owned()),
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
        let text = filled(&self.text, message);
        let reply = message.reply(self.cx.worker_name(), 0, Some(&text), true);
        Ok(vec![crate::answer(&self.cx, reply)])
    }
}

/// The text for whoever wrote this. The day is that of the message: it says the same however often it is handled.
fn filled(text: &str, message: &UserMessage) -> String {
    let now = message.timestamp().unwrap_or_else(Timestamp::now);
    let now = now.to_string();
    let day = now.split(' ').next().unwrap_or_default();
    // The address last: what it holds is no place to fill.
    text.replace("{now}", day)
        .replace("{user}", message.from_addr().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn the_text_knows_who_asked_and_when() {
        let table = [
            (json!({}), "Hello +27821 at 2026-01-31. (end)"),
            (
                json!({"text": "{user}, {user}: {now}, {other} {}"}),
                "+27821, +27821: 2026-01-31, {other} {} (end)",
            ),
        ];
        for (settings, expected) in table {
            let bench = Bench::open::<super::Def>(json!({ "staticReply": settings })).await;
            let message = bench.message("+27821", Some("hi"), None);
            let mut fields: Value = serde_json::from_slice(&message.encode()).unwrap();
            fields["timestamp"] = "2026-01-31 23:59:59.999999".into();
            let message = vumi_core::message::UserMessage::decode(fields.to_string().as_bytes());
            assert_eq!(bench.hears(&message.unwrap()).await, [expected]);
        }
    }
}
