//! Rows that a person closes because their message is nowhere any more: its queue was purged, a broker's disk was lost, or
//! Vumi's failure worker lost it. Nothing else ever ends such a row.
//!
//! Only messages that no peer can have are meant. Where a message may still be somewhere, its row is left alone; if it turns
//! up all the same, its row says that it ended, and it is not sent.

use crate::broker::Broker;
use crate::codes;
use crate::engine::may_be_withdrawn;
use crate::error::WorkError;
use crate::journal_desk;
use crate::message::glance::Glance;
use crate::parking::{self, KEPT_LIMIT};
use crate::resend::{Chosen, Summary};
use crate::state::StateStore;
use crate::state::journal::Filter;
use crate::state::ledger::{Row, RowState};
use crate::withdraw::{Ended, Ending, Withdrawal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vumi_api::{Flow, Port};

/// Messages of one place that are compared one by one.
const COMPARED: usize = KEPT_LIMIT as usize;

/// Where no states are named, rows in these are meant: their message waits, or is set aside.
const MEANT: [RowState; 4] = [
    RowState::Accepted,
    RowState::Queued,
    RowState::Held,
    RowState::Parked,
];

/// Why nothing of a transport is closed whose broker is out of reach.
pub(crate) const NO_BROKER: &str =
    "closing takes the broker of its transport (--broker URL, or ask the process that runs it)";

const CLOSED: Ending = Ending {
    state: RowState::Cancelled,
    code: codes::LEDGER_CLOSED,
    text: "a person closed it: its message is nowhere any more",
};

/// What a closing did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// Rows that ended; whoever sent their messages was told.
    pub done: u64,
    /// Rows that did not, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Why it stopped before all were done; it says how to go on.
    pub stopped: Option<String>,
}

/// What is meant by a choice for closing.
pub(crate) fn meant(chosen: &Chosen) -> Chosen {
    let mut chosen = chosen.clone();
    // Named ones are shown whatever their state is, with the reason if they cannot be closed.
    if chosen.states.is_empty() && chosen.ids.is_empty() {
        chosen.states = MEANT.to_vec();
    }
    chosen
}

/// The rows of one transport in one store, and where their messages may be.
pub(crate) struct Close<'a> {
    /// The rows.
    pub(crate) store: &'a dyn StateStore,
    /// The broker of the transport's queues.
    pub(crate) broker: &'a dyn Broker,
    /// What endings are written to.
    pub(crate) withdrawal: Withdrawal<'a>,
    /// Name of the transport.
    pub(crate) account: &'a str,
    /// Its queues: the whole, and the parts that are known.
    pub(crate) queues: Vec<String>,
    /// Messages in hand of the process that is asked; none if none is.
    pub(crate) in_hand: Option<u64>,
    /// Closes also what may be in a queue, in hand, or with Vumi's failure worker.
    pub(crate) force: bool,
}

/// Where messages of a transport are.
#[derive(Default)]
struct Found {
    /// By id, what ends it there.
    kept: BTreeMap<String, &'static str>,
    /// There are more than were compared.
    is_cut: bool,
    /// Why any of its messages may be where nobody can look.
    unseen: Option<&'static str>,
}

impl Close<'_> {
    /// The rows that are meant, each with the reason if it is not closed.
    pub(crate) async fn list(&self, rows: &[Row]) -> Result<Vec<Summary>, WorkError> {
        let found = self.look().await?;
        let shown = |row: &Row| Summary::of(row, self.refusal(row, &found).map(str::to_owned));
        Ok(rows.iter().map(shown).collect())
    }

    /// Closes the rows that are meant, and tells who sent their messages; how many, into `done`.
    pub(crate) async fn all(&self, rows: &[Row], done: &mut Closed) -> Result<(), WorkError> {
        let found = self.look().await?;
        for row in rows {
            if let Some(why) = self.refusal(row, &found) {
                *done.refused.entry(why.to_owned()).or_default() += 1;
                continue;
            }
            let id = &row.message_id;
            match self.withdrawal.end(self.account, id, &CLOSED).await {
                Ok(Ended::Before) => {
                    let why = "its row was moved meanwhile";
                    *done.refused.entry(why.to_owned()).or_default() += 1;
                }
                Ok(Ended::Told | Ended::Untold) => {
                    done.done += 1;
                    tracing::info!(
                        message_id = id,
                        account = self.account,
                        code = CLOSED.code.name,
                        "closed by a person"
                    );
                }
                Err(mut error) => {
                    error.text += &format!(
                        "; `vumi ledger close {id}` ends that one and tells its sender, the same command the rest"
                    );
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Why a row is not closed; none if it may be.
    fn refusal(&self, row: &Row, found: &Found) -> Option<&'static str> {
        match row.state {
            // By an earlier try, which may not have told its sender.
            _ if CLOSED.is_of(row) => return None,
            RowState::Sending => {
                return Some("it is being sent, or was: its transport ends it within minutes");
            }
            RowState::Sent | RowState::Unknown => {
                return Some("the peer may have it: a receipt ends it, or its deadline");
            }
            state if state.is_final() => return Some("it has ended"),
            _ if !may_be_withdrawn(row) => return Some("its sender is being told how it ended"),
            _ => {}
        }
        if let Some(why) = found.kept.get(&row.message_id).copied() {
            return Some(why);
        }
        if found.is_cut {
            return Some(
                "more than 10000 messages of its transport wait in the journal or are set aside: they are not compared",
            );
        }
        if self.force {
            return None;
        }
        if row.is_external() {
            return Some("Vumi's failure worker has it (--force closes it)");
        }
        if row.holder.is_some() {
            return Some("the replica that holds its request has it (--force closes it)");
        }
        if row.body.is_some() {
            return Some("its transport publishes it again within minutes (--force closes it)");
        }
        found.unseen
    }

    async fn look(&self) -> Result<Found, WorkError> {
        let mut found = Found::default();
        let whole = Port::new(self.account, Flow::Outbound).queue();
        let all = Filter::default();
        for queue in journal_desk::queues(self.store, Some(&whole)).await? {
            found.is_cut |= self.store.depth(&queue).await?.messages > KEPT_LIMIT;
            let waiting = self.store.list(&queue, &all, COMPARED).await?;
            let waiting = waiting.into_iter().map(|listed| listed.entry);
            // What was taken out ends in a moment, with the code of whoever did it.
            let leaving = self.store.outgoing(&queue, COMPARED).await?;
            let leaving = leaving.into_iter().map(|outgoing| outgoing.entry);
            for entry in waiting.chain(leaving) {
                let why = "it waits in the journal: `vumi journal drop` ends it";
                let id = Glance::of(&entry.body).id();
                found.kept.extend(id.map(|id| (id, why)));
            }
        }
        let (mut ready, mut readers) = (0, 0);
        for queue in &self.queues {
            found.is_cut |= parking::depth(self.broker, queue).await? > KEPT_LIMIT;
            for parked in parking::list(self.broker, queue, COMPARED).await? {
                let why = "it is set aside: `vumi parked drop` ends it";
                found.kept.extend(parked.message_id.map(|id| (id, why)));
            }
            if let Some(depth) = self.broker.depth(queue).await? {
                ready += u64::from(depth.ready);
                readers = readers.max(depth.consumers);
            }
        }
        // Of several readers one at most is the process that is asked.
        let others = readers > u32::from(self.in_hand.is_some());
        found.unseen = match (ready, self.in_hand.unwrap_or_default()) {
            (0, 0) if !others => None,
            (0, _) => Some(
                "a worker of its transport has messages in hand, or may have (--force closes it)",
            ),
            _ => Some("messages wait in the queues of its transport (--force closes it)"),
        };
        Ok(found)
    }
}
