//! The audit of the ledger (R10): every row that is not final must have its message somewhere. The comparison is a pure
//! function over numbers; what gathers them is beside it. At rest the imbalance is 0.

use crate::broker::Broker;
use crate::codes;
use crate::error::WorkError;
use crate::journal_desk::is_of;
use crate::message::FailureMessage;
use crate::message::glance::Glance;
use crate::parking;
use crate::state::StateStore;
use crate::state::ledger::{RowState, readable_row};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vumi_api::{Flow, Port};

/// Messages of one queue that are compared one by one; beyond them, numbers alone are.
const ONE_BY_ONE: usize = 10_000;

/// What is stored of messages in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Messages whose row says that they are there, or that were not compared one by one.
    pub expected: u64,
    /// Messages without a row: not taken over yet, or not messages at all.
    pub without_row: u64,
    /// Messages whose row is final although they are still there.
    pub finished: u64,
}

/// What was found about one transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Rows that are not final, by state.
    pub rows: BTreeMap<RowState, u64>,
    /// In its journal.
    pub journal: Stored,
    /// In its parking queues; none if no broker was asked.
    pub parked: Option<Stored>,
    /// Ready in its queues; none if no broker was asked.
    pub ready: Option<u64>,
    /// In hand of the process that was asked; none if none was.
    pub in_flight: Option<u64>,
    /// With Vumi's failure worker, which is to give them back: so many at most, since some of them may be ready again. Looked for
    /// where the others do not account for all rows, and there is such a worker.
    #[serde(default)]
    pub external: u64,
}

/// The verdict about one transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Name of the transport.
    pub account: String,
    /// What was found.
    pub found: Found,
    /// Rows that wait, with no message anywhere: lost, unless another process has it in hand.
    pub missing: u64,
    /// Rows that say parked, with no such message in the parking queues.
    pub missing_parked: u64,
    /// Messages that wait although their row is final.
    pub finished: u64,
    /// Whether nothing was on its way: only then are the numbers of one moment.
    pub at_rest: bool,
}

impl Balance {
    /// 0 when ledger and messages agree.
    pub fn imbalance(&self) -> u64 {
        self.missing + self.missing_parked + self.finished
    }
}

/// Compares what was found about one transport; pure.
pub fn balance(account: &str, found: Found) -> Balance {
    let rows = |state| found.rows.get(&state).copied().unwrap_or_default();
    let open = found.rows.iter().filter(|(state, _)| state.is_open());
    let waiting: u64 = open.map(|(_, count)| *count).sum();
    let on_the_way = found.ready.unwrap_or_default() + found.in_flight.unwrap_or_default();
    // What waits without a row of its own stands for none.
    let messages = found.journal.expected + found.external + on_the_way;
    let parked = found.parked.unwrap_or_default();
    Balance {
        account: account.to_owned(),
        missing: waiting.saturating_sub(messages),
        missing_parked: match found.parked {
            Some(parked) => rows(RowState::Parked).saturating_sub(parked.expected),
            None => 0,
        },
        finished: found.journal.finished + parked.finished,
        at_rest: on_the_way == 0,
        found,
    }
}

/// A process or a broker that is asked besides the store.
#[derive(Default)]
pub struct Sources {
    /// Consumed outbound queues, each with its broker.
    pub queues: BTreeMap<String, Arc<dyn Broker>>,
    /// Messages in hand, by transport name; none without a process.
    pub in_flight: Option<BTreeMap<String, u64>>,
}

/// Audits every transport that has rows in `store`, journals there, or queues among `sources`.
pub async fn audit(store: &dyn StateStore, sources: &Sources) -> Result<Vec<Balance>, WorkError> {
    let mut rows: BTreeMap<String, BTreeMap<RowState, u64>> = BTreeMap::new();
    for ((account, state), count) in store.counts().await? {
        let open = rows.entry(account).or_default();
        if !state.is_final() {
            open.insert(state, count);
        }
    }
    let journals: BTreeSet<String> = store.queues().await?.into_iter().collect();
    let mut accounts: BTreeSet<String> = rows.keys().cloned().collect();
    let queues = journals.iter().chain(sources.queues.keys());
    accounts.extend(
        queues
            .filter_map(|queue| account_of(queue))
            .map(str::to_owned),
    );
    let mut balances = Vec::new();
    for account in accounts {
        let mine = |queue: &&String| account_of(queue) == Some(account.as_str());
        let mut found = Found {
            rows: rows.remove(&account).unwrap_or_default(),
            ..Found::default()
        };
        for queue in journals.iter().filter(mine) {
            found.journal.add(journal(store, queue).await?);
        }
        for (queue, broker) in sources.queues.iter().filter(|(queue, _)| mine(queue)) {
            let ready = broker.ready(queue).await?;
            *found.ready.get_or_insert_default() += u64::from(ready);
            let parked = parked(store, &**broker, queue).await?;
            found.parked.get_or_insert_default().add(parked);
        }
        let hands = sources.in_flight.as_ref();
        found.in_flight = hands.map(|hands| hands.get(&account).copied().unwrap_or_default());
        let broker = sources.queues.iter().find(|(queue, _)| mine(queue));
        // Nobody was given anything where there is no failure worker; else each row must be read.
        let failures = FailureMessage::routing_key(&account);
        if let Some((_, broker)) = broker
            && balance(&account, found.clone()).missing > 0
            && broker.depth(&failures).await?.is_some()
        {
            found.external = external(store, &account, &found).await?;
        }
        balances.push(balance(&account, found));
    }
    Ok(balances)
}

/// Rows of a transport that say that Vumi's failure worker has their message. Their state is that of others that wait, so each
/// is looked at.
async fn external(store: &dyn StateStore, account: &str, found: &Found) -> Result<u64, WorkError> {
    let queued = found.rows.get(&RowState::Queued).copied();
    let limit = usize::try_from(queued.unwrap_or_default()).unwrap_or(usize::MAX);
    let mut external = 0;
    for id in store.in_state(account, RowState::Queued, limit).await? {
        let row = readable_row(store, &id).await?;
        external += u64::from(row.is_some_and(|row| row.is_external()));
    }
    Ok(external)
}

/// The transport (or exposed name) that an outbound queue belongs to; none for other queues.
pub fn account_of(queue: &str) -> Option<&str> {
    let outbound = Port::new("", Flow::Outbound).queue();
    let (account, _) = queue.rsplit_once(&outbound)?;
    is_of(queue, &Port::new(account, Flow::Outbound).queue()).then_some(account)
}

async fn journal(store: &dyn StateStore, queue: &str) -> Result<Stored, WorkError> {
    let depth = store.depth(queue).await?.messages;
    let mut stored = Stored::default();
    if depth > ONE_BY_ONE as u64 {
        stored.expected = depth;
        return Ok(stored);
    }
    for listed in store.list(queue, &Default::default(), ONE_BY_ONE).await? {
        let id = Glance::of(&listed.entry.body).id();
        stored
            .count(store, id.as_deref(), |state| !state.is_final())
            .await?;
    }
    // What was taken out of it ends in a moment; whether its row has ended yet says nothing.
    for outgoing in store.outgoing(queue, ONE_BY_ONE).await? {
        let id = Glance::of(&outgoing.entry.body).id();
        let expected = match state_of(store, id.as_deref()).await? {
            Known::Nothing => false,
            Known::Row(state) => !state.is_final(),
            Known::Unreadable => true,
        };
        stored.expected += u64::from(expected);
    }
    Ok(stored)
}

async fn parked(
    store: &dyn StateStore,
    broker: &dyn Broker,
    queue: &str,
) -> Result<Stored, WorkError> {
    let depth = parking::depth(broker, queue).await?;
    let mut stored = Stored::default();
    if depth > ONE_BY_ONE as u64 {
        stored.expected = depth;
        return Ok(stored);
    }
    for summary in parking::list(broker, queue, ONE_BY_ONE).await? {
        let id = summary.message_id.as_deref();
        stored
            .count(store, id, |state| state == RowState::Parked)
            .await?;
    }
    Ok(stored)
}

impl Stored {
    fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.without_row += other.without_row;
        self.finished += other.finished;
    }

    async fn count(
        &mut self,
        store: &dyn StateStore,
        id: Option<&str>,
        expected: impl Fn(RowState) -> bool,
    ) -> Result<(), WorkError> {
        match state_of(store, id).await? {
            Known::Row(state) if expected(state) => self.expected += 1,
            Known::Row(state) if state.is_final() => self.finished += 1,
            // It is counted among the rows of whatever state it has.
            Known::Unreadable => self.expected += 1,
            Known::Row(_) | Known::Nothing => self.without_row += 1,
        }
        Ok(())
    }
}

/// What the ledger says of a message.
enum Known {
    /// It has no row.
    Nothing,
    Row(RowState),
    /// It has one that cannot be read.
    Unreadable,
}

async fn state_of(store: &dyn StateStore, id: Option<&str>) -> Result<Known, WorkError> {
    let Some(id) = id else {
        return Ok(Known::Nothing);
    };
    match store.row(id).await {
        Ok(row) => Ok(row.map_or(Known::Nothing, |row| Known::Row(row.state))),
        Err(error) if error.code == codes::STATE_UNREADABLE => Ok(Known::Unreadable),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[(RowState, u64)], journal: u64, on_the_way: u64) -> Found {
        Found {
            rows: rows.iter().copied().collect(),
            journal: Stored {
                expected: journal,
                ..Stored::default()
            },
            parked: Some(Stored::default()),
            ready: Some(0),
            in_flight: Some(on_the_way),
            external: 0,
        }
    }

    #[test]
    fn every_waiting_row_has_its_message_and_every_parked_one_too() {
        let rest = balance(
            "sms",
            found(&[(RowState::Held, 3), (RowState::Sent, 9)], 3, 0),
        );
        assert_eq!((rest.imbalance(), rest.at_rest), (0, true));
        let lost = balance(
            "sms",
            found(&[(RowState::Held, 3), (RowState::Queued, 1)], 3, 0),
        );
        assert_eq!((lost.missing, lost.imbalance()), (1, 1));
        let mut elsewhere = found(&[(RowState::Queued, 3)], 0, 0);
        elsewhere.external = 2;
        assert_eq!(balance("sms", elsewhere).missing, 1);
        let moving = balance("sms", found(&[(RowState::Sending, 2)], 0, 5));
        assert_eq!((moving.imbalance(), moving.at_rest), (0, false));
        let mut parked = found(&[(RowState::Parked, 2)], 0, 0);
        assert_eq!(balance("sms", parked.clone()).missing_parked, 2);
        parked.parked = Some(Stored {
            expected: 2,
            without_row: 4,
            finished: 0,
        });
        assert_eq!(balance("sms", parked.clone()).imbalance(), 0);
        parked.parked = None;
        let unasked = balance("sms", parked);
        assert_eq!(unasked.imbalance(), 0, "nobody looked");
    }

    #[test]
    fn a_message_that_waits_although_its_row_ended_is_an_imbalance() {
        let mut ended = found(&[], 0, 0);
        ended.journal.finished = 1;
        assert_eq!(balance("sms", ended).imbalance(), 1);
    }

    #[test]
    fn outbound_queues_belong_to_their_transport() {
        for (queue, account) in [
            ("sms.outbound", Some("sms")),
            ("a.b.outbound.p3", Some("a.b")),
            ("sms.outbound.bulk.p1", Some("sms")),
            ("sms.inbound", None),
            ("sms.outbounds", None),
            ("sms.outbound.za.inbound", None),
        ] {
            assert_eq!(account_of(queue), account, "{queue}");
        }
    }
}
