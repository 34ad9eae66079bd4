//! `calculator`: a menu that adds, subtracts or multiplies two whole numbers and ends the session with the result.

use crate::conversation::{Conversation, Line, Page, Talk, kept};
use async_trait::async_trait;
use num_bigint::BigInt;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::state::Person;
use vumi_core::state::sessions::Session;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

const MENU: &str = "What would you like to do?\n1. Add\n2. Subtract\n3. Multiply";
const FIRST: &str = "What is the first number?";
const SECOND: &str = "What is the second number?";
const INVALID: &str = "Sorry invalid input!";

/// Digits of the longest number: more would take noticeable time.
const MAX_DIGITS: usize = 1000;

/// Fields of a session: the choice from the menu, the first number, and whether there was a result.
const ACTION: &str = "action";
const NUMBER: &str = "first";
const DONE: &str = "done";

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = vumi_api::applications::Calculator;

    async fn build(_: Self::Config, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        let calculator = Calculator {
            scope: crate::scope("calculator", &cx),
            keep: kept(&cx),
        };
        Ok(Talk::new(calculator, cx)?)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: calculator}\nspec:\n  calculator: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

struct Calculator {
    scope: String,
    /// How long it is remembered what a user entered.
    keep: Duration,
}

#[async_trait]
impl Conversation for Calculator {
    async fn turn(
        &self,
        message: &UserMessage,
        person: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError> {
        let held = page.read(&self.scope, person.address()).await?;
        let (session, line) = match message.session_event() {
            Some(SessionEvent::New) => (None, Some(Line::reply(MENU))),
            Some(SessionEvent::Close) => (None, None),
            Some(SessionEvent::Resume) | None => match integer(message.content()) {
                None => (None, Some(Line::reply(INVALID).last())),
                Some(number) => enter(held.unwrap_or_default(), number),
            },
        };
        page.write(&self.scope, person.address(), session, Some(self.keep))
            .await?;
        Ok(line.into_iter().collect())
    }
}

/// What a number does.
fn enter(mut session: Session, number: BigInt) -> (Option<Session>, Option<Line>) {
    if session.contains_key(DONE) {
        return (Some(session), None);
    }
    let Some(action) = session.get(ACTION).cloned() else {
        let choice = number.to_string();
        if !["1", "2", "3"].contains(&choice.as_str()) {
            return (None, Some(Line::reply(MENU)));
        }
        session.insert(ACTION.into(), choice);
        return (Some(session), Some(Line::reply(FIRST)));
    };
    let Some(first) = integer(session.get(NUMBER).map(String::as_str)) else {
        session.insert(NUMBER.into(), number.to_string());
        return (Some(session), Some(Line::reply(SECOND)));
    };
    let result = match action.as_str() {
        "1" => first + number,
        "2" => first - number,
        _ => first * number,
    };
    session.insert(DONE.into(), "1".into());
    let line = Line::reply(format!("The result is: {result}.")).last();
    (Some(session), Some(line))
}

/// A whole number as people write it.
fn integer(text: Option<&str>) -> Option<BigInt> {
    let text = text?.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (plain && digits.len() <= MAX_DIGITS).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{FIRST, INVALID, MENU, SECOND};
    use crate::testing::Bench;
    use serde_json::json;

    async fn bench() -> Bench {
        Bench::open::<super::Def>(json!({"calculator": {}})).await
    }

    #[tokio::test]
    async fn the_menu_leads_to_the_result() {
        let bench = bench().await;
        let huge = "9".repeat(1000);
        let table = [
            ("1", "2", "3", "5"),
            ("2", " 2 ", "+3", "-1"),
            ("3", "-7", "6", "-42"),
            ("3", "0", "5", "0"),
            ("1", &huge, "1", &format!("1{}", "0".repeat(1000))),
        ];
        for (action, first, second, result) in table {
            assert_eq!(bench.opens("27821").await, [MENU]);
            assert_eq!(bench.says("27821", action).await, [FIRST]);
            assert_eq!(bench.says("27821", first).await, [SECOND]);
            let end = format!("The result is: {result}. (end)");
            assert_eq!(bench.says("27821", second).await, [end]);
            assert!(bench.says("27821", "1").await.is_empty(), "after a result");
        }
    }

    #[tokio::test]
    async fn users_do_not_meet_and_a_close_forgets() {
        let bench = bench().await;
        bench.opens("a").await;
        bench.opens("b").await;
        assert_eq!(bench.says("a", "1").await, [FIRST]);
        assert_eq!(bench.says("b", "2").await, [FIRST]);
        assert_eq!(bench.says("a", "10").await, [SECOND]);
        assert_eq!(bench.says("b", "10").await, [SECOND]);
        assert!(bench.closes("a").await.is_empty());
        assert_eq!(bench.says("a", "4").await, [MENU], "nothing is remembered");
        assert_eq!(bench.says("b", "4").await, ["The result is: 6. (end)"]);
        assert_eq!(bench.opens("b").await, [MENU]);
    }

    #[tokio::test]
    async fn what_is_no_choice_brings_the_menu_again() {
        let bench = bench().await;
        bench.opens("a").await;
        for choice in ["0", "-1", "-2", "-3", "4", "99999999999999999999"] {
            assert_eq!(bench.says("a", choice).await, [MENU], "{choice}");
        }
    }

    #[tokio::test]
    async fn what_is_no_number_ends_it() {
        let bench = bench().await;
        let long = "1".repeat(1001);
        let bad = [
            "", " ", "x", "1.5", "1,5", "1e3", "0x1", "1 2", "((1))", "1/0", "--1", "+", "½", "١",
            "1_0", &long,
        ];
        for text in bad {
            bench.opens("a").await;
            assert_eq!(bench.says("a", "1").await, [FIRST]);
            let sorry = format!("{INVALID} (end)");
            assert_eq!(bench.says("a", text).await, [sorry], "{text}");
            assert_eq!(bench.says("a", "2").await, [FIRST], "it began anew");
        }
        assert_eq!(bench.nothing("a").await, [format!("{INVALID} (end)")]);
        // Also after a result, so that networks without sessions can go on.
        for text in ["1", "1", "1"] {
            bench.says("a", text).await;
        }
        assert!(bench.says("a", "1").await.is_empty());
        assert_eq!(bench.says("a", "again").await.len(), 1);
        assert_eq!(bench.says("a", "1").await, [FIRST]);
    }
}
