//! `wordCount`: answers every message with the number of its words and characters, and keeps the session open. The end of
//! a session is not answered.

use async_trait::async_trait;
use std::sync::Arc;
use vumi_api::applications::WordCount;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};

/// What a user is told who wrote nothing.
const HELP: &str = "Enter text to return word and character counts for:";

pub(crate) struct Def;

struct WordCountWorker {
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = WordCount;

    async fn build(_: WordCount, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(WordCountWorker { cx }))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: count}\nspec:\n  wordCount: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

#[async_trait]
impl Worker for WordCountWorker {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        Ok(crate::respond(&self.cx, &input, |text| match text {
            Some(text) => count(text),
            None => HELP.to_owned(),
        }))
    }
}

fn count(text: &str) -> String {
    let words = many(text.split_whitespace().count(), "word");
    let chars = many(text.chars().count(), "char");
    format!("{words}, {chars}")
}

fn many(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use serde_json::json;

    #[tokio::test]
    async fn words_and_characters_are_counted() {
        let bench = Bench::open::<super::Def>(json!({"wordCount": {}})).await;
        let table = [
            ("x", "1 word, 1 char"),
            ("foo bar", "2 words, 7 chars"),
            ("", "0 words, 0 chars"),
            (" \t\n", "0 words, 3 chars"),
            ("grüße\u{a0}☎", "2 words, 7 chars"),
        ];
        for (text, counted) in table {
            assert_eq!(bench.says("27821", text).await, [counted]);
        }
        let help = "Enter text to return word and character counts for:";
        assert_eq!(bench.opens("27821").await, [help]);
        assert!(bench.closes("27821").await.is_empty());
    }
}
