//! Conversations: applications that remember something from one message of a user to the next.
//!
//! A message may be handled more than once: it is delivered again after a crash, or its answer could not be published.
//! It must not move a conversation twice, and each time it must cause the same. So everything that a message changes, in
//! whatever sessions, is changed at once, together with a note of what was answered; whoever meets the note repeats the
//! answer and changes nothing. A change is made only if nobody else changed the same sessions since they were read, so
//! replicas and the users of one game may act at the same moment.
//!
//! Notes are kept under the keys of the persons whom their texts are for, so that an erasure finds them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Message, UserMessage, derived_id, reply_id};
use vumi_core::state::sessions::{Change, Session};
use vumi_core::state::{Person, StateStore};
use vumi_core::worker::{Input, Output, Worker, WorkerContext};

/// How often a turn is begun anew because others changed the same sessions.
const ATTEMPTS: usize = 20;

/// What one application says and remembers.
#[async_trait]
pub(crate) trait Conversation: Send + Sync + 'static {
    /// What a message of `person` causes: lines, and changes of sessions on `page`. Called again with another page if the
    /// changes could not be made, so it must do nothing else.
    async fn turn(
        &self,
        message: &UserMessage,
        person: &Person,
        page: &mut Page<'_>,
    ) -> Result<Vec<Line>, WorkError>;
}

/// Something that is said to somebody.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    to: To,
    text: String,
    ends: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum To {
    /// Who sent the message.
    Sender,
    /// Somebody else, in answer to an earlier message.
    Other(Box<UserMessage>),
    /// Somebody else, whose earlier message says how they are reached.
    Unasked(Box<UserMessage>),
}

impl Line {
    /// Answers the message.
    pub(crate) fn reply(text: impl Into<String>) -> Self {
        Self {
            to: To::Sender,
            text: text.into(),
            ends: false,
        }
    }

    /// Answers an earlier message, of somebody else.
    pub(crate) fn answer(message: UserMessage, text: impl Into<String>) -> Self {
        Self {
            to: To::Other(Box::new(message)),
            ..Self::reply(text)
        }
    }

    /// Tells somebody else, who sent this earlier message, without answering it.
    pub(crate) fn tell(message: UserMessage, text: impl Into<String>) -> Self {
        Self {
            to: To::Unasked(Box::new(message)),
            ..Self::reply(text)
        }
    }

    /// Ends the session with it.
    pub(crate) fn last(self) -> Self {
        self.ends(true)
    }

    /// Ends the session with it, or not.
    pub(crate) fn ends(self, ends: bool) -> Self {
        Self { ends, ..self }
    }

    /// It as the `index`-th message that `cause` causes.
    fn message(&self, cause: &UserMessage, worker: &str, index: usize) -> UserMessage {
        let (answered, asked) = match &self.to {
            To::Sender => (cause, true),
            To::Other(message) => (&**message, true),
            To::Unasked(message) => (&**message, false),
        };
        let mut said = answered.reply(worker, index, Some(&self.text), self.ends);
        said.set_message_id(&reply_id(cause.message_id(), worker, index));
        if !asked {
            said.set_field("in_reply_to", serde_json::Value::Null);
        }
        said
    }
}

/// The sessions that one turn reads and changes. What a decision rests on must be written as well, even if it stays as it
/// is: only written sessions are known to be unchanged when the changes are made.
pub(crate) struct Page<'a> {
    store: &'a dyn StateStore,
    sessions: BTreeMap<(String, String), Entry>,
}

struct Entry {
    before: Option<Session>,
    now: Option<Session>,
    /// Whether it is written, and how long it lasts then.
    written: Option<Option<Duration>>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(store: &'a dyn StateStore) -> Self {
        Self {
            store,
            sessions: BTreeMap::new(),
        }
    }

    /// A session, with the changes made here.
    pub(crate) async fn read(
        &mut self,
        scope: &str,
        user: &str,
    ) -> Result<Option<Session>, WorkError> {
        Ok(self.entry(scope, user).await?.now.clone())
    }

    /// Changes a session: it lasts for `keep` from now on, or for ever.
    pub(crate) async fn write(
        &mut self,
        scope: &str,
        user: &str,
        session: Option<Session>,
        keep: Option<Duration>,
    ) -> Result<(), WorkError> {
        let entry = self.entry(scope, user).await?;
        entry.now = session;
        entry.written = Some(keep);
        Ok(())
    }

    async fn entry(&mut self, scope: &str, user: &str) -> Result<&mut Entry, WorkError> {
        let key = (scope.to_owned(), user.to_owned());
        if !self.sessions.contains_key(&key) {
            let before = self.store.load(scope, user).await?;
            let entry = Entry {
                now: before.clone(),
                before,
                written: None,
            };
            self.sessions.insert(key.clone(), entry);
        }
        self.sessions.get_mut(&key).ok_or_else(bug)
    }

    /// What it is to change.
    pub(crate) fn changes(self) -> Vec<Change> {
        let written = self.sessions.into_iter().filter_map(|(key, entry)| {
            let keep = entry.written?;
            Some(Change {
                scope: key.0,
                user: key.1,
                before: entry.before,
                after: entry.now,
                keep,
            })
        });
        written.collect()
    }
}

fn bug() -> WorkError {
    WorkError::new(
        ErrorClass::Bug,
        codes::STATE_UNREADABLE,
        "a session was read and is not there",
    )
}

/// How long it is known what was answered.
pub(crate) fn kept(cx: &WorkerContext) -> Duration {
    let settings = cx.resource().settings();
    settings.retention.answers(settings.retry.as_ref())
}

/// A worker that holds conversations.
pub(crate) struct Talk<C> {
    conversation: C,
    cx: Arc<WorkerContext>,
    store: Arc<dyn StateStore>,
    keep: Duration,
    /// Held by a turn that others got in the way of, so that it and its like take turns.
    crowded: tokio::sync::Mutex<()>,
}

impl<C: Conversation> Talk<C> {
    /// A worker that keeps its conversations in the store of its resource.
    pub(crate) fn new(conversation: C, cx: Arc<WorkerContext>) -> Result<Arc<Self>, WorkError> {
        let store = cx.state().ok_or_else(|| {
            WorkError::new(
                ErrorClass::Config,
                codes::STATE_NONE,
                "it keeps conversations and has no state store",
            )
        })?;
        let keep = kept(&cx);
        Ok(Arc::new(Self {
            conversation,
            cx,
            store,
            keep,
            crowded: tokio::sync::Mutex::new(()),
        }))
    }

    /// What a message causes, this time and every time.
    async fn turn(&self, message: &UserMessage) -> Result<Vec<UserMessage>, WorkError> {
        let address = message.from_addr().unwrap_or_default();
        let person = Person::new(address);
        if person.address().is_empty() {
            return Err(WorkError::new(
                ErrorClass::BadInput,
                codes::MESSAGE_INVALID,
                "it has no sender to talk with",
            ));
        }
        let notes = Notes::of(message, self.cx.worker_name());
        let mut _turn = None;
        for _ in 0..ATTEMPTS {
            let mut page = Page::new(&*self.store);
            if let Some(known) = page.read(&notes.scope, &person.key()).await? {
                return notes.again(known, message, &mut page).await;
            }
            let lines = self.conversation.turn(message, &person, &mut page).await?;
            notes.keep(&lines, &person, &mut page, self.keep).await?;
            if self.store.change(&page.changes()).await? {
                let worker = self.cx.worker_name();
                let said = lines.iter().enumerate();
                return Ok(said
                    .map(|(n, line)| line.message(message, worker, n))
                    .collect());
            }
            if _turn.is_none() {
                _turn = Some(self.crowded.lock().await);
            }
        }
        Err(WorkError::new(
            ErrorClass::RemoteTemporary,
            codes::STATE_CONTENDED,
            format!("others changed the same sessions {ATTEMPTS} times"),
        ))
    }
}

#[async_trait]
impl<C: Conversation> Worker for Talk<C> {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let Message::User(message) = &input.message else {
            return Ok(Vec::new());
        };
        let said = self.turn(message).await?;
        let outputs = said.into_iter().map(|said| crate::answer(&self.cx, said));
        Ok(outputs.collect())
    }
}

/// What is known of a message that was answered: a session of its sender, with a text for each line by its number, and one
/// of everybody else who is told something, since a text belongs to whom it is for.
struct Notes {
    scope: String,
    worker: String,
}

/// One line as it is noted.
#[derive(Serialize, Deserialize)]
enum Note {
    /// For the sender: the text, and whether the session ends.
    Reply(String, bool),
    /// For whom it is; there it stands as a message.
    For(String),
}

impl Notes {
    fn of(message: &UserMessage, worker: &str) -> Self {
        // An id may be any text.
        let id = derived_id(&["answers", message.message_id(), worker]);
        Self {
            scope: format!("answers:{id}"),
            worker: worker.to_owned(),
        }
    }

    async fn keep(
        &self,
        lines: &[Line],
        person: &Person,
        page: &mut Page<'_>,
        keep: Duration,
    ) -> Result<(), WorkError> {
        let mut own = Session::new();
        for (n, line) in lines.iter().enumerate() {
            let note = match &line.to {
                To::Sender => Note::Reply(line.text.clone(), line.ends),
                To::Other(message) | To::Unasked(message) => {
                    let other = Person::new(message.from_addr().unwrap_or_default()).key();
                    let mut theirs = page.read(&self.scope, &other).await?.unwrap_or_default();
                    theirs.insert(n.to_string(), self.unsent(line, message)?);
                    page.write(&self.scope, &other, Some(theirs), Some(keep))
                        .await?;
                    Note::For(other)
                }
            };
            own.insert(n.to_string(), json(&note)?);
        }
        let sender = person.key();
        page.write(&self.scope, &sender, Some(own), Some(keep))
            .await
    }

    fn unsent(&self, line: &Line, message: &UserMessage) -> Result<String, WorkError> {
        let whole = (
            &line.text,
            line.ends,
            matches!(line.to, To::Other(_)),
            text_of(message),
        );
        json(&whole)
    }

    /// What was said before. What was for somebody who was erased since is gone.
    async fn again(
        &self,
        known: Session,
        message: &UserMessage,
        page: &mut Page<'_>,
    ) -> Result<Vec<UserMessage>, WorkError> {
        let numbered = known
            .iter()
            .filter_map(|(n, note)| Some((n.parse::<usize>().ok()?, note)));
        let mut numbered: Vec<(usize, &String)> = numbered.collect();
        numbered.sort_unstable();
        let mut said = Vec::new();
        for (n, note) in numbered {
            let line = match read(note)? {
                Note::Reply(text, ends) => Line::reply(text).ends(ends),
                Note::For(other) => {
                    let theirs = page.read(&self.scope, &other).await?.unwrap_or_default();
                    let Some(whole) = theirs.get(&n.to_string()) else {
                        continue;
                    };
                    let (text, ends, asked, other): (String, bool, bool, String) = read(whole)?;
                    let other = message_of(&other)?;
                    match asked {
                        true => Line::answer(other, text).ends(ends),
                        false => Line::tell(other, text).ends(ends),
                    }
                }
            };
            said.push(line.message(message, &self.worker, n));
        }
        Ok(said)
    }
}

/// A message as a later answer needs it, without its content.
pub(crate) fn text_of(message: &UserMessage) -> String {
    let mut message = message.clone();
    message.set_content(None);
    String::from_utf8_lossy(&message.encode()).into_owned()
}

/// The message that [`text_of`] made this of.
pub(crate) fn message_of(text: &str) -> Result<UserMessage, WorkError> {
    UserMessage::decode(text.as_bytes()).map_err(|_| unreadable())
}

/// As a text of a session.
pub(crate) fn json(value: &impl Serialize) -> Result<String, WorkError> {
    serde_json::to_string(value).map_err(|_| unreadable())
}

/// A text of a session that [`json`] made.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, WorkError> {
    serde_json::from_str(text).map_err(|_| unreadable())
}

fn unreadable() -> WorkError {
    WorkError::new(
        ErrorClass::Bug,
        codes::STATE_UNREADABLE,
        "a session holds something that no conversation wrote",
    )
}

#[cfg(test)]
mod tests;
