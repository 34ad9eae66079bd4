//! `reverse`: answers every message with its own text, turned round, and keeps the session open. The end of a session is
//! not answered.

use async_trait::async_trait;
use std::sync::Arc;
use unicode_segmentation::UnicodeSegmentation;
use vumi_api::applications::Reverse;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

/// What a user is told who wrote nothing.
const HELP: &str = "Enter text to reverse:";

pub(crate) struct Def;

struct ReverseWorker {
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = Reverse;

    async fn build(_: Reverse, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(ReverseWorker { cx }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: reverse}\nspec:\n  reverse: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for ReverseWorker {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        Ok(crate::respond(&self.cx, &input, |text| match text {
            Some(text) => text.graphemes(true).rev().collect(),
            None => HELP.to_owned(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use serde_json::json;

    #[tokio::test]
    async fn text_is_turned_round_as_people_see_it() {
        let bench = Bench::open::<super::Def>(json!({"reverse": {}})).await;
        let table = [
            ("abc", "cba"),
            ("", ""),
            ("a b\nc", "c\nb a"),
            ("Zoe\u{308}!", "!e\u{308}oZ"),
            ("ж😀👨‍👩‍👧x", "x👨‍👩‍👧😀ж"),
        ];
        for (text, turned) in table {
            assert_eq!(bench.says("27821", text).await, [turned]);
        }
        assert_eq!(bench.opens("27821").await, ["Enter text to reverse:"]);
        assert!(bench.closes("27821").await.is_empty());
    }
}
