//! What operators ask about what is kept: one list of questions, answered the same by a running process about its stores
//! and queues, and by a command about a store (and broker) that it was given.

mod batch_orders;
mod closing;
mod names;
mod unbegun;

use crate::audit::{self, Balance};
use crate::batch_desk;
use crate::broker::Broker;
use crate::codes;
use crate::erase::{self, Places};
use crate::error::{ErrorClass, WorkError};
use crate::journal_desk::{self, Counted, Dropped, Released};
use crate::message::Timestamp;
use crate::resend::{self, Chosen, Resend, Resent};
use crate::state::batches::Order;
use crate::state::journal::Filter;
use crate::state::ledger::{LeftTo, Row, RowState, readable_row};
use crate::state::person::NoAddress;
use crate::state::{Person, StateStore};
use crate::why::{self, Question, Sender};
use crate::withdraw::Withdrawal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::Retention;
use vumi_api::{Flow, Port};

/// Most entries of one answer.
pub const MAX_LISTED: usize = 1000;
/// What is being sent for so many milliseconds is listed beside what is overdue.
const LONG: u64 = 2000;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", deny_unknown_fields)]
pub enum Ask {
    /// Messages that wait in journals: a list of [`journal_desk::Summary`].
    JournalList {
        /// Consumed queue, with those that it is divided into; without it, all that have a journal.
        queue: Option<String>,
        /// Which ones.
        filter: Filter,
        /// How many at most, per queue.
        limit: usize,
    },
    /// How many messages are meant: [`Counted`].
    JournalCount {
        /// Consumed queue.
        queue: String,
        /// Which ones.
        filter: Filter,
    },
    /// Makes their lanes due now: [`Released`].
    JournalRelease {
        /// Consumed queue.
        queue: String,
        /// Which ones.
        filter: Filter,
    },
    /// Removes them for good: [`Dropped`].
    JournalDrop {
        /// Consumed queue.
        queue: String,
        /// Which ones.
        filter: Filter,
    },
    /// Batches and the orders in force: a list of [`batch_desk::Summary`].
    BatchList {
        /// Label; without it, all.
        batch: Option<String>,
        /// Name of the transport; without it, all.
        account: Option<String>,
    },
    /// Puts an order in force for a batch of one transport, in place of the one before, or lifts it: nothing. One that
    /// could not be obeyed is refused.
    BatchOrder {
        /// Label.
        batch: String,
        /// Name of the transport.
        account: String,
        /// None lifts it.
        order: Option<Order>,
    },
    /// How many messages are ready in the queues of a transport before it begins with them, of any batch: a number, or null
    /// where no broker says it. Those in hand and in a journal are not among them.
    Unbegun {
        /// Name of the transport.
        account: String,
    },
    /// Compares the ledger with the messages: a list of [`Balance`].
    LedgerAudit,
    /// Rows by transport and state: a list of [`RowCount`].
    LedgerCounts,
    /// Rows without news for too long: a list of [`Overdue`].
    LedgerOverdue {
        /// Name of the transport; without it, all.
        account: Option<String>,
        /// How many of each transport.
        limit: usize,
    },
    /// Messages that may be sent again: a list of [`resend::Summary`].
    LedgerResendable {
        /// Which ones.
        chosen: resend::Chosen,
        /// What the peer has, or a person ended, may be sent again as well.
        force: bool,
    },
    /// Sends them again: [`resend::Resent`].
    LedgerResend {
        /// Which ones.
        chosen: resend::Chosen,
        /// What the peer has, or a person ended, is sent again as well.
        force: bool,
    },
    /// Rows that may be closed since their message is nowhere any more: a list of [`resend::Summary`].
    LedgerClosable {
        /// Which ones; if no states are given, those that wait or are set aside.
        chosen: resend::Chosen,
        /// What may be in a queue, in hand or with Vumi's failure worker may be closed as well.
        force: bool,
    },
    /// Ends them as cancelled, and tells who sent their messages: [`crate::close::Closed`].
    LedgerClose {
        /// Which ones.
        chosen: resend::Chosen,
        /// What may be in a queue, in hand or with Vumi's failure worker is closed as well.
        force: bool,
    },
    /// A [`why::Answer`].
    Why {
        /// About what.
        question: Question,
        /// How many messages at most.
        limit: usize,
    },
    /// An [`erase::Report`].
    Erase {
        /// The person's address.
        address: String,
        /// Only says what would be removed.
        dry_run: bool,
    },
}

/// Rows of one transport in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RowCount {
    /// Name of the transport.
    pub account: String,
    /// The state.
    pub state: RowState,
    /// How many.
    pub count: u64,
}

/// Overdue rows of one transport.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overdue {
    /// Name of the transport.
    pub account: String,
    /// How many.
    pub count: u64,
    /// Some of them, longest overdue first.
    pub rows: Vec<OverdueRow>,
    /// Messages that are being sent for longer than usual, overdue or not, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sending: Vec<BeingSent>,
}

/// A message that is being sent: where order is kept, its user's next messages wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BeingSent {
    /// The message.
    pub message_id: String,
    /// Who is sending it, since when and until when.
    pub sender: Sender,
}

/// A row without news for too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverdueRow {
    /// The message.
    pub message_id: String,
    /// Where it is; none if its row cannot be read.
    pub state: Option<RowState>,
    /// When its next step was due: milliseconds since 1970; 0 if that is not known.
    pub deadline: u64,
    /// The last thing that is known.
    pub text: String,
}

/// A consumed queue within reach.
#[derive(Clone)]
pub struct Consumed {
    /// Its broker; none if none was named.
    pub broker: Option<Arc<dyn Broker>>,
    /// Place of its worker's store among [`Reach::stores`].
    pub store: Option<usize>,
    /// How long rows of its messages are kept once they are final.
    pub keep: Duration,
    /// Kind and name of its worker; empty if it is not known.
    pub worker: String,
    /// How long messages may wait in its journal; none for as long as it takes.
    pub journal: Option<Duration>,
    /// Whether it is the outbound queue of a transport with classes, or of one without; none if that is not known.
    pub classes: Option<bool>,
    /// Whether it is the outbound queue of a transport that answers requests and can send nothing of its own.
    pub only_answers: bool,
}

/// What is within reach of whoever answers.
#[derive(Clone, Default)]
pub struct Reach {
    /// State stores, each once.
    pub stores: Vec<Arc<dyn StateStore>>,
    /// Consumed queues.
    pub queues: BTreeMap<String, Consumed>,
    /// Messages in hand, by transport name; none without a process.
    pub in_flight: Option<BTreeMap<String, u64>>,
}

/// Answers.
///
/// # Errors
/// [`codes::STATE_NONE`] if there is no store to ask, else what stores and brokers say.
pub async fn answer(reach: &Reach, ask: Ask) -> Result<Value, WorkError> {
    if reach.stores.is_empty() && !matches!(ask, Ask::Erase { .. }) {
        return Err(WorkError::new(
            ErrorClass::Config,
            codes::STATE_NONE,
            "no worker here has a state store",
        ));
    }
    match ask {
        Ask::JournalList {
            queue,
            filter,
            limit,
        } => {
            let limit = limit.clamp(1, MAX_LISTED);
            if let Some(queue) = &queue {
                reach.knows_queue(queue).await?;
            }
            let mut listed = Vec::new();
            for store in &reach.stores {
                listed
                    .extend(journal_desk::list(&**store, queue.as_deref(), &filter, limit).await?);
            }
            Ok(json!(listed))
        }
        Ask::JournalCount { queue, filter } => {
            reach.knows_queue(&queue).await?;
            let mut all = Counted::default();
            for (store, part) in reach.journals(&queue).await? {
                let counted = journal_desk::count(&**store, &part, &filter).await?;
                all.messages += counted.messages;
                all.lanes += counted.lanes;
                all.more |= counted.more;
                all.held += counted.held;
                all.held_lanes += counted.held_lanes;
            }
            Ok(json!(all))
        }
        Ask::JournalRelease { queue, filter } => {
            let mut released = Released::default();
            for (store, part) in reach.journals(&queue).await? {
                journal_desk::release(&**store, &part, &filter, &mut released).await?;
            }
            Ok(json!(released))
        }
        Ask::JournalDrop { queue, filter } => Ok(json!(reach.drop(&queue, &filter).await?)),
        Ask::BatchList { batch, account } => {
            let mut listed = Vec::new();
            for store in &reach.stores {
                let found = batch_desk::list(&**store, batch.as_deref(), account.as_deref());
                listed.extend(found.await?);
            }
            Ok(json!(listed))
        }
        Ask::BatchOrder {
            batch,
            account,
            order,
        } => {
            if let Some(order) = &order {
                reach.may_order(&account, &batch, order).await?;
            }
            for store in reach.stores_of(&account) {
                batch_desk::order(&**store, &account, &batch, order.as_ref()).await?;
            }
            Ok(Value::Null)
        }
        Ask::Unbegun { account } => Ok(json!(reach.unbegun(&account).await)),
        Ask::LedgerAudit => Ok(json!(reach.audit().await?)),
        Ask::LedgerCounts => Ok(json!(reach.counts().await?)),
        Ask::LedgerOverdue { account, limit } => {
            let limit = limit.clamp(1, MAX_LISTED);
            if let Some(account) = &account {
                reach.knows_account(account).await?;
            }
            Ok(json!(reach.overdue(account.as_deref(), limit).await?))
        }
        Ask::LedgerResendable { chosen, force } => {
            let mut listed = Vec::new();
            for store in &reach.stores {
                listed.extend(resend::list(&**store, &chosen, force).await?);
            }
            if listed.is_empty() {
                reach.knows_chosen(&chosen, force).await?;
            }
            Ok(json!(listed))
        }
        Ask::LedgerResend { chosen, force } => Ok(json!(reach.resend(&chosen, force).await?)),
        Ask::LedgerClosable { chosen, force } => Ok(json!(reach.closable(&chosen, force).await?)),
        Ask::LedgerClose { chosen, force } => Ok(json!(reach.close(&chosen, force).await?)),
        Ask::Why { question, limit } => {
            let limit = limit.clamp(1, MAX_LISTED);
            if let Question::Person(address) = &question {
                Person::parse(address).map_err(no_address)?;
            }
            let places = why::Places {
                stores: &reach.stores,
                queues: reach.brokers(),
            };
            Ok(json!(why::ask(&places, &question, limit).await?))
        }
        Ask::Erase { address, dry_run } => {
            Person::parse(&address).map_err(no_address)?;
            let places = Places {
                stores: reach.stores.clone(),
                queues: reach.brokers(),
            };
            let report = erase::erase(&address, &places, dry_run).await?;
            Ok(json!(report))
        }
    }
}

fn no_address(error: NoAddress) -> WorkError {
    WorkError::new(
        ErrorClass::BadInput,
        codes::CONTROL_REQUEST,
        error.to_string(),
    )
}

impl Reach {
    /// Consumed queues whose broker is within reach.
    fn brokers(&self) -> BTreeMap<String, Arc<dyn Broker>> {
        let queues = self.queues.iter();
        queues
            .filter_map(|(queue, at)| Some((queue.clone(), at.broker.clone()?)))
            .collect()
    }

    /// A consumed queue by its name, or by that of a part of it (a partition, a class).
    pub fn consumed(&self, queue: &str) -> Option<&Consumed> {
        let mut names = std::iter::successors(Some(queue), |name| Some(name.rsplit_once('.')?.0));
        names.find_map(|name| self.queues.get(name))
    }

    /// What ends of messages of a consumed queue are written to.
    pub fn withdrawal(&self, queue: &str) -> Withdrawal<'_> {
        let at = self.consumed(queue);
        let store = at.and_then(|at| at.store.and_then(|place| self.stores.get(place)));
        Withdrawal {
            store: store.map(|store| &**store),
            broker: at.and_then(|at| at.broker.as_deref()),
            keep: at.map_or(Retention::LEDGER, |at| at.keep),
        }
    }

    /// The store of a transport's worker; all stores if it is not known which that is.
    fn stores_of(&self, account: &str) -> Vec<&Arc<dyn StateStore>> {
        let own = self.queues.get(&Port::new(account, Flow::Outbound).queue());
        match own.and_then(|at| self.stores.get(at.store?)) {
            Some(store) => vec![store],
            None => self.stores.iter().collect(),
        }
    }

    async fn drop(&self, queue: &str, filter: &Filter) -> Result<Dropped, WorkError> {
        let mut all = Dropped::default();
        for (store, part) in self.journals(queue).await? {
            // A journal and the rows of its messages are in one store.
            let withdrawal = Withdrawal {
                store: Some(&**store),
                ..self.withdrawal(&part)
            };
            let dropped = journal_desk::drop(&**store, &withdrawal, &part, filter).await?;
            all.done += dropped.done;
            all.in_hand += dropped.in_hand;
            all.told += dropped.told;
            all.untold += dropped.untold;
            all.stopped = all.stopped.or(dropped.stopped);
        }
        Ok(all)
    }

    /// The journals of a queue, with those of its classes and partitions, and where each is.
    async fn journals(
        &self,
        queue: &str,
    ) -> Result<Vec<(&Arc<dyn StateStore>, String)>, WorkError> {
        let mut found = Vec::new();
        for store in &self.stores {
            let queues = journal_desk::queues(&**store, Some(queue)).await?;
            found.extend(queues.into_iter().map(|part| (store, part)));
        }
        Ok(found)
    }

    async fn resend(&self, chosen: &Chosen, force: bool) -> Result<Resent, WorkError> {
        let mut done = Resent::default();
        // A store's transports may be on different brokers.
        let mut accounts = BTreeSet::new();
        for store in &self.stores {
            let summaries = resend::list(&**store, chosen, force).await?;
            accounts.extend(summaries.into_iter().map(|one| one.account));
        }
        for account in accounts {
            let of_account = Chosen {
                account: Some(account.clone()),
                ..chosen.clone()
            };
            let queue = Port::new(&account, Flow::Outbound).queue();
            let broker = self.queues.get(&queue).and_then(|at| at.broker.as_deref());
            let Some(broker) = broker else {
                let why = "sending again takes the broker of its transport (--broker URL, or ask the process that runs it)";
                for store in &self.stores {
                    let meant = resend::list(&**store, &of_account, force).await?.len();
                    if meant > 0 {
                        *done.refused.entry(why.to_owned()).or_default() += meant as u64;
                    }
                }
                continue;
            };
            for store in self.stores_of(&account) {
                let resend = Resend {
                    store: &**store,
                    broker,
                    force,
                };
                if let Err(error) = resend.all(&of_account, &mut done).await {
                    done.stopped = Some(error.to_string());
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    async fn audit(&self) -> Result<Vec<Balance>, WorkError> {
        let mut balances = Vec::new();
        for (place, store) in self.stores.iter().enumerate() {
            let of_store = self.queues.iter().filter(|(_, at)| at.store == Some(place));
            let queues = of_store
                .filter_map(|(queue, at)| Some((queue.clone(), at.broker.clone()?)))
                .filter(|(queue, _)| audit::account_of(queue).is_some());
            let sources = audit::Sources {
                queues: queues.collect(),
                in_flight: self.in_flight.clone(),
            };
            balances.extend(audit::audit(&**store, &sources).await?);
        }
        Ok(balances)
    }

    async fn counts(&self) -> Result<Vec<RowCount>, WorkError> {
        let mut rows: BTreeMap<(String, RowState), u64> = BTreeMap::new();
        for store in &self.stores {
            for (key, count) in store.counts().await? {
                *rows.entry(key).or_default() += count;
            }
        }
        let rows = rows.into_iter().map(|((account, state), count)| RowCount {
            account,
            state,
            count,
        });
        Ok(rows.collect())
    }

    async fn overdue(
        &self,
        account: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Overdue>, WorkError> {
        let mut all = Vec::new();
        for store in &self.stores {
            let counts = store.counts().await?;
            let mut accounts: Vec<String> = counts.into_keys().map(|(name, _)| name).collect();
            accounts.dedup();
            accounts.retain(|name| account.is_none_or(|wanted| wanted == name));
            for account in accounts {
                let (mut count, mut rows) = (0, Vec::new());
                for left_to in [LeftTo::Rules, LeftTo::Person] {
                    let (more, ids) = store.overdue(&account, left_to, 0, limit).await?;
                    count += more;
                    for id in ids {
                        rows.extend(overdue_row(&**store, id).await?);
                    }
                }
                rows.sort_by_key(|row: &OverdueRow| row.deadline);
                rows.truncate(limit);
                let sending = sent_for_long(&**store, &account, limit).await?;
                if count > 0 || !sending.is_empty() {
                    all.push(Overdue {
                        account,
                        count,
                        rows,
                        sending,
                    });
                }
            }
        }
        Ok(all)
    }
}

/// An overdue row as it is listed, also if it cannot be read.
async fn overdue_row(store: &dyn StateStore, id: String) -> Result<Option<OverdueRow>, WorkError> {
    match store.row(&id).await {
        Ok(row) => Ok(row.map(OverdueRow::from)),
        Err(error) if error.code == codes::STATE_UNREADABLE => Ok(Some(OverdueRow {
            message_id: id,
            state: None,
            deadline: 0,
            text: error.to_string(),
        })),
        Err(error) => Err(error),
    }
}

/// Messages of a transport that are being sent for longer than usual, or whose process is gone.
async fn sent_for_long(
    store: &dyn StateStore,
    account: &str,
    limit: usize,
) -> Result<Vec<BeingSent>, WorkError> {
    let now = (Timestamp::now().epoch() * 1e3) as u64;
    let is_long = |sender: &Sender| !sender.lives || sender.since.saturating_add(LONG) <= now;
    let ids = store.in_state(account, RowState::Sending, MAX_LISTED);
    let mut found = Vec::new();
    for id in ids.await? {
        let Some(row) = readable_row(store, &id).await? else {
            continue;
        };
        if let Some(sender) = Sender::of(&row, store).await?.filter(is_long) {
            found.push(BeingSent {
                message_id: id,
                sender,
            });
        }
    }
    found.sort_by_key(|one| one.sender.since);
    found.truncate(limit);
    Ok(found)
}

impl From<Row> for OverdueRow {
    fn from(row: Row) -> Self {
        Self {
            deadline: row.deadline.unwrap_or_default(),
            text: row
                .steps
                .last()
                .map(|step| step.text.clone())
                .unwrap_or_default(),
            message_id: row.message_id,
            state: Some(row.state),
        }
    }
}

#[cfg(test)]
mod tests;
