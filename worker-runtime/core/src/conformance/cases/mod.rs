//! The cases, one table: each gets a fresh bench with the worker running, and must leave it so that the counts add up.

mod broker;
mod errors;
mod flow;
mod freeze;
mod journal;
mod outage;
mod peer;
mod rebalance;
mod reload;
mod stop;
mod surface;
mod unroutable;

use super::fixture::{divided, load};
use super::oracle::{Demands, Oracle};
use super::rig::Rig;
use crate::message::Message;
use crate::worker::Registration;
use futures::future::LocalBoxFuture;
use std::collections::BTreeSet;
use std::time::Duration;
use vumi_api::{Flow, Kind, OrderingMode, Port};

/// What decides whether a case applies to a worker type.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) has_peer: bool,
    pub(super) ordering: OrderingMode,
    pub(super) holds_requests: bool,
    /// Its queues may be divided into partitions.
    pub(super) divisible: bool,
}

impl Subject {
    pub(super) fn of(registration: &Registration) -> Self {
        let fixture = (registration.fixture)();
        // A fixture that cannot be loaded fails every case, so nothing is lost by reading it as none.
        let loaded = load(&fixture, 1, "");
        let divisible = matches!(&loaded, Ok((_, document)) if divided(document, 2).is_ok());
        let topology = loaded.map(|(resource, _)| resource.topology());
        Self {
            kind: registration.kind,
            has_peer: fixture.peer.is_some(),
            ordering: registration.ordering,
            holds_requests: topology.is_ok_and(|t| t.holds_requests),
            divisible,
        }
    }
}

/// One demand on every worker type it applies to.
pub(super) struct Case {
    /// Name, as waivers have it.
    pub(super) name: &'static str,
    pub(super) applies: fn(&Subject) -> bool,
    pub(super) run: for<'a> fn(&'a mut Rig) -> LocalBoxFuture<'a, Result<(), String>>,
}

fn all(_: &Subject) -> bool {
    true
}

fn with_peer(subject: &Subject) -> bool {
    subject.has_peer
}

fn holders(subject: &Subject) -> bool {
    subject.has_peer && subject.holds_requests
}

fn transports(subject: &Subject) -> bool {
    subject.kind == Kind::Transport
}

fn dispatchers(subject: &Subject) -> bool {
    subject.kind == Kind::Dispatcher
}

fn ordered_users(subject: &Subject) -> bool {
    subject.ordering == OrderingMode::PerUser
}

fn parallel_users(subject: &Subject) -> bool {
    subject.ordering != OrderingMode::PerQueue
}

fn divisible(subject: &Subject) -> bool {
    subject.ordering == OrderingMode::PerUser && subject.divisible
}

macro_rules! cases {
    ($( $name:literal $applies:ident $module:ident :: $function:ident; )*) => {
        /// Every case.
        pub(super) const CASES: &[Case] = &[
            $(Case {
                name: $name,
                applies: $applies,
                run: |rig| Box::pin($module::$function(rig)),
            },)*
        ];
    };
}

cases! {
    "manifest" all surface::manifest;
    "statuses" all surface::statuses;
    "metrics" all surface::metrics;
    "flow" all flow::everything_flows;
    "metadata" all flow::metadata_is_kept;
    "unknown-fields" dispatchers flow::unknown_fields_are_kept;
    "order" all flow::order_per_user;
    "confirm-before-ack" all broker::confirmed_before_acknowledged;
    "crash-before-ack" all broker::crash_between_confirm_and_ack;
    "crash-while-sending" transports broker::crash_while_sending;
    "freeze" all freeze::another_takes_over;
    "publication-troubles" all broker::publications_are_repeated;
    "channel-lost" all broker::channel_lost;
    "window" all broker::window_is_bounded;
    "broker-away" all outage::broker_away_and_back;
    "unroutable" all unroutable::set_aside;
    "unroutable-told" dispatchers unroutable::sender_is_told;
    "garbage" all errors::garbage_is_parked;
    "temporary-error" parallel_users errors::temporary_error_holds_one_user;
    "order-divert" ordered_users journal::order_through_divert;
    "permanent-error" all errors::permanent_error;
    "panic" all errors::panic_is_parked;
    "stop-finishes" all stop::stop_finishes_what_runs;
    "stop-bounded" all stop::stop_is_bounded;
    "no-task-left" all stop::nothing_is_left;
    "reload" all reload::messages_flow_through;
    "rebalance" divisible rebalance::order_through_it;
    "conversation" with_peer peer::conversation;
    "peer-garbage" with_peer peer::garbage;
    "peer-confirm" with_peer peer::publication_troubles;
    "peer-unroutable" with_peer unroutable::peer_is_told;
    "peer-broker-away" with_peer outage::peer_waits;
    "peer-reload" with_peer reload::peers_are_served;
    "drain" with_peer peer::replies_during_a_stop;
    "replicas" holders peer::replicas;
}

/// Notes that `id` must come out, in the order of its user.
fn owe(oracle: &mut Oracle, port: &Port, user: usize, id: &str) {
    // Each event is about another message, and order is promised per message only.
    let whose = match port.flow {
        Flow::Event => id.to_owned(),
        Flow::Inbound | Flow::Outbound => format!("{port} {user}"),
    };
    oracle.owe(id, &whose, Duration::ZERO);
}

/// Waits for everything that is owed, and demands that nothing is lost, that repeats are equal, and that order is kept
/// where the worker type keeps it.
async fn judge(rig: &Rig, mut oracle: Oracle) -> Result<(), String> {
    let ids: BTreeSet<String> = oracle.open().into_iter().map(str::to_owned).collect();
    for id in &ids {
        rig.far_end.output_of(id).await?;
    }
    rig.settle().await?;
    for seen in rig.far_end.seen() {
        let cause = cause(rig.registration.kind, &seen.message);
        if ids.contains(cause) {
            let place = seen.place();
            oracle.observe(cause, &place, seen.message.id(), Duration::ZERO);
        }
    }
    let order = rig.resource.ordering_mode() != OrderingMode::None;
    let within = None;
    oracle.judge(Demands { order, within }).require()
}

/// The message that caused an output: itself for a dispatcher, which only forwards.
fn cause(kind: Kind, message: &Message) -> &str {
    match (kind, message) {
        (Kind::Dispatcher, m) => m.id(),
        (_, Message::User(m)) => m.in_reply_to().unwrap_or_default(),
        (_, Message::Event(e)) => e.user_message_id(),
    }
}
