//! What every transport does around handing a message to its peer, by registration: a row in the ledger before the first
//! byte and after the answer (R10, R17), one ack or nack ever (R11), replies at the replica that holds their request or
//! session (R19), and the rate limit.

mod alive;
mod before;
mod book;
mod failed;
mod gate;
mod holding;
mod keeper;
mod line;
mod local;
mod obey;
mod once;
pub(crate) mod patience;
mod rate;
mod receipts;
mod standing;
mod tell;
#[cfg(test)]
mod tests;
mod trail;
mod trial;
mod turns;

pub(super) use keeper::Keeper;
pub(super) use once::Once;
pub(crate) use standing::{may_be_withdrawn, may_double, sender, sent_until, told_with_verdict};
pub(super) use trail::{Happened, Hop, Place, Trail};
pub(super) use trial::{AtWork, Suspect, Trial};

use super::consumer::PREFETCH;
use super::labels::Labels;
use super::orders::Orders;
use super::outlet::{Outlet, Unpublished};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::holding::reply_queue;
use crate::message::{
    Actor, DeliveryStatus, Event, EventType, FailureClass, Fate, Message, UserMessage,
};
use crate::outcome::Refusal;
use crate::state::StateStore;
use crate::state::batches::Order;
use crate::state::journal::Reason;
use crate::state::ledger::{Content, Put, Row, RowState};
use crate::telemetry::WorkerMetrics;
use crate::verdict;
use crate::worker::{Input, Output, Worker};
use book::{Book, Interrupted, News};
use bytes::Bytes;
use failed::{Doubts, OnUnknown, unknown};
use gate::Gate;
use holding::Holding;
use rate::Rate;
use standing::Standing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use turns::{Turn, Turns};
use vumi_api::shared::{Class, Classes, KeptContent, RateLimit, UnknownPolicy, UnknownThen};
use vumi_api::{Flow, Port, Resource};

/// How a worker is called in what it keeps, and for how long that is kept.
#[derive(Clone)]
pub(super) struct Names {
    /// Name of its queues, and its account in the ledger.
    connector: String,
    /// Kind and name, and replica: no two processes write one and the same step.
    by: String,
    /// For how long rows are kept from the end of their message.
    keep: Duration,
    /// Whose content is kept with the row.
    content: KeptContent,
    /// For how long trails are kept from the first hop; none where hops are not noted.
    trail: Option<Duration>,
    /// The reply queue of this replica, if it holds requests or sessions.
    reply_queue: Option<String>,
}

impl Names {
    pub(super) fn of(resource: &Resource, environment: &super::Environment) -> Self {
        let retention = &resource.settings().retention;
        Self {
            connector: resource.transport_name().to_owned(),
            by: format!("{}@{}", resource.key(), environment.instance),
            keep: retention.ledger(),
            content: retention.content(),
            trail: retention.trail(),
            reply_queue: resource
                .topology()
                .holds
                .map(|_| reply_queue(resource.transport_name(), &environment.instance)),
        }
    }
}

/// How a transport sends.
pub(super) struct Policy {
    on_unknown: OnUnknown,
    doubts: Doubts,
    receipts: bool,
    rate: Option<RateLimit>,
    classes: Option<Classes>,
}

impl Policy {
    pub(super) fn of(resource: &Resource, receipts: bool, has_store: bool) -> Self {
        Self {
            on_unknown: OnUnknown::of(resource, receipts, has_store),
            doubts: Doubts::of(resource),
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
    /// Where the provider's repeats are answered from, if they are.
    once: Option<Arc<Once>>,
    /// How it finds the replica that a reply is for, if replicas hold anything.
    holding: Option<Holding>,
    alive: alive::Alive,
    on_unknown: OnUnknown,
    doubts: Doubts,
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
    row: Option<Row>,
    /// As it was delivered; none of what the keeper ends. What is handed on is that, for whoever gets it has middleware
    /// of its own.
    body: Option<Bytes>,
    /// Somebody began it before.
    redelivered: bool,
    /// It comes again if this process dies.
    lasting: bool,
    /// How long ago it was delivered, when it was begun.
    pub(super) been_here: Duration,
    /// Who holds what it is for, if that was looked up.
    looked_up: Option<Option<String>>,
    /// How long it waited for the rate limit, or for another replica: not a matter of its own.
    pub(super) waited: Duration,
    /// When it was sent last, or began to be.
    sent: Instant,
    /// Its place among those that are handled at once, during an attempt.
    room: Option<gate::Turn>,
    /// Of a suspect, during its first attempt.
    pub(super) at_work: Option<AtWork>,
    _turn: Turn,
}

impl Case {
    /// Whether the first byte may have left and there is no answer.
    fn is_sending(&self) -> bool {
        let row = self.row.as_ref();
        row.is_some_and(|row| standing::standing(row) == Standing::Begun)
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
    /// Another attempt once Vumi's failure worker gives the message back (`retry.external`); this if it cannot be given it.
    External(Box<Next>),
    /// The end: its sender is told.
    GiveUp(WorkError),
    /// It is set aside.
    Park(WorkError),
    /// Nobody knows whether the peer has it; a receipt is waited for.
    Wait(WorkError),
}

impl Sending {
    pub(super) fn new(
        names: Names,
        policy: Policy,
        state: Option<&Arc<dyn StateStore>>,
        once: Option<Arc<Once>>,
        outlet: Arc<Outlet>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let Policy {
            on_unknown,
            doubts,
            receipts,
            rate: rate_limit,
            classes,
        } = policy;
        let connector = names.connector.clone();
        let holding = Holding::new(&names, state);
        let default_class = classes.as_ref().map(Classes::default_class);
        let room = classes.as_ref();
        let room = room.map(|classes| Arc::new(Gate::new(PREFETCH.into(), Some(classes))));
        let rate = |limit| Rate::new(limit, classes, &connector, state, Arc::clone(&metrics));
        Self {
            rate: rate_limit.map(rate),
            room,
            default_class,
            orders: state.map(|store| Arc::new(Orders::new(Arc::clone(store), &connector))),
            book: state
                .map(|store| Book::new(Arc::clone(store), names, default_class, once.is_some())),
            once,
            on_unknown,
            doubts,
            receipts,
            lately: receipts::Lately::default(),
            holding,
            turns: Arc::default(),
            alive: alive::Alive::default(),
            connector,
            outlet,
            metrics,
        }
    }

    /// Whether every message has a row.
    pub(super) fn has_rows(&self) -> bool {
        self.book.is_some()
    }

    /// Whether messages are divided into classes.
    pub(super) fn has_classes(&self) -> bool {
        self.default_class.is_some()
    }

    /// Begins with a message: waits while an earlier delivery of it is still being worked on. None when told to stop.
    pub(super) async fn case(
        &self,
        (id, body): (&str, &Bytes),
        redelivered: bool,
        lasting: bool,
        halt: &CancellationToken,
    ) -> Option<Case> {
        tokio::select! {
            biased;
            turn = self.turns.take(id) => Some(Case {
                row: None,
                body: Some(body.clone()),
                redelivered,
                lasting,
                been_here: Duration::ZERO,
                looked_up: None,
                waited: Duration::ZERO,
                sent: Instant::now(),
                room: None,
                at_work: None,
                _turn: turn,
            }),
            () = halt.cancelled() => None,
        }
    }

    /// A case of the keeper's: nothing brings it back.
    fn case_of(&self, id: &str) -> Option<Case> {
        Some(Case {
            row: None,
            body: None,
            redelivered: true,
            lasting: false,
            been_here: Duration::ZERO,
            looked_up: None,
            waited: Duration::ZERO,
            sent: Instant::now(),
            room: None,
            at_work: None,
            _turn: self.turns.try_take(id)?,
        })
    }

    /// Whether a message's sender was told this, or the report that stands for it: not if somebody decided otherwise
    /// before.
    pub(super) fn has_told(&self, case: &Case, event: &Event) -> bool {
        if self.book.is_none() {
            return true;
        }
        let Some(row) = &case.row else {
            return false;
        };
        let before = standing::told_before(row);
        let told = verdict::after(&before, event);
        let mut all = row.told_now();
        all.any(|known| known.event_id() == told.event_id())
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
