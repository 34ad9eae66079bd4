//! Why a message is where it is (R11): gathers rows and trails over all hops, and puts them into one timeline that ends
//! in class, sentence and who must act, or in what the message waits for. No addresses and no contents.
//!
//! What is asked and answered is here, where stores and queues are looked through in `gather`, how it reads as one story
//! in `timeline`, and who is sending a message in `sender`.

mod gather;
mod sender;
mod timeline;

pub use sender::Sender;
pub use timeline::{Known, assemble};

use crate::broker::Broker;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::state::StateStore;
use crate::state::journal::Reason;
use crate::state::ledger::{RowState, Step};
use gather::Gather;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fewest letters of an id that stand for the whole.
pub const SHORTEST: usize = 4;
/// Ids of an ambiguous beginning that are named.
const NAMED: usize = 5;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// About one message, by its id or by the beginning of it, where that is clear.
    Message(String),
    /// About everything of a person, by address.
    Person(String),
    /// About everything that began between two times (milliseconds since 1970).
    Between(u64, u64),
}

/// Where a message is, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// It has ended, as its state says.
    Ended,
    /// A worker handled it and did not pass it on.
    Handled,
    /// A transport has it, as its state says.
    Underway,
    /// It waits in a journal.
    InJournal,
    /// It was put into a queue, and nobody has noted it since.
    InQueue,
    /// It was set aside; a person must act.
    Parked,
}

/// What a message in a journal waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// Queue that it was consumed from.
    pub queue: String,
    /// Why it waits.
    pub reason: Reason,
    /// When it was first taken from the queue: milliseconds since 1970.
    pub since: u64,
    /// When its lane is due: milliseconds since 1970; none when somebody must release it.
    pub at: Option<u64>,
    /// How many wait before it in its lane.
    pub before: u64,
    /// Code of its last error; empty if there was none.
    pub code: String,
    /// Its sentence.
    pub text: String,
}

/// One thing that happened, with the message that it happened to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// The message.
    pub message_id: String,
    /// What happened.
    pub step: Step,
}

/// How it stands with one message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The message.
    pub message_id: String,
    /// Where it is.
    pub stage: Stage,
    /// Its state; none for messages that no transport took over and that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RowState>,
    /// Whether nothing follows.
    pub is_final: bool,
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// Whose last step that was: kind and name of the worker, an `@`, and its replica; empty if nobody noted one.
    pub by: String,
    /// Failure class; empty if nothing failed.
    pub class: String,
    /// The provider's raw code or ours; empty if there is none.
    pub code: String,
    /// A plain sentence.
    pub text: String,
    /// Who must act; empty if nobody needs to.
    pub who: String,
    /// When the next step is due: milliseconds since 1970; in the past for an overdue one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Its place in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Wait>,
    /// Who is sending it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
}

/// Messages that one thing led to, from the first to the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// What happened, oldest first.
    pub moments: Vec<Moment>,
    /// How it stands with each message, in the order of their beginning.
    pub standings: Vec<Standing>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// One timeline per chain of messages, oldest first.
    pub timelines: Vec<Timeline>,
    /// Whether there is more than was asked for.
    pub truncated: bool,
    /// What was not looked at, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_seen: Vec<String>,
}

/// Where is looked.
pub struct Places<'a> {
    /// State stores.
    pub stores: &'a [Arc<dyn StateStore>],
    /// Consumed queues, each with its broker: what was set aside of them is looked at for a message that no store knows.
    pub queues: BTreeMap<String, Arc<dyn Broker>>,
}

/// Asks; at most `limit` messages are followed.
///
/// # Errors
/// Several messages begin as asked ([`codes::CONTROL_REQUEST`]), or a store does not answer.
pub async fn ask(
    places: &Places<'_>,
    question: &Question,
    limit: usize,
) -> Result<Answer, WorkError> {
    let mut gather = Gather::new(places, question).await?;
    let mut known = gather.about(question, limit).await?;
    if let (Question::Message(id), true) = (question, known.is_empty()) {
        let whole = match id.chars().count() >= SHORTEST {
            true => gather.beginning_with(id).await?,
            false => Vec::new(),
        };
        known = match &whole[..] {
            [] => gather.set_aside(id).await,
            [one] => gather.about(&Question::Message(one.clone()), limit).await?,
            several => return Err(ambiguous(id, several)),
        };
    }
    Ok(Answer {
        timelines: assemble(known),
        truncated: gather.truncated,
        not_seen: gather.not_seen,
    })
}

fn ambiguous(beginning: &str, ids: &[String]) -> WorkError {
    let named: Vec<&str> = ids.iter().take(NAMED).map(String::as_str).collect();
    let more = match ids.len() > NAMED {
        true => ", …",
        false => "",
    };
    WorkError::new(
        ErrorClass::BadInput,
        codes::CONTROL_REQUEST,
        format!(
            "{} messages have an id that begins with {beginning}: {}{more}",
            ids.len(),
            named.join(", ")
        ),
    )
}
