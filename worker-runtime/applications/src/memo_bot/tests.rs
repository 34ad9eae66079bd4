//! Rules and texts of the memo bot.

use super::{Def, order};
use crate::testing::Bench;
use serde_json::json;
use vumi_core::message::UserMessage;

async fn bench() -> Bench {
    Bench::open::<Def>(json!({"memoBot": {}})).await
}

fn in_channel(
    bench: &Bench,
    channel: &str,
    nick: &str,
    text: &str,
    addressed: bool,
) -> UserMessage {
    let mut message = bench.message(nick, Some(text), None);
    let irc = json!({"irc_channel": channel, "addressed_to_transport": addressed});
    message.helper_metadata_mut().insert("irc".into(), irc);
    message
}

#[tokio::test]
async fn memos_are_passed_on_once_in_order_and_without_regard_to_case() {
    let bench = bench().await;
    let sure = ["Ann: Sure thing, boss."];
    assert_eq!(bench.says("Ann", "bot tell zoe hey  you").await, sure);
    assert_eq!(bench.says("Ann", "bot: tell ZOE grüße ☎").await, sure);
    assert_eq!(
        bench.says("bob", "bot tell Zoe x").await,
        ["bob: Sure thing, boss."]
    );
    assert!(bench.says("ann", "hello").await.is_empty());
    let memos = [
        "Zoe, Ann asked me tell you: hey  you",
        "Zoe, Ann asked me tell you: grüße ☎",
        "Zoe, bob asked me tell you: x",
    ];
    assert_eq!(bench.says("Zoe", "morning").await, memos);
    assert!(bench.says("Zoe", "morning").await.is_empty());
    // Also where nothing is said.
    bench.says("Ann", "bot tell zoe back?").await;
    let memo = ["zoe, Ann asked me tell you: back?"];
    assert!(bench.closes("zoe").await.is_empty());
    assert_eq!(bench.nothing("zoe").await, memo);
    // And at once, to oneself.
    let own = [
        "Zoe: Sure thing, boss.",
        "Zoe, Zoe asked me tell you: remember",
    ];
    assert_eq!(bench.says("Zoe", "bot tell zoe remember").await, own);
}

#[tokio::test]
async fn channels_are_apart_and_the_bot_must_be_addressed() {
    let bench = bench().await;
    let says = async |channel: &str, nick: &str, text: &str, addressed: bool| {
        let message = in_channel(&bench, channel, nick, text, addressed);
        bench.hears(&message).await
    };
    assert!(says("#a", "ann", "bot tell zoe no", false).await.is_empty());
    assert!(says("#a", "zoe", "x", false).await.is_empty());
    assert_eq!(says("#a", "ann", "bot tell zoe yes", true).await.len(), 1);
    assert!(says("#b", "zoe", "x", true).await.is_empty());
    assert!(bench.says("zoe", "x").await.is_empty(), "no channel at all");
    let memo = ["zoe, ann asked me tell you: yes"];
    assert_eq!(says("#a", "zoe", "x", false).await, memo);
    assert_eq!(says("#a:b", "ann", "bot tell zoe 1", true).await.len(), 1);
    assert!(says("#a", "zoe", "x", true).await.is_empty());
}

#[test]
fn what_an_order_is() {
    let orders = [
        ("bot tell zoe x", Some(("zoe", "x"))),
        ("  bot  tell  zoe  a b \n", Some(("zoe", "a b"))),
        ("bot: tell zoe tell x", Some(("zoe", "tell x"))),
        ("bot tell zoe", None),
        ("bot tell zoe  ", None),
        ("tell zoe x", None),
        ("dear bot tell zoe x", None),
        ("bot TELL zoe x", None),
        ("", None),
    ];
    for (text, expected) in orders {
        assert_eq!(order(text), expected, "{text:?}");
    }
}

#[tokio::test]
async fn memos_are_bounded() {
    let bench = bench().await;
    let long = "é".repeat(1000);
    let sure = ["ann: Sure thing, boss."];
    assert_eq!(
        bench.says("ann", &format!("bot tell zoe {long}")).await,
        sure
    );
    let longer = format!("bot tell zoe {long}é");
    let sorry = ["ann: Sorry, a memo has at most 1000 characters."];
    assert_eq!(bench.says("ann", &longer).await, sorry);
    for _ in 1..50 {
        assert_eq!(bench.says("ann", "bot tell zoe x").await, sure);
    }
    let sorry = ["ann: Sorry, too many memos wait for zoe already."];
    assert_eq!(bench.says("ann", "bot tell zoe x").await, sorry);
    assert_eq!(bench.says("zoe", "x").await.len(), 50);
    assert_eq!(bench.says("ann", "bot tell zoe x").await, sure);
}
