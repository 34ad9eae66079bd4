//! The ledger (R10): one row per outbound message, moved by compare-and-set, with one unfinished → final step ever; and
//! the trail of every message over all hops.
//!
//! What a step does to a row is computed here, purely, and the same for every store; a store only compares versions and
//! keeps its indexes.

use crate::codes::{self, Code};
use crate::error::WorkError;
use crate::message::{Event, FateState, Timestamp, UserMessage};
use crate::verdict;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Steps kept of a row; older ones between the first and the last are left out.
pub const MAX_STEPS: usize = 40;

/// Where a message is. The states of [`FateState`], and one that exists only here: being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RowState {
    /// Taken over.
    Accepted,
    /// Waits for its turn.
    Queued,
    /// Waits on purpose.
    Held,
    /// Written before the first byte leaves (R17). Found by a later attempt, it means that nobody knows.
    Sending,
    /// The peer has it; a receipt is expected.
    Sent,
    /// Sent, but the answer was lost.
    Unknown,
    /// Set aside; needs a person.
    Parked,
    /// Final: delivered.
    Delivered,
    /// Final: the peer has it and no receipt is expected.
    SentFinal,
    /// Final: failed.
    Failed,
    /// Final: too late.
    Expired,
    /// Final: withdrawn.
    Cancelled,
}

impl RowState {
    /// All states, in the order of a message's life.
    pub const ALL: [RowState; 12] = [
        RowState::Accepted,
        RowState::Queued,
        RowState::Held,
        RowState::Sending,
        RowState::Sent,
        RowState::Unknown,
        RowState::Parked,
        RowState::Delivered,
        RowState::SentFinal,
        RowState::Failed,
        RowState::Expired,
        RowState::Cancelled,
    ];

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            RowState::Delivered
                | RowState::SentFinal
                | RowState::Failed
                | RowState::Expired
                | RowState::Cancelled
        )
    }

    /// Whether its message waits somewhere, or is being sent: in a queue, in hand or in the journal.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            RowState::Accepted | RowState::Queued | RowState::Held | RowState::Sending
        )
    }

    /// As it travels on the wire: being sent is unknown to everyone else.
    pub fn fate(self) -> FateState {
        match self {
            RowState::Accepted => FateState::Accepted,
            RowState::Queued => FateState::Queued,
            RowState::Held => FateState::Held,
            RowState::Sending | RowState::Unknown => FateState::Unknown,
            RowState::Sent => FateState::Sent,
            RowState::Parked => FateState::Parked,
            RowState::Delivered => FateState::Delivered,
            RowState::SentFinal => FateState::SentFinal,
            RowState::Failed => FateState::Failed,
            RowState::Expired => FateState::Expired,
            RowState::Cancelled => FateState::Cancelled,
        }
    }

    /// As shown and used in metrics: `sentFinal`.
    pub fn as_str(self) -> &'static str {
        match self {
            RowState::Accepted => "accepted",
            RowState::Queued => "queued",
            RowState::Held => "held",
            RowState::Sending => "sending",
            RowState::Sent => "sent",
            RowState::Unknown => "unknown",
            RowState::Parked => "parked",
            RowState::Delivered => "delivered",
            RowState::SentFinal => "sentFinal",
            RowState::Failed => "failed",
            RowState::Expired => "expired",
            RowState::Cancelled => "cancelled",
        }
    }
}

/// One thing that happened to a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When: milliseconds since 1970.
    pub at: u64,
    /// Kind and name of the worker, an `@`, and its replica: `transport/sms@pod-1`.
    pub worker: String,
    /// The state it led to; none for a hop that handled the message or passed it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RowState>,
    /// Attempt, from 1; 0 where there is none.
    #[serde(default)]
    pub attempt: u32,
    /// The provider's raw code or our registered code; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Failure class; empty if nothing failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// A plain sentence: no content, addresses or secrets.
    pub text: String,
    /// Who must act; empty if nobody needs to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// Messages that this step caused; the message itself among them if it was passed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caused: Vec<String>,
    /// The reply queue of the replica that holds the request or session whose message was taken over here; none where
    /// none is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

impl Step {
    /// What a person does to a message, on the command line.
    pub fn of_a_person(attempt: u32, code: Code, text: &str) -> Self {
        Self {
            at: (Timestamp::now().epoch() * 1e3) as u64,
            worker: "operator".into(),
            state: None,
            attempt,
            code: code.name.to_owned(),
            class: String::new(),
            text: text.to_owned(),
            who: String::new(),
            caused: Vec::new(),
            holder: None,
        }
    }
}

/// A whole message, encoded: kept in the store and never shown. `Debug` leaves it out, so that no log line has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(String);

impl Content {
    /// Keeps a message, as it was delivered.
    pub fn of(body: &[u8]) -> Self {
        Self(String::from_utf8_lossy(body).into_owned())
    }

    /// The message; none if it cannot be read.
    pub fn message(&self) -> Option<UserMessage> {
        UserMessage::decode(self.0.as_bytes()).ok()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

/// The row of one outbound message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Id of the message.
    pub message_id: String,
    /// Name of the transport that took it over.
    pub account: String,
    /// Where it is.
    pub state: RowState,
    /// Rises with every step.
    pub version: u64,
    /// [`super::Person::key`] of the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// Class: `interactive`, `transactional`, `bulk`; empty where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class: String,
    /// Batch label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Tenant label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it was taken over: milliseconds since 1970.
    pub born: u64,
    /// When the next step is overdue: milliseconds since 1970. None in final states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
    /// Attempts begun.
    pub attempt: u32,
    /// How often nobody knew whether the peer has it, since a person had it sent again, or ever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub doubts: u32,
    /// While it is being sent, the process that does so, as that gives its signs of life. The name of a worker will not do:
    /// a container that is started again has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// While its only copy is with the replica that holds the request or session it is for: the reply queue of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The provider's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// Id of the request that it answers, where a repeat of that request is answered from the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What its sender was told, encoded: published again when the message comes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// How many of `told` were told before a person had it sent again: they are history.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub told_before: usize,
    /// The message itself, as `retention.content` says, and while it waits to be published again. What Vumi's failure
    /// worker has is kept as what failed is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Content>,
    /// What happened.
    pub steps: Vec<Step>,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// Whom an overdue row is left to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftTo {
    /// To rules: its row says what is to be done.
    Rules,
    /// To whoever has its message, or a person: it waits in a queue, in the journal, with Vumi's failure worker or in
    /// parking, and nobody told its sender anything. That it is overdue is an alarm and no more.
    Person,
}

/// A change of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The step; its state is the new one.
    pub step: Step,
    /// New state.
    pub state: RowState,
    /// Until when the next step is due, from now; ignored for final states.
    pub patience: Duration,
    /// The provider's id, if it gave one.
    pub remote_id: Option<String>,
    /// What its sender is told by this step.
    pub told: Vec<String>,
}

impl Row {
    /// A row before its first step.
    pub fn new(message_id: &str, account: &str, born: u64) -> Self {
        Self {
            message_id: message_id.to_owned(),
            account: account.to_owned(),
            state: RowState::Accepted,
            version: 0,
            person: None,
            class: String::new(),
            batch: None,
            tenant: None,
            born,
            deadline: None,
            attempt: 0,
            doubts: 0,
            sender: None,
            holder: None,
            remote_id: None,
            request: None,
            told: Vec::new(),
            told_before: 0,
            body: None,
            steps: Vec::new(),
        }
    }

    /// The row after a step; none if it is final, since nothing follows.
    pub fn after(&self, change: Change) -> Option<Self> {
        (!self.state.is_final()).then(|| self.stepped(change))
    }

    /// The row after a person had its message sent again: the one step that may follow a final one. What was told of its
    /// end is history from then on.
    pub fn reopened(&self, change: Change) -> Self {
        let mut row = self.stepped(change);
        row.doubts = 0;
        row.holder = None;
        if self.state != RowState::Unknown {
            row.told_before = row.told.len();
        }
        row
    }

    /// Whom it is left to once it is overdue.
    pub fn left_to(&self) -> LeftTo {
        let waits = match self.state {
            RowState::Accepted | RowState::Held | RowState::Parked => true,
            RowState::Queued => self.body.is_none() || self.is_external(),
            _ => false,
        };
        match waits && self.holder.is_none() && self.verdict().is_none() {
            true => LeftTo::Person,
            false => LeftTo::Rules,
        }
    }

    /// What its sender was told since a person had it sent again, or ever.
    pub(crate) fn told_now(&self) -> impl Iterator<Item = Event> {
        let told = self.told.iter().skip(self.told_before);
        told.filter_map(|body| Event::decode(body.as_bytes()).ok())
    }

    /// The one ack or nack that its sender was told, or what stands in its place.
    pub(crate) fn verdict(&self) -> Option<Event> {
        self.told_now().find(verdict::is_verdict)
    }

    /// Since when it is as it is: milliseconds since 1970.
    pub(crate) fn since(&self) -> u64 {
        self.steps.last().map_or(self.born, |step| step.at)
    }

    /// Whether Vumi's failure worker has its message, and is to give it back (`retry.external`).
    pub fn is_external(&self) -> bool {
        let last = self.steps.last();
        self.state == RowState::Queued
            && last.is_some_and(|step| step.code == codes::RETRY_EXTERNAL.name)
    }

    fn stepped(&self, change: Change) -> Self {
        let mut row = self.clone();
        let Change {
            mut step,
            state,
            patience,
            remote_id,
            told,
        } = change;
        row.version += 1;
        row.doubts += u32::from(state == RowState::Unknown && row.state != state);
        row.state = state;
        if !state.is_open() {
            row.holder = None;
        }
        row.attempt = row.attempt.max(step.attempt);
        let patience = crate::clock::millis(patience);
        row.deadline = (!state.is_final()).then(|| step.at.saturating_add(patience));
        row.remote_id = remote_id.or(row.remote_id);
        row.told.extend(told);
        step.state = Some(state);
        if row.steps.len() >= MAX_STEPS {
            row.steps.remove(MAX_STEPS / 2);
        }
        row.steps.push(step);
        row
    }

    /// With a copy of its message in a queue that outlives whoever had the only one.
    pub fn freed(&self) -> Cow<'_, Self> {
        match self.holder {
            None => Cow::Borrowed(self),
            Some(_) => Cow::Owned(Self {
                holder: None,
                ..self.clone()
            }),
        }
    }

    /// After its message was published to its queue: that has it from now on.
    pub fn published(&self, at: u64, patience: Duration) -> Self {
        Self {
            body: None,
            ..self.waiting(at, patience)
        }
    }

    /// With its content kept no longer.
    pub fn without_content(&self) -> Self {
        Self {
            version: self.version + 1,
            body: None,
            ..self.clone()
        }
    }

    /// Where it stays, with more time until the next step is due.
    pub fn waiting(&self, at: u64, patience: Duration) -> Self {
        let patience = crate::clock::millis(patience);
        Self {
            version: self.version + 1,
            deadline: Some(at.saturating_add(patience)),
            ..self.clone()
        }
    }
}

/// What a compare-and-set did.
#[derive(Clone, Debug, PartialEq)]
pub enum Put {
    /// The row is stored.
    Stored,
    /// There is another one, and it stays.
    Conflict(Box<Row>),
}

/// A hop of a message that has no row of its own there.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Id of the message.
    pub message_id: String,
    /// [`super::Person::key`] of the user it is from or for.
    pub person: Option<String>,
    /// What happened.
    pub step: Step,
}

/// Which rows and trails are wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Query {
    /// One message.
    Message(String),
    /// Those of a person, by [`super::Person::key`].
    Person(String),
    /// Rows born, and trails begun, from one time up to and at another (milliseconds since 1970).
    Between(u64, u64),
}

/// How many rows there are, by account and state.
pub type Counts = BTreeMap<(String, RowState), u64>;

/// Operations on the ledger.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Stores `row` if the stored one has version `expected` (none: if there is none). One that was erased meanwhile is
    /// stored anew. `keep` is how long a final row is kept from now; rows that are not final are kept until they are.
    async fn put(&self, row: &Row, expected: Option<u64>, keep: Duration)
    -> Result<Put, WorkError>;

    /// The row of a message.
    async fn row(&self, message_id: &str) -> Result<Option<Row>, WorkError>;

    /// The row of the message to which the provider of `account` gave `remote_id`; none if there is none or several.
    async fn by_remote_id(&self, account: &str, remote_id: &str) -> Result<Option<Row>, WorkError>;

    /// A sign of life of a process that sends (as in [`Row::sender`]), good for `hold`. Gone with the store's memory: it
    /// survives nothing.
    async fn live(&self, sender: &str, hold: Duration) -> Result<(), WorkError>;

    /// Whether its last sign of life is still good.
    async fn lives(&self, sender: &str) -> Result<bool, WorkError>;

    /// Adds to the trails of messages, kept for `keep` from the first note of each. Of a long trail the middle goes, as
    /// from a row ([`MAX_STEPS`]).
    async fn note(&self, notes: &[Note], keep: Duration) -> Result<(), WorkError>;

    /// The trail of a message, in order of time.
    async fn trail(&self, message_id: &str) -> Result<Vec<Step>, WorkError>;

    /// Ids of messages with a row or a trail, newest first, at most `limit`.
    async fn find(&self, query: &Query, limit: usize) -> Result<Vec<String>, WorkError>;

    /// Rows by account and state.
    async fn counts(&self) -> Result<Counts, WorkError>;

    /// How many rows of an account are overdue and left to whom, and the ids of at most `limit` of them after the first
    /// `skip`, longest overdue first.
    async fn overdue(
        &self,
        account: &str,
        left_to: LeftTo,
        skip: usize,
        limit: usize,
    ) -> Result<(u64, Vec<String>), WorkError>;

    /// Ids of the rows of an account in a state, at most `limit`, oldest first.
    async fn in_state(
        &self,
        account: &str,
        state: RowState,
        limit: usize,
    ) -> Result<Vec<String>, WorkError>;
}

/// The row of one message among others: none, and a line in the log, if it cannot be read.
pub(crate) async fn readable_row(
    ledger: &(impl Ledger + ?Sized),
    message_id: &str,
) -> Result<Option<Row>, WorkError> {
    match ledger.row(message_id).await {
        Err(error) if error.code == codes::STATE_UNREADABLE => {
            tracing::warn!(message_id, code = %error.code, reason = %error, "the row of a message cannot be read");
            Ok(None)
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(state: RowState, at: u64) -> Change {
        Change {
            step: Step {
                at,
                worker: "transport/sms".into(),
                state: None,
                attempt: 1,
                code: String::new(),
                class: String::new(),
                text: "went on".into(),
                who: String::new(),
                caused: Vec::new(),
                holder: None,
            },
            state,
            patience: Duration::from_secs(60),
            remote_id: None,
            told: Vec::new(),
        }
    }

    #[test]
    fn nothing_follows_a_final_state() {
        for state in RowState::ALL {
            let row = Row::new("m", "sms", 1).after(change(state, 2));
            let row = row.expect("the first step");
            assert_eq!(
                row.after(change(RowState::Sent, 3)).is_none(),
                state.is_final()
            );
            assert_eq!(row.deadline.is_none(), state.is_final());
        }
    }

    #[test]
    fn doubts_are_counted_though_steps_are_left_out_and_begin_anew_with_a_person() {
        let mut row = Row::new("m", "sms", 1);
        for _ in 0..2 * MAX_STEPS {
            for state in [
                RowState::Sending,
                RowState::Unknown,
                RowState::Unknown,
                RowState::Queued,
            ] {
                row = row.after(change(state, 2)).expect("not final");
            }
        }
        assert_eq!(row.doubts as usize, 2 * MAX_STEPS);
        assert_eq!(row.reopened(change(RowState::Queued, 3)).doubts, 0);
    }

    proptest! {
        #[test]
        fn a_row_stays_small_and_keeps_its_first_and_last_steps(count in 1u64..200) {
            let mut row = Row::new("m", "sms", 1);
            for at in 0..count {
                row = row.after(change(RowState::Queued, at)).expect("not final");
            }
            prop_assert!(row.steps.len() <= MAX_STEPS);
            prop_assert_eq!(row.steps[0].at, 0);
            prop_assert_eq!(row.steps.last().map(|s| s.at), Some(count - 1));
            prop_assert_eq!(row.version, count);
        }
    }
}
