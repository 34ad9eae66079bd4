//! Messages of which a person decides that they are sent again (R17): those that failed, and those of which nobody knows.
//!
//! The row is moved first, with the content in it, and the message published then: if this process dies in between, the
//! transport publishes it. Its history stays, and its sender gets no second ack or nack (R11).

use crate::broker::{Broker, Confirmation, Publication, PublicationClass};
use crate::codes;
use crate::engine::{may_double, patience};
use crate::error::{ErrorClass, WorkError};
use crate::message::Message;
use crate::state::StateStore;
use crate::state::ledger::{Change, Content, Put, Row, RowState, Step, readable_row};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use vumi_api::{Flow, Port};

/// Messages that one command looks through and sends again, at most, per transport and state.
pub const LOOKED: usize = 10_000;

/// Which messages are meant. What is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Chosen {
    /// Name of the transport.
    #[serde(default)]
    pub account: Option<String>,
    /// These messages; else all that fit.
    #[serde(default)]
    pub ids: Vec<String>,
    /// In one of these states; if none is given, failed and unknown.
    #[serde(default)]
    pub states: Vec<RowState>,
    /// Of this failure class.
    #[serde(default)]
    pub class: Option<String>,
    /// With this code at their end.
    #[serde(default)]
    pub code: Option<String>,
    /// Of this batch.
    #[serde(default)]
    pub batch: Option<String>,
    /// For this person, by [`crate::state::Person::key`].
    #[serde(default)]
    pub person: Option<String>,
    /// In this state since then or later: milliseconds since 1970.
    #[serde(default)]
    pub since: Option<u64>,
}

/// A message that is meant, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The message.
    pub message_id: String,
    /// Name of the transport.
    pub account: String,
    /// Where it is.
    pub state: RowState,
    /// Since when: milliseconds since 1970.
    pub since: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// Failure class; empty if nothing failed.
    pub class: String,
    /// The provider's code or ours; empty if there is none.
    pub code: String,
    /// A plain sentence.
    pub text: String,
    /// Whether the peer may have it: then its user may get it twice.
    pub may_double: bool,
    /// Why it cannot be sent again, or closed; none if it can.
    pub refused: Option<String>,
}

/// What a resend did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resent {
    /// Messages published again.
    pub done: u64,
    /// Of these, those that the peer may have had.
    pub may_double: u64,
    /// Messages that were not, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Why it stopped before all were done; the same command goes on.
    pub stopped: Option<String>,
}

/// Why a message is not sent again; none if it may be. `force` sends again what the peer has, a person ended, or Vumi's
/// failure worker is to give back.
fn refusal(row: &Row, force: bool) -> Option<&'static str> {
    let on_its_way = "it waits to be sent, or is being sent";
    match row.state {
        RowState::Queued if row.is_external() && row.body.is_none() => {
            return Some(
                "Vumi's failure worker has it, and its content is not kept, or not any more: see `retention.content` and `retention.ledger`; `vumi ledger close --force` ends it",
            );
        }
        RowState::Queued if row.is_external() && force => {}
        RowState::Queued if row.is_external() => {
            return Some("Vumi's failure worker has it (--force sends it again)");
        }
        RowState::Accepted | RowState::Queued | RowState::Held | RowState::Sending => {
            return Some(on_its_way);
        }
        RowState::Parked => return Some("it is set aside: `vumi parked requeue` sends it"),
        RowState::Delivered if !force => return Some("it is delivered (--force sends it again)"),
        RowState::Sent | RowState::SentFinal if !force => {
            return Some("the peer has it (--force sends it again)");
        }
        RowState::Expired | RowState::Cancelled if !force => {
            return Some("it was withdrawn (--force sends it again)");
        }
        _ => {}
    }
    match row.body {
        Some(_) => None,
        None => Some("its content is not kept: see `retention.content`"),
    }
}

impl Chosen {
    fn fits(&self, row: &Row) -> bool {
        let last = row.steps.last();
        let is = |wanted: &Option<String>, of: fn(&Step) -> &str| {
            wanted
                .as_deref()
                .is_none_or(|wanted| last.is_some_and(|step| of(step) == wanted))
        };
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        self.states().contains(&row.state)
            && same(&self.account, Some(&row.account))
            && is(&self.class, |step| &step.class)
            && is(&self.code, |step| &step.code)
            && same(&self.batch, row.batch.as_deref())
            && same(&self.person, row.person.as_deref())
            && self
                .since
                .is_none_or(|since| last.is_some_and(|step| step.at >= since))
    }

    fn states(&self) -> &[RowState] {
        match self.states.as_slice() {
            // Named ones are shown whatever their state is, with the reason if they cannot be sent.
            [] if !self.ids.is_empty() => &RowState::ALL,
            [] => &[RowState::Failed, RowState::Unknown],
            states => states,
        }
    }

    /// The rows that are meant, oldest first in each state.
    pub(crate) async fn rows(&self, store: &dyn StateStore) -> Result<Vec<Row>, WorkError> {
        let mut ids = self.ids.clone();
        if ids.is_empty() {
            let counts = store.counts().await?;
            for (account, state) in counts.keys() {
                let wanted = self.account.as_ref().is_none_or(|wanted| wanted == account);
                if wanted && self.states().contains(state) {
                    ids.extend(store.in_state(account, *state, LOOKED).await?);
                }
            }
        }
        let mut rows = Vec::new();
        for id in ids {
            let row = readable_row(store, &id).await?;
            rows.extend(row.filter(|row| self.fits(row)));
        }
        Ok(rows)
    }
}

/// The messages that are meant.
pub async fn list(
    store: &dyn StateStore,
    chosen: &Chosen,
    force: bool,
) -> Result<Vec<Summary>, WorkError> {
    let rows = chosen.rows(store).await?;
    Ok(rows.iter().map(|row| summary(row, force)).collect())
}

fn summary(row: &Row, force: bool) -> Summary {
    Summary::of(row, refusal(row, force).map(str::to_owned))
}

impl Summary {
    /// What is shown of a row that is meant, and why nothing is to be done with it, if so.
    pub(crate) fn of(row: &Row, refused: Option<String>) -> Self {
        let last = row.steps.last();
        let text = |of: fn(&Step) -> &String| last.map(of).cloned().unwrap_or_default();
        Self {
            message_id: row.message_id.clone(),
            account: row.account.clone(),
            state: row.state,
            since: row.since(),
            attempts: row.attempt,
            class: text(|step| &step.class),
            code: text(|step| &step.code),
            text: text(|step| &step.text),
            may_double: may_double(row),
            refused,
        }
    }
}

/// Where rows and queues are.
#[derive(Clone, Copy)]
pub struct Resend<'a> {
    /// The rows.
    pub store: &'a dyn StateStore,
    /// The broker of the transport's queues.
    pub broker: &'a dyn Broker,
    /// Sends again what the peer has, a person ended, or Vumi's failure worker is to give back.
    pub force: bool,
}

impl Resend<'_> {
    /// Sends the messages that are meant again; how many, into `done`. What fails on the way is left as it was, or is
    /// published by its transport.
    pub async fn all(&self, chosen: &Chosen, done: &mut Resent) -> Result<(), WorkError> {
        for row in chosen.rows(self.store).await? {
            match refusal(&row, self.force) {
                Some(why) => *done.refused.entry(why.to_owned()).or_default() += 1,
                None => self.one(row, done).await?,
            }
        }
        Ok(())
    }

    async fn one(&self, row: Row, done: &mut Resent) -> Result<(), WorkError> {
        let queue = Port::new(&row.account, Flow::Outbound).queue();
        if self.broker.depth(&queue).await?.is_none() {
            return Err(WorkError::new(
                ErrorClass::Config,
                codes::ROUTE_NO_QUEUE,
                format!("there is no queue {queue} on this broker"),
            ));
        }
        let Some(mut message) = row.body.as_ref().and_then(Content::message) else {
            let why = "its content cannot be read";
            *done.refused.entry(why.to_owned()).or_default() += 1;
            return Ok(());
        };
        message.forget_retries();
        let doubles = may_double(&row);
        let (code, text) = match doubles {
            true => (
                codes::FATE_SENT_AGAIN,
                "a person had it sent again although the peer may have it",
            ),
            false => (codes::LEDGER_RESENT, "a person had it sent again"),
        };
        let step = Step::of_a_person(row.attempt, code, text);
        let at = step.at;
        let mut next = row.reopened(Change {
            step,
            state: RowState::Queued,
            patience: patience::SENT_BACK,
            remote_id: None,
            told: Vec::new(),
        });
        next.body.clone_from(&row.body);
        // Rows that are not final are kept.
        let keep = Duration::ZERO;
        if let Put::Conflict(_) = self.store.put(&next, Some(row.version), keep).await? {
            let why = "its row was moved meanwhile";
            *done.refused.entry(why.to_owned()).or_default() += 1;
            return Ok(());
        }
        let publication = Publication {
            exchange: String::new(),
            routing_key: queue.clone(),
            message_id: Some(row.message_id.clone()),
            body: Message::User(message).encode(),
            class: PublicationClass::Direct,
        };
        let receipt = self.broker.publish(publication).await;
        match receipt.confirmation().await {
            Confirmation::Confirmed => {}
            other => {
                return Err(WorkError::new(
                    ErrorClass::Connect,
                    codes::BROKER_UNREACHABLE,
                    format!(
                        "the broker did not take {} for {queue}: {other:?}; its transport publishes it within minutes",
                        row.message_id
                    ),
                ));
            }
        }
        let given = next.published(at, patience::CLASS);
        // Whoever moved it meanwhile has the message.
        self.store.put(&given, Some(next.version), keep).await?;
        done.done += 1;
        done.may_double += u64::from(doubles);
        tracing::info!(
            message_id = row.message_id,
            account = row.account,
            may_double = doubles,
            code = code.name,
            "sent again by a person"
        );
        Ok(())
    }
}
