//! What every transport does around handing a message to its peer, by registration: a row in the ledger before the first
//! byte and after the answer (R10, R17), one ack or nack ever (R11), replies at the replica that holds their request
//! (R19), and the rate limit.

mod book;
mod gate;
mod keeper;
mod line;
mod local;
mod obey;
mod once;
mod patience;
mod rate;
mod receipts;
mod standing;
#[cfg(test)]
mod tests;
mod trail;
mod trial;
mod turns;

pub(super) use keeper::Keeper;
pub(super) use once::Once;
pub(super) use trail::Trail;
pub(super) use trial::{Suspect, Trial};

use super::consumer::PREFETCH;
use super::labels::Labels;
use super::orders::Orders;
use super::outlet::{Outlet, Unpublished};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::{
    Actor, DeliveryStatus, Event, EventType, FailureClass, Fate, Message, UserMessage,
};
use crate::outcome::Refusal;
use crate::state::StateStore;
use crate::state::batches::Order;
use crate::state::journal::Reason;
use crate::state::ledger::{Content, Put, Row, RowState};
use crate::telemetry::WorkerMetrics;
use crate::worker::{Input, Output, Worker};
use book::{Book, Interrupted, News};
use bytes::Bytes;
use gate::Gate;
use rate::Rate;
use standing::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use turns::{Turn, Turns};
use vumi_api::shared::{Class, Classes, RateLimit, UnknownPolicy, UnknownThen};
use vumi_api::{Flow, Port, Resource};

/// What is done with a message of which nobody knows whether the peer has it (R17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnUnknown {
    /// A receipt is waited for so long; then it fails, or is sent again.
    Wait(Duration, UnknownThen),
    /// It has failed.
    Fail,
    /// It is sent again, at the risk of a second copy.
    Retry,
}

impl OnUnknown {
    /// As the manifest says; by default receipts are waited for where they come and can be kept account of.
    fn of(resource: &Resource, receipts: bool, has_store: bool) -> Self {
        let written = resource.transport().and_then(|t| t.on_unknown.as_ref());
        let Some(written) = written else {
            return match receipts && has_store {
                true => OnUnknown::Wait(patience::UNKNOWN, UnknownThen::Fail),
                false => OnUnknown::Fail,
            };
        };
        let deadline = written.deadline.map_or(patience::UNKNOWN, |d| d.0);
        match written.policy {
            UnknownPolicy::Retry => OnUnknown::Retry,
            UnknownPolicy::Wait if has_store => {
                OnUnknown::Wait(deadline, written.then.unwrap_or(UnknownThen::Fail))
            }
            UnknownPolicy::Wait | UnknownPolicy::Fail => OnUnknown::Fail,
        }
    }
}

/// How a worker is called in what it keeps, and for how long that is kept.
#[derive(Clone)]
pub(super) struct Names {
    /// Name of its queues, and its account in the ledger.
    connector: String,
    /// Kind and name, and replica: no two processes write one and the same step.
    by: String,
    /// For how long rows and trails are kept from the end of their message.
    keep: Duration,
}

impl Names {
    pub(super) fn of(resource: &Resource, environment: &super::Environment) -> Self {
        Self {
            connector: resource.transport_name().to_owned(),
            by: format!("{}@{}", resource.key(), environment.instance),
            keep: resource.settings().retention.ledger(),
        }
    }
}

/// How a transport sends.
pub(super) struct Policy {
    on_unknown: OnUnknown,
    receipts: bool,
    rate: Option<RateLimit>,
    classes: Option<Classes>,
}

impl Policy {
    pub(super) fn of(resource: &Resource, receipts: bool, has_store: bool) -> Self {
        Self {
            on_unknown: OnUnknown::of(resource, receipts, has_store),
            receipts,
            rate: resource.transport().and_then(|t| t.rate_limit.clone()),
            classes: resource.classes().cloned(),
        }
    }
}

/// The sending side of one transport.
pub(super) struct Sending {
    /// None without a state store: then nothing is known of messages that come again.
    book: Option<Book>,
    rate: Option<Rate>,
    /// What the queues of classes share besides the rate: messages that are handled at once.
    room: Option<Arc<Gate>>,
    /// Class of messages that name none, where there are classes.
    default_class: Option<Class>,
    /// Orders for batches, where there is a store that keeps them.
    pub(super) orders: Option<Arc<Orders>>,
    turns: Arc<Turns>,
    on_unknown: OnUnknown,
    /// Whether the peer sends receipts.
    receipts: bool,
    /// Events told lately: a peer that repeats a receipt makes no second event.
    lately: receipts::Lately,
    connector: String,
    outlet: Arc<Outlet>,
    metrics: Arc<WorkerMetrics>,
}

/// One message on its way to the peer, from delivery to verdict.
pub(super) struct Case {
    /// The message as it came: what is handed on is that, for whoever gets it has middleware of its own.
    body: Bytes,
    row: Option<Row>,
    /// Somebody began it before.
    redelivered: bool,
    /// It comes again if this process dies.
    lasting: bool,
    /// How long it waited for the rate limit: not a matter of its own.
    pub(super) waited: Duration,
    /// When it was sent last, or began to be.
    sent: Instant,
    /// Its place among those that are handled at once, during an attempt.
    room: Option<gate::Turn>,
    _turn: Turn,
}

impl Case {
    /// Whether the first byte may have left and there is no answer.
    fn is_sending(&self) -> bool {
        let row = self.row.as_ref();
        row.is_some_and(|row| standing::standing(row) == Standing::Lost)
    }

    /// Whether its sender was told, or is to be.
    fn is_told(&self) -> bool {
        let row = self.row.as_ref();
        row.is_some_and(|row| standing::standing(row) == Standing::Told)
    }
}

/// What is to be done with a message before it is handed to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It is to be sent now.
    Send,
    /// Nothing: all is done.
    Nothing,
    /// It waits until the order for its batch is lifted.
    Hold,
    /// Its row was moved by somebody else: the question is asked once more.
    Again,
}

/// What a failed attempt leads to.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Another attempt after a while.
    Again(Duration),
    /// Another attempt after a while that the message spends in the journal.
    Later(Reason, Duration),
    /// The end: its sender is told.
    GiveUp(WorkError),
    /// It is set aside.
    Park(WorkError),
    /// Nobody knows whether the peer has it; a receipt is waited for.
    Wait(WorkError),
}

/// That nobody knows whether the peer has a message.
fn unknown(why: &str) -> WorkError {
    WorkError::new(ErrorClass::Timeout, codes::FATE_UNKNOWN, why)
}

impl Sending {
    pub(super) fn new(
        names: Names,
        policy: Policy,
        state: Option<&Arc<dyn StateStore>>,
        outlet: Arc<Outlet>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let Policy {
            on_unknown,
            receipts,
            rate: rate_limit,
            classes,
        } = policy;
        let connector = names.connector.clone();
        let default_class = classes.as_ref().map(Classes::default_class);
        let room = classes.as_ref();
        let room = room.map(|classes| Arc::new(Gate::new(PREFETCH.into(), Some(classes))));
        let rate = |limit| Rate::new(limit, classes, &connector, state, Arc::clone(&metrics));
        Self {
            rate: rate_limit.map(rate),
            room,
            default_class,
            orders: state.map(|store| Arc::new(Orders::new(Arc::clone(store), &connector))),
            book: state.map(|store| Book::new(Arc::clone(store), names, default_class)),
            on_unknown,
            receipts,
            lately: receipts::Lately::default(),
            turns: Arc::default(),
            connector,
            outlet,
            metrics,
        }
    }

    /// Whether messages are divided into classes.
    pub(super) fn has_classes(&self) -> bool {
        self.default_class.is_some()
    }

    /// Begins with a message: waits while an earlier delivery of it is still being worked on. None when told to stop.
    pub(super) async fn case(
        &self,
        (id, body): (&str, Bytes),
        redelivered: bool,
        lasting: bool,
        halt: &CancellationToken,
    ) -> Option<Case> {
        tokio::select! {
            biased;
            turn = self.turns.take(id) => Some(Case {
                body,
                row: None,
                redelivered,
                lasting,
                waited: Duration::ZERO,
                sent: Instant::now(),
                room: None,
                _turn: turn,
            }),
            () = halt.cancelled() => None,
        }
    }

    /// Everything before the worker sees the message: what was done with it before, the replica that holds its request,
    /// its turn under the rate limit, and the word in the ledger that it is being sent.
    pub(super) async fn before(
        &self,
        case: &mut Case,
        worker: &dyn Worker,
        input: &Input,
        halt: &CancellationToken,
        interrupted: Interrupted<'_>,
    ) -> Result<Before, Unpublished> {
        let message = input.to_deliver()?;
        let labels = Labels::of(&input.message);
        let elsewhere = worker.holder_elsewhere(message);
        let Some(book) = &self.book else {
            if let Some(holder) = elsewhere {
                let body = case.body.clone();
                let id = message.message_id();
                if !self.outlet.offer(&holder, id, body, interrupted).await? {
                    let gone = self.holder_gone(message.message_id(), input.attempt);
                    self.note_nack(&gone);
                    self.outlet.publish(self.output(gone), interrupted).await?;
                }
                return Ok(Before::Nothing);
            }
            self.wait_for_turn(case, worker, message, &labels, halt)
                .await?;
            return Ok(Before::Send);
        };
        // With classes the intake opened a row.
        if case.row.is_none() && (case.redelivered || self.default_class.is_some()) {
            case.row = book.load(message.message_id(), interrupted).await?;
        }
        let mut paced = false;
        loop {
            let order = self.order(&labels, interrupted).await?;
            let row = match case.row.take() {
                Some(row) if row.account == book.account() => row,
                // It was handed over before; perhaps the process ended before it was published.
                Some(row) if order == Some(Order::Reroute(row.account.clone())) => {
                    if standing::standing(&row) == Standing::Free {
                        self.hand_over(&row.account, case, interrupted).await?;
                    }
                    return Ok(Before::Nothing);
                }
                // It was another transport's before, and somebody routed it here.
                Some(other) => {
                    let mut row = book.opened(message);
                    row.version = other.version;
                    row
                }
                None => book.opened(message),
            };
            match standing::standing(&row) {
                Standing::Free => {
                    if let Some(order) = order {
                        let what = (book, row);
                        match self.obey(order, case, what, &labels, interrupted).await? {
                            Before::Again => continue,
                            obeyed => return Ok(obeyed),
                        }
                    }
                }
                Standing::Told => {
                    case.row = Some(row);
                    self.tell_again(case, book, interrupted).await?;
                    return Ok(Before::Nothing);
                }
                // Whoever holds the request knows more about it than we do.
                Standing::Lost if elsewhere.is_some() => {}
                Standing::Lost => {
                    case.row = Some(row);
                    let why = "an earlier attempt ended without an answer: the peer may have it";
                    return Err(unknown(why).into());
                }
                Standing::SetAside if case.redelivered => {
                    case.row = Some(row);
                    return Err(WorkError::new(
                        ErrorClass::BadInput,
                        codes::PARK_AGAIN,
                        "it was set aside before, and the process ended before that was acknowledged",
                    )
                    .into());
                }
                Standing::SetAside => {}
            }
            if let Some(holder) = &elsewhere {
                match self.forward(book, row, holder, case, interrupted).await? {
                    None => return Ok(Before::Nothing),
                    moved => case.row = moved,
                }
                continue;
            }
            if !paced {
                case.row = (row.version > 0).then_some(row);
                paced = self
                    .wait_for_turn(case, worker, message, &labels, halt)
                    .await?;
                continue;
            }
            let doubles = standing::may_double(&row);
            let news = match doubles {
                true => News::coded(
                    codes::FATE_SENT_AGAIN,
                    "sent again although the peer may have it",
                ),
                false => News::said("is being sent"),
            };
            let Some(next) = book.moved(&row, RowState::Sending, patience::SENDING, news) else {
                continue;
            };
            match book.put(&row, &next, interrupted).await? {
                Put::Stored => {
                    if doubles {
                        self.metrics.resent.inc();
                    }
                    case.row = Some(next);
                    return Ok(Before::Send);
                }
                Put::Conflict(there) => case.row = Some(*there),
            }
        }
    }

    /// The worker handled it: what it says is written down, and then told.
    pub(super) async fn after(
        &self,
        case: &mut Case,
        outputs: Vec<Output>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        case.room = None;
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return self.outlet.publish_all(outputs, interrupted).await;
        };
        let events = self.port();
        let (said, others): (Vec<Output>, Vec<Output>) = outputs
            .into_iter()
            .partition(|output| output.port == events);
        // Not repeated once the answer is written down, so it comes first.
        self.outlet.publish_all(others, interrupted).await?;
        let said: Vec<Event> = said
            .into_iter()
            .filter_map(|output| match output.message {
                Message::Event(event) => Some(event),
                Message::User(_) => None,
            })
            .collect();
        self.decide(case, book, row, said, interrupted).await
    }

    /// Writes down what a message's sender is told, tells it, and moves the row to where that leads.
    async fn decide(
        &self,
        case: &mut Case,
        book: &Book,
        row: Row,
        said: Vec<Event>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let lasting = case.lasting;
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                self.answered(book, row, &said, lasting)
            })
            .await?;
        if !moved {
            self.metrics.suppressed.inc_by(said.len() as u64);
        }
        case.row = Some(row);
        if !moved {
            // Whoever decided otherwise tells it.
            return Ok(());
        }
        self.tell_again(case, book, interrupted).await
    }

    /// A row after what was said about its message. What was told before is not told again, and one ack or nack is all
    /// there is. None if nothing is new.
    ///
    /// `lasting`: this comes again if the process dies before its sender is told. Else the row is left where it will be
    /// found, until [`Self::settle`].
    fn answered(&self, book: &Book, row: &Row, said: &[Event], lasting: bool) -> Option<Row> {
        let known = standing::told(row);
        let judged = standing::verdict(row).is_some();
        let is_new = |event: &&Event| {
            let repeated = known.iter().any(|k| k.event_id() == event.event_id());
            let second = judged && event.event_type() != EventType::DeliveryReport;
            !repeated && !second
        };
        let new: Vec<&Event> = said.iter().filter(is_new).collect();
        if new.is_empty() && !said.is_empty() {
            return None;
        }
        let state = match new.last() {
            Some(event) => standing::leads_to(event, self.receipts),
            None if self.receipts => RowState::Sent,
            None => RowState::SentFinal,
        };
        let nothing_to_tell = new.is_empty();
        let (state, patience) = match lasting || nothing_to_tell {
            true => (state, patience::SENT),
            false => (row.state, patience::TELLING),
        };
        let mut next = book.moved(row, state, patience, said_news(&new))?;
        let remote = new.iter().find_map(|event| event.sent_message_id());
        next.remote_id = remote.map(str::to_owned).or(next.remote_id);
        let bodies = new.iter().map(|event| event.encode());
        next.told
            .extend(bodies.map(|body| String::from_utf8_lossy(&body).into_owned()));
        Some(next)
    }

    /// Moves a row whose sender has been told to where that leads.
    async fn settle(
        &self,
        case: &mut Case,
        book: &Book,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(row) = case.row.clone().filter(standing::is_telling) else {
            return Ok(());
        };
        let (row, _) = book
            .advance(row, interrupted, |row| {
                let last = standing::told(row)
                    .pop()
                    .filter(|_| standing::is_telling(row))?;
                let state = standing::leads_to(&last, self.receipts);
                book.moved(row, state, patience::SENT, said_news(&[&last]))
            })
            .await?;
        case.row = Some(row);
        Ok(())
    }

    /// Repeats what a message's sender was told, byte for byte.
    async fn tell_again(
        &self,
        case: &mut Case,
        book: &Book,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let told = case.row.as_ref().map(standing::told).unwrap_or_default();
        self.tell(told, interrupted).await?;
        self.settle(case, book, interrupted).await
    }

    async fn tell(
        &self,
        events: Vec<Event>,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let ids: Vec<String> = events.iter().map(|e| e.event_id().to_owned()).collect();
        let outputs = events.into_iter().map(|event| self.output(event)).collect();
        self.outlet.publish_all(outputs, interrupted).await?;
        ids.into_iter().for_each(|id| self.lately.add(id));
        Ok(())
    }

    /// What a failed attempt leads to, given what it would lead to if the message had not been begun.
    pub(super) fn next(&self, case: &Case, error: &WorkError, next: Next) -> Next {
        if case.is_told() {
            // Only telling failed: there is nothing to give up.
            return match next {
                Next::GiveUp(error) => Next::Park(error),
                next => next,
            };
        }
        let begun = case.is_sending() || self.book.is_none();
        match error.class {
            ErrorClass::Timeout if begun => match (self.on_unknown, next) {
                (OnUnknown::Retry, next @ (Next::Again(_) | Next::Later(..))) => next,
                (OnUnknown::Wait(..), _) => Next::Wait(error.clone()),
                _ => {
                    let mut error = error.clone();
                    error.code = codes::FATE_UNKNOWN;
                    Next::GiveUp(error)
                }
            },
            // It is not known how far it got, so that another attempt could make a second copy.
            ErrorClass::Bug if case.is_sending() => Next::Park(error.clone()),
            _ => next,
        }
    }

    /// It will be tried again: the peer has not taken it, or the policy is to send it again.
    pub(super) async fn again(
        &self,
        case: &mut Case,
        message: &UserMessage,
        error: &WorkError,
        next: &Next,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        case.room = None;
        let (state, wait) = match next {
            Next::Again(wait) => (RowState::Queued, *wait),
            Next::Later(_, wait) => (RowState::Held, *wait),
            Next::GiveUp(_) | Next::Park(_) | Next::Wait(_) => return Ok(()),
        };
        if let (ErrorClass::Throttled(after), Some(rate)) = (error.class, &self.rate) {
            rate.slow_down(message, case.sent, after).await;
        }
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return Ok(());
        };
        if !case.is_sending() {
            return Ok(());
        }
        let news = || match error.class {
            ErrorClass::Timeout => News::coded(codes::FATE_SENT_AGAIN, error.text.as_str()),
            _ => News::from(error),
        };
        let (row, _) = book
            .advance(row, interrupted, |row| {
                let lost = standing::standing(row) == Standing::Lost;
                lost.then(|| book.moved(row, state, patience::QUEUED + wait, news()))?
            })
            .await?;
        case.row = Some(row);
        Ok(())
    }

    /// The end of a message: `nack` is what its sender is told.
    pub(super) async fn give_up(
        &self,
        case: &mut Case,
        message: &UserMessage,
        nack: Event,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(book) = &self.book else {
            return self.outlet.publish(self.output(nack), interrupted).await;
        };
        let row = case.row.clone().unwrap_or_else(|| book.opened(message));
        self.decide(case, book, row, vec![nack], interrupted).await
    }

    /// It is set aside: the copy is with the broker.
    pub(super) async fn parked(
        &self,
        case: Option<Case>,
        message: Option<&UserMessage>,
        error: &WorkError,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let Some(book) = &self.book else {
            return Ok(());
        };
        let known = case.and_then(|case| case.row);
        let row = known.or_else(|| message.map(|m| book.opened(m)));
        let Some(row) = row else { return Ok(()) };
        book.advance(row, interrupted, |row| {
            let told = standing::standing(row) == Standing::Told;
            (!told).then(|| book.moved(row, RowState::Parked, patience::PARKED, error.into()))?
        })
        .await?;
        Ok(())
    }

    /// Nobody knows whether the peer has it: that is written down, its sender is told that it is pending, and the
    /// delivery ends. A receipt, or the deadline, decides.
    pub(super) async fn wait(
        &self,
        case: &mut Case,
        message: &Message,
        error: &WorkError,
        interrupted: Interrupted<'_>,
    ) -> Result<(), Unpublished> {
        let (Some(book), Some(row)) = (&self.book, case.row.clone()) else {
            return Ok(());
        };
        let OnUnknown::Wait(deadline, then) = self.on_unknown else {
            return Ok(());
        };
        let mut pending = self.event(Event::delivery_report(
            &row.message_id,
            "",
            DeliveryStatus::Pending,
        ));
        pending.set_fate(&Fate {
            state: crate::message::FateState::Unknown,
            class: FailureClass::Ours.as_str().to_owned(),
            code: error.code.name.to_owned(),
            text: error.text.clone(),
            who: Actor::Nobody.as_str().to_owned(),
            attempt: row.attempt,
            is_final: false,
        });
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                if standing::standing(row) != Standing::Lost {
                    return None;
                }
                let mut next = book.moved(row, RowState::Unknown, deadline, error.into())?;
                let body = String::from_utf8_lossy(&pending.encode()).into_owned();
                if !next.told.contains(&body) {
                    next.told.push(body);
                }
                if then == UnknownThen::Retry {
                    next.body = Some(Content::of(message));
                }
                Some(next)
            })
            .await?;
        if moved {
            self.metrics.unknown.inc();
        }
        case.row = Some(row);
        self.tell_again(case, book, interrupted).await
    }

    /// Hands a reply to the replica that holds its request. None when that replica has it, or its sender was told that
    /// there is none; else the row that somebody moved meanwhile.
    async fn forward(
        &self,
        book: &Book,
        row: Row,
        holder: &str,
        case: &Case,
        interrupted: Interrupted<'_>,
    ) -> Result<Option<Row>, Unpublished> {
        let mut row = row;
        if standing::standing(&row) != Standing::Lost {
            let news = News::coded(
                codes::REPLY_FORWARDED,
                "handed to the replica that holds the request",
            );
            let Some(next) = book.moved(&row, RowState::Queued, patience::FORWARDED, news) else {
                return Ok(Some(row));
            };
            match book.put(&row, &next, interrupted).await? {
                Put::Stored => row = next,
                Put::Conflict(there) => return Ok(Some(*there)),
            }
        }
        let (id, body) = (row.message_id.as_str(), case.body.clone());
        if self.outlet.offer(holder, id, body, interrupted).await? {
            return Ok(None);
        }
        if standing::standing(&row) == Standing::Lost {
            let why =
                "the replica that held the request ended without an answer: the peer may have it";
            return Err(unknown(why).into());
        }
        let gone = self.holder_gone(&row.message_id, row.attempt);
        self.note_nack(&gone);
        let said = [gone];
        let (row, moved) = book
            .advance(row, interrupted, |row| {
                self.answered(book, row, &said, true)
            })
            .await?;
        match moved {
            true => self
                .tell(standing::told(&row), interrupted)
                .await
                .map(|()| None),
            false => Ok(Some(row)),
        }
    }

    /// Waits for the rate limit and for room. False if an order came meanwhile.
    async fn wait_for_turn(
        &self,
        case: &mut Case,
        worker: &dyn Worker,
        message: &UserMessage,
        labels: &Labels,
        halt: &CancellationToken,
    ) -> Result<bool, Unpublished> {
        if self.rate.is_none() && self.room.is_none() {
            return Ok(true);
        }
        let stopped = || {
            let orders = self.orders.as_ref();
            orders.is_some_and(|orders| orders.has(labels.batch.as_deref()))
        };
        // What is in force already was obeyed, or does not concern it.
        let before = stopped();
        let stopped = || !before && stopped();
        let began = Instant::now();
        let waits = async {
            if let Some(rate) = &self.rate
                && !rate.wait(worker, message, labels, &stopped).await
            {
                return (false, None);
            }
            let room = match &self.room {
                Some(room) => Some(room.turn(labels).await),
                None => None,
            };
            (!stopped(), room)
        };
        let (goes, room) = tokio::select! {
            biased;
            () = halt.cancelled() => return Err(Unpublished::Interrupted),
            waited = waits => waited,
        };
        case.room = room.filter(|_| goes);
        case.waited += began.elapsed();
        case.sent = Instant::now();
        Ok(goes)
    }

    /// A case of the keeper's: nothing brings it back.
    fn case_of(&self, id: &str) -> Option<Case> {
        Some(Case {
            body: Bytes::new(),
            row: None,
            redelivered: true,
            lasting: false,
            waited: Duration::ZERO,
            sent: Instant::now(),
            room: None,
            _turn: self.turns.try_take(id)?,
        })
    }

    fn holder_gone(&self, id: &str, attempt: u32) -> Event {
        let text = "The replica that held the request is gone.";
        let gone = Refusal::new(FailureClass::Ours, codes::HOLDER_GONE, text, Actor::Nobody);
        self.event(Event::nack(id, &gone.fate(attempt)))
    }

    fn note_nack(&self, nack: &Event) {
        let class = nack.fate().map_or_else(String::new, |fate| fate.class);
        self.metrics.nack(&class);
    }

    fn port(&self) -> Port {
        Port::new(&self.connector, Flow::Event)
    }

    fn event(&self, mut event: Event) -> Event {
        event.set_transport_name(&self.connector);
        event
    }

    fn output(&self, event: Event) -> Output {
        Output::new(self.port(), event)
    }
}

/// What a step says that tells these events.
fn said_news(events: &[&Event]) -> News {
    match events.last() {
        Some(event) => match (event.event_type(), event.fate()) {
            (_, Some(fate)) => News::from(&fate),
            (EventType::Ack, None) => News::said("the peer took it"),
            (EventType::Nack, None) => News::said("the peer refused it"),
            (EventType::DeliveryReport, None) => News::said("the peer reported on it"),
        },
        None => News::said("the peer took it"),
    }
}
