//! `hangman`: one game per user, which goes on in the user's next session. Games are kept as Vumi keeps them, so that
//! one begun there goes on here.

mod game;

use crate::conversation::{Conversation, Line, Page, Talk};
use async_trait::async_trait;
use game::{Game, Said};
use std::sync::Arc;
use vumi_core::conformance::Fixture;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage, derived_id};
use vumi_core::state::Person;
use vumi_core::worker::{Worker, WorkerContext, WorkerType};

/// Words that are guessed unless the manifest names others.
const WORDS: &str = include_str!("hangman/words.txt");

pub(crate) struct Def;

#[async_trait]
impl WorkerType for Def {
    type Config = vumi_api::applications::Hangman;

    async fn build(
        config: Self::Config,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let worker = config.worker_name.as_deref();
        let worker = worker.unwrap_or(&cx.resource().name);
        let hangman = Hangman {
            scope: format!("hangman_game:{}:{worker}", cx.transport_name()),
            words: match config.words {
                Some(words) => words.iter().map(|word| word.to_lowercase()).collect(),
                None => WORDS.split_whitespace().map(str::to_owned).collect(),
            },
        };
        Ok(Talk::new(hangman, cx)?)
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: hangman}\nspec:\n  hangman: {}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

struct Hangman {
    scope: String,
    words: Vec<String>,
}

impl Hangman {
    /// A word for the game that a message begins: any, and always the same.
    fn word(&self, message: &UserMessage) -> &str {
        let number = derived_id(&["hangman", message.message_id()]);
        let number = u64::from_str_radix(&number[..15], 16).unwrap_or_default();
        let place = number % (self.words.len().max(1) as u64);
        self.words
            .get(place as usize)
            .map_or("vumi", String::as_str)
    }
}

#[async_trait]
impl Conversation for Hangman {
    async fn turn(
        &self,
        message: &UserMessage,
        person: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError> {
        // The game survives the session.
        if message.session_event() == Some(SessionEvent::Close) {
            return Ok(Vec::new());
        }
        let user = person.address();
        let held = page.read(&self.scope, user).await?.unwrap_or_default();
        let word = self.word(message);
        let mut game = Game::of(&held).unwrap_or_else(|| Game::new(word));
        let said = match message.content() {
            None => Said::Board,
            Some(text) => game.guess(text, word),
        };
        let (session, line) = match said {
            Said::Board => (Some(game.fields(held)), Line::reply(game.board())),
            Said::Goodbye => (None, Line::reply("Adieu!").last()),
        };
        page.write(&self.scope, user, session, None).await?;
        Ok(vec![line])
    }
}

#[cfg(test)]
mod tests;
