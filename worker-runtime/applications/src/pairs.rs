//! Games of two users, whatever the game: who plays with whom, who hears what, and how games end.
//!
//! Who comes first waits in the lobby; who comes next plays with them. A player's last message is kept until it is
//! answered, because that may be when the other one has moved. Nothing refers to a user by address: players, games and the
//! lobby name users by the keys of their persons.

use crate::conversation::{Conversation, Line, Page, json, message_of, read, text_of};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage, derived_id};
use vumi_core::state::Person;
use vumi_core::state::sessions::Session;

/// A game that nobody plays for so long is over.
const IDLE: Option<Duration> = Some(Duration::from_secs(3600));
/// The session that holds the game which waits for a second player.
const LOBBY: &str = "lobby";

/// The rules of a game. Seats are 0 for who came first, and 1.
pub(crate) trait Rules: Send + Sync + 'static {
    /// The game as it stands.
    type Board: Default + Serialize + DeserializeOwned + Send + Sync;
    /// What the other one hears when a player's session ends.
    const LEFT: &'static str;

    /// What a player sees.
    fn view(board: &Self::Board, seat: usize) -> String;
    /// Whether the player is to move.
    fn is_turn_of(board: &Self::Board, seat: usize) -> bool;
    /// What a text of a player does.
    fn play(board: &mut Self::Board, seat: usize, text: &str) -> Turn;
}

/// What comes of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Turn {
    /// The game goes on, and these seats see the board.
    On([bool; 2]),
    /// It is over, and these are the last words to each.
    Over([String; 2]),
}

impl Turn {
    /// It is over, with one text for the seat and one for the other.
    pub(crate) fn over(seat: usize, own: &str, other: &str) -> Self {
        let mut texts = [other.to_owned(), other.to_owned()];
        texts[seat] = own.to_owned();
        Self::Over(texts)
    }
}

/// A game with players in it.
struct Table<B> {
    id: String,
    players: [Option<String>; 2],
    board: B,
}

/// A user who plays, or was told nothing yet of the end of a game.
#[derive(Clone, Debug, Default)]
struct Player {
    game: String,
    seat: usize,
    /// Their last message, without its content.
    message: String,
    answered: bool,
    /// What they are to hear when they say something.
    note: Option<String>,
}

/// A conversation by the rules of a game.
pub(crate) struct Pairs<R> {
    scope: String,
    waiting: Option<String>,
    rules: std::marker::PhantomData<fn() -> R>,
}

impl<R: Rules> Pairs<R> {
    /// Players are kept under `scope`. With `waiting` they hear that when they must wait, and are written to unasked.
    pub(crate) fn new(scope: String, waiting: Option<String>) -> Self {
        Self {
            scope,
            waiting,
            rules: std::marker::PhantomData,
        }
    }
}

/// One message, and what it causes.
struct Scene<'a, 'p, R: Rules> {
    pairs: &'a Pairs<R>,
    page: &'a mut Page<'p>,
    /// Key of who sent it.
    me: String,
    player: Player,
    lines: Vec<Line>,
}

#[async_trait]
impl<R: Rules> Conversation for Pairs<R> {
    async fn turn(
        &self,
        message: &UserMessage,
        person: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError> {
        let me = person.key();
        let held = page.read(&self.scope, &me).await?;
        let mut scene = Scene {
            pairs: self,
            page,
            me,
            player: held.as_ref().map(Player::of).unwrap_or_default(),
            lines: Vec::new(),
        };
        scene.player.message = text_of(message);
        scene.player.answered = false;
        scene.run(message).await?;
        Ok(scene.lines)
    }
}

impl<R: Rules> Scene<'_, '_, R> {
    async fn run(&mut self, message: &UserMessage) -> Result<(), WorkError> {
        let event = message.session_event();
        let game = self.player.game.clone();
        let table = self.table(&game).await?.filter(|table| {
            let own = table.players.get(self.player.seat);
            own.is_some_and(|own| own.as_ref() == Some(&self.me))
        });
        // Erased, or somewhere else: nobody will ever move.
        if let Some(table) = table.as_ref().filter(|table| table.players[1].is_some())
            && event != Some(SessionEvent::Close)
            && self.opponent(table).await?.is_none()
        {
            return self.deserted(table, message).await;
        }
        match (event, table) {
            (Some(SessionEvent::Close), table) => self.leave(table).await,
            (_, Some(table)) if table.players[1].is_none() => self.join(message, Some(table)).await,
            (_, Some(table)) => match message.content() {
                Some(text) if event != Some(SessionEvent::New) => self.play(table, text).await,
                _ => self.come_back(table).await,
            },
            (_, None) => match self.player.note.take() {
                Some(note) if event != Some(SessionEvent::New) => {
                    self.lines.push(Line::reply(note).last());
                    self.forget().await
                }
                _ => self.join(message, None).await,
            },
        }
    }

    /// Plays with who waits, or waits, at their `own` table if they wait already.
    async fn join(
        &mut self,
        message: &UserMessage,
        own: Option<Table<R::Board>>,
    ) -> Result<(), WorkError> {
        let scope = &self.pairs.scope;
        let lobby = self.page.read(scope, LOBBY).await?;
        let waiting = lobby.and_then(|lobby| lobby.get("game").cloned());
        if let Some(mut table) = self.table(&waiting.unwrap_or_default()).await?
            && let [Some(first), None] = &table.players
            && *first != self.me
            && let Some(other) = self.player_of(first).await?
            && other.game == table.id
        {
            self.page.write(scope, LOBBY, None, IDLE).await?;
            if let Some(own) = own {
                self.page.write(scope, &own.id, None, IDLE).await?;
            }
            table.players[1] = Some(self.me.clone());
            self.player.game.clone_from(&table.id);
            self.player.seat = 1;
            let turns = [0, 1].map(|seat| R::is_turn_of(&table.board, seat));
            self.show(&table, turns).await?;
            return self.put(Some(table)).await;
        }
        let table = own.unwrap_or_else(|| Table {
            id: derived_id(&["game", scope, message.message_id()]),
            players: [Some(self.me.clone()), None],
            board: R::Board::default(),
        });
        let lobby = Session::from([("game".into(), table.id.clone())]);
        self.page.write(scope, LOBBY, Some(lobby), IDLE).await?;
        self.player.game.clone_from(&table.id);
        self.player.seat = 0;
        self.wait();
        self.put(Some(table)).await
    }

    async fn play(&mut self, mut table: Table<R::Board>, text: &str) -> Result<(), WorkError> {
        match R::play(&mut table.board, self.player.seat, text) {
            Turn::On(seats) => {
                self.show(&table, seats).await?;
                self.put(Some(table)).await
            }
            Turn::Over(texts) => {
                let seat = self.player.seat;
                self.lines.push(Line::reply(&texts[seat]).last());
                self.part(&table, &texts[1 - seat]).await?;
                self.end(&table).await
            }
        }
    }

    /// A player whose session began anew sees where the game is.
    async fn come_back(&mut self, table: Table<R::Board>) -> Result<(), WorkError> {
        let mut seats = [false; 2];
        seats[self.player.seat] = R::is_turn_of(&table.board, self.player.seat);
        self.show(&table, seats).await?;
        self.put(Some(table)).await
    }

    /// The session of a player is over, and the game with it.
    async fn leave(&mut self, table: Option<Table<R::Board>>) -> Result<(), WorkError> {
        let Some(table) = table else {
            return self.forget().await;
        };
        self.part(&table, R::LEFT).await?;
        self.end(&table).await
    }

    /// The other player is gone: the game is over, and who begins anew anyway needs no news of it.
    async fn deserted(
        &mut self,
        table: &Table<R::Board>,
        message: &UserMessage,
    ) -> Result<(), WorkError> {
        self.end(table).await?;
        match message.session_event() {
            Some(SessionEvent::New) => self.join(message, None).await,
            _ => {
                self.lines.push(Line::reply(R::LEFT).last());
                Ok(())
            }
        }
    }

    /// These seats see the board; who sent the message and does not is told to wait.
    async fn show(&mut self, table: &Table<R::Board>, seats: [bool; 2]) -> Result<(), WorkError> {
        let seat = self.player.seat;
        match seats[seat] {
            true => {
                let view = R::view(&table.board, seat);
                self.lines.push(Line::reply(view));
                self.player.answered = true;
            }
            false => self.wait(),
        }
        if !seats[1 - seat] {
            return Ok(());
        }
        let view = R::view(&table.board, 1 - seat);
        let Some((key, mut other)) = self.opponent(table).await? else {
            return Ok(());
        };
        if let Some(line) = self.line_to(&other, view)? {
            self.lines.push(line);
            other.answered = true;
        }
        let scope = &self.pairs.scope;
        self.page
            .write(scope, &key, Some(other.fields()), IDLE)
            .await
    }

    /// The last words to the other player.
    async fn part(&mut self, table: &Table<R::Board>, text: &str) -> Result<(), WorkError> {
        let Some((key, other)) = self.opponent(table).await? else {
            return Ok(());
        };
        let told = self.line_to(&other, text.to_owned())?;
        // Who cannot be told now is told when they say something.
        let left = match told.is_some() {
            true => None,
            false => Some(Session::from([("note".into(), text.to_owned())])),
        };
        self.lines.extend(told.map(Line::last));
        let scope = &self.pairs.scope;
        self.page.write(scope, &key, left, IDLE).await
    }

    /// How somebody else can be told something now, if at all.
    fn line_to(&self, other: &Player, text: String) -> Result<Option<Line>, WorkError> {
        Ok(match (other.answered, &self.pairs.waiting) {
            (false, _) => Some(Line::answer(message_of(&other.message)?, text)),
            (true, Some(_)) => Some(Line::tell(message_of(&other.message)?, text)),
            (true, None) => None,
        })
    }

    /// Who sent the message must wait.
    fn wait(&mut self) {
        if let Some(text) = &self.pairs.waiting {
            self.lines.push(Line::reply(text));
            self.player.answered = true;
        }
    }

    /// The other player, if they are still in this game.
    async fn opponent(
        &mut self,
        table: &Table<R::Board>,
    ) -> Result<Option<(String, Player)>, WorkError> {
        let Some(key) = &table.players[1 - self.player.seat] else {
            return Ok(None);
        };
        let player = self.player_of(key).await?;
        let player = player.filter(|player| player.game == table.id);
        Ok(player.map(|player| (key.clone(), player)))
    }

    async fn player_of(&mut self, key: &str) -> Result<Option<Player>, WorkError> {
        let held = self.page.read(&self.pairs.scope, key).await?;
        Ok(held.as_ref().map(Player::of))
    }

    async fn table(&mut self, id: &str) -> Result<Option<Table<R::Board>>, WorkError> {
        if id.is_empty() {
            return Ok(None);
        }
        let Some(held) = self.page.read(&self.pairs.scope, id).await? else {
            return Ok(None);
        };
        let player = |name: &str| held.get(name).cloned();
        let board = held.get("board").map_or("null", String::as_str);
        Ok(Some(Table {
            id: id.to_owned(),
            players: [player("first"), player("second")],
            board: read(board)?,
        }))
    }

    /// Writes down the game, if it goes on, and who sent the message.
    async fn put(&mut self, table: Option<Table<R::Board>>) -> Result<(), WorkError> {
        let scope = &self.pairs.scope;
        if let Some(table) = table {
            // A game and its players are kept equally long: a player who is forgotten before the game would be waited for.
            if let Some((key, other)) = self.opponent(&table).await? {
                let other = Some(other.fields());
                self.page.write(scope, &key, other, IDLE).await?;
            }
            let mut session = Session::from([("board".into(), json(&table.board)?)]);
            for (name, player) in ["first", "second"].into_iter().zip(table.players) {
                session.extend(player.map(|player| (name.to_owned(), player)));
            }
            self.page
                .write(scope, &table.id, Some(session), IDLE)
                .await?;
        }
        let player = self.player.fields();
        self.page.write(scope, &self.me, Some(player), IDLE).await
    }

    /// The game is over; nobody is to find it.
    async fn end(&mut self, table: &Table<R::Board>) -> Result<(), WorkError> {
        let scope = &self.pairs.scope;
        let lobby = self.page.read(scope, LOBBY).await?;
        if lobby.is_some_and(|lobby| lobby.get("game") == Some(&table.id)) {
            self.page.write(scope, LOBBY, None, IDLE).await?;
        }
        self.page.write(scope, &table.id, None, IDLE).await?;
        self.forget().await
    }

    async fn forget(&mut self) -> Result<(), WorkError> {
        let scope = &self.pairs.scope;
        self.page.write(scope, &self.me, None, IDLE).await
    }
}

impl Player {
    fn of(session: &Session) -> Self {
        let text = |name: &str| session.get(name).cloned().unwrap_or_default();
        Self {
            game: text("game"),
            seat: usize::from(text("seat") == "1"),
            message: text("message"),
            answered: text("answered") == "1",
            note: session.get("note").cloned(),
        }
    }

    fn fields(&self) -> Session {
        let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
        Session::from([
            ("game".into(), self.game.clone()),
            ("seat".into(), flag(self.seat == 1)),
            ("message".into(), self.message.clone()),
            ("answered".into(), flag(self.answered)),
        ])
    }
}

#[cfg(test)]
mod tests;
