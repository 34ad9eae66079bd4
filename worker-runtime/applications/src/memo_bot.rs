//! `memoBot`: keeps memos for people in a chat channel until they say something.

use crate::conversation::{Conversation, Line, Page, Talk, json, read};
use async_trait::async_trait;
use std::sync::Arc;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::state::Person;
use vumi_core::state::sessions::Session;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

/// Memos that wait for one nick.
const MOST: usize = 50;
/// Characters of a memo.
const LONGEST: usize = 1000;

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = vumi_api::applications::MemoBot;
    const SAYING: &'static str = "bot tell nobody {}";

    async fn build(_: Self::Config, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        let scope = format!("ircbot:memos:{}", cx.resource().name);
        Ok(Talk::new(MemoBot { scope }, cx)?)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: memos}\nspec:\n  memoBot: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

struct MemoBot {
    scope: String,
}

#[async_trait]
impl Conversation for MemoBot {
    async fn turn(
        &self,
        message: &UserMessage,
        person: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError> {
        if message.session_event() == Some(SessionEvent::Close) {
            return Ok(Vec::new());
        }
        let irc = message.helper_metadata().and_then(|m| m.get("irc"));
        let channel = irc.and_then(|irc| irc.get("irc_channel")?.as_str());
        let channel = channel.unwrap_or("unknown");
        let addressed = irc.and_then(|irc| irc.get("addressed_to_transport")?.as_bool());
        // A colon divides the parts of a key.
        let scope = format!("{}:{}", self.scope, channel.replace(':', "%3a"));
        let sender = message.from_addr().unwrap_or_default();
        let mut lines = Vec::new();
        if addressed.unwrap_or(true)
            && let Some((nick, text)) = message.content().and_then(order)
        {
            let told = remember(&scope, sender, nick, text, page).await?;
            lines.push(Line::reply(format!("{sender}: {told}")));
        }
        let nick = person.address().to_lowercase();
        for (from, text) in memos(page.read(&scope, &nick).await?.as_ref())? {
            let text = format!("{sender}, {from} asked me tell you: {text}");
            lines.push(Line::reply(text));
        }
        page.write(&scope, &nick, None, None).await?;
        Ok(lines)
    }
}

/// The nick and the memo in `bot tell nick memo`.
fn order(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.trim().split_once(char::is_whitespace)?;
    let (tell, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (nick, memo) = rest.trim_start().split_once(char::is_whitespace)?;
    let memo = memo.trim_start();
    (tell == "tell" && !memo.is_empty()).then_some((nick, memo))
}

/// Adds a memo; what is said about it.
async fn remember(
    scope: &str,
    sender: &str,
    nick: &str,
    text: &str,
    page: &mut Page<'_>,
) -> Result<String, WorkError> {
    let key = Person::new(nick).address().to_lowercase();
    let held = page.read(scope, &key).await?;
    let waiting = memos(held.as_ref())?.len();
    if waiting >= MOST {
        return Ok(format!("Sorry, too many memos wait for {nick} already."));
    }
    if text.chars().count() > LONGEST {
        return Ok(format!("Sorry, a memo has at most {LONGEST} characters."));
    }
    let mut held = held.unwrap_or_default();
    held.insert(format!("{waiting:04}"), json(&[sender, text])?);
    page.write(scope, &key, Some(held), None).await?;
    Ok("Sure thing, boss.".into())
}

/// Senders and texts, in the order in which they came.
fn memos(held: Option<&Session>) -> Result<Vec<(String, String)>, WorkError> {
    let fields = held.into_iter().flatten();
    let numbered = fields.filter(|(name, _)| name.bytes().all(|b| b.is_ascii_digit()));
    numbered.map(|(_, memo)| read(memo)).collect()
}

#[cfg(test)]
mod tests;
