//! The rules and texts of one game of hangman.

use std::collections::BTreeSet;
use vumi_core::state::sessions::Session;

/// A game.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Game {
    word: String,
    guesses: BTreeSet<char>,
    msg: String,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Said {
    /// The board.
    Board,
    /// The user does not want to play any more.
    Goodbye,
}

impl Game {
    pub(super) fn new(word: &str) -> Self {
        Self {
            word: word.to_owned(),
            guesses: BTreeSet::new(),
            msg: "New game!".into(),
        }
    }

    /// The game in a session; none if there is none in it.
    pub(super) fn of(session: &Session) -> Option<Self> {
        let word = session.get("word").filter(|word| !word.is_empty())?;
        let text = |name: &str| session.get(name).cloned().unwrap_or_default();
        Some(Self {
            word: word.clone(),
            guesses: text("guesses").chars().collect(),
            msg: text("msg"),
        })
    }

    /// Its session, in place of what was held.
    pub(super) fn fields(&self, mut held: Session) -> Session {
        held.insert("word".into(), self.word.clone());
        held.insert("guesses".into(), self.guesses.iter().collect());
        held.insert("msg".into(), self.msg.clone());
        held
    }

    /// Letters that can be guessed; a word of Vumi may hold other characters, which are shown.
    fn letters(&self) -> BTreeSet<char> {
        let letters = self.word.chars().filter(char::is_ascii_lowercase);
        letters.collect()
    }

    fn is_won(&self) -> bool {
        self.letters().is_subset(&self.guesses)
    }

    /// What the user sees.
    pub(super) fn board(&self) -> String {
        let shown = |c: char| match c.is_ascii_lowercase() && !self.guesses.contains(&c) {
            true => '_',
            false => c,
        };
        let word: String = self.word.chars().map(shown).collect();
        let guesses: String = self.guesses.iter().collect();
        let prompt = match self.is_won() {
            true => "Enter anything to start a new game (0 to quit):",
            false => "Enter next guess (0 to quit):",
        };
        let msg = &self.msg;
        format!("{msg}\nWord: {word}\nLetters guessed so far: {guesses}\n{prompt}\n")
    }

    /// What a text does; `next` is the word of the game that it may begin.
    pub(super) fn guess(&mut self, text: &str, next: &str) -> Said {
        let text = text.trim().to_lowercase();
        let mut letters = text.chars();
        let msg = match (letters.next(), letters.next()) {
            (None, _) => "Some input required please.".into(),
            (_, Some(_)) => "Single characters only please.".into(),
            (Some('0'), None) => return Said::Goodbye,
            (Some(_), None) if self.is_won() => {
                *self = Self::new(next);
                return Said::Board;
            }
            (Some(c), None) if !c.is_ascii_lowercase() => {
                "Letters of the alphabet only please.".into()
            }
            (Some(c), None) if self.guesses.contains(&c) => {
                format!("You've already guessed '{c}'.")
            }
            (Some(c), None) => {
                self.guesses.insert(c);
                match self.word.contains(c) {
                    _ if self.is_won() => self.victory().into(),
                    true => format!("Word contains at least one '{c}'! :D"),
                    false => format!("Word contains no '{c}'. :("),
                }
            }
        };
        self.msg = msg;
        Said::Board
    }

    /// How well it was won: guesses for each letter that had to be found.
    fn victory(&self) -> &'static str {
        let (guesses, letters) = (self.guesses.len() * 2, self.letters().len());
        match () {
            () if guesses <= 2 * letters => "Flawless victory!",
            () if guesses <= 3 * letters => "Epic victory!",
            () if guesses <= 4 * letters => "Standard victory!",
            () if guesses <= 6 * letters => "Sub-par victory!",
            () if guesses <= 8 * letters => "Random victory!",
            () => "Button mashing!",
        }
    }
}
