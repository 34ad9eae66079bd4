//! The cases, one table: each gets a fresh bench with the worker running, and must leave it so that the counts add up.

mod broker;
mod errors;
mod flow;
mod freeze;
mod journal;
mod odd;
mod outage;
mod peer;
mod rebalance;
mod reload;
mod replicas;
mod stop;
mod surface;
mod unroutable;
mod wire;

use super::fixture::{divided, load};
use super::inside::Inside;
use super::oracle::{Demands, Oracle};
use super::outside::{Level, Outside};
use super::rig::{Rig, UnderTest};
use crate::message::Message;
use crate::worker::Registration;
use futures::future::LocalBoxFuture;
use std::collections::BTreeSet;
use std::time::Duration;
use vumi_api::{Flow, Holds, Kind, OrderingMode, Port};

/// What decides whether a case applies to a worker type.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) has_peer: bool,
    pub(super) ordering: OrderingMode,
    pub(super) holds: Option<Holds>,
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
            holds: topology.ok().and_then(|t| t.holds),
            divisible,
        }
    }

    /// A worker of others.
    pub(super) fn foreign(kind: Kind) -> Self {
        Self {
            kind,
            has_peer: false,
            ordering: OrderingMode::PerUser,
            holds: None,
            divisible: false,
        }
    }
}

/// One demand on every worker type it applies to.
pub(super) struct Case {
    /// Name, as waivers have it.
    pub(super) name: &'static str,
    pub(super) applies: fn(&Subject) -> bool,
    pub(super) run: for<'a> fn(&'a mut Rig<Inside>) -> LocalBoxFuture<'a, Result<(), String>>,
    /// How it is demanded of a worker of others, if it can be: of ours all is demanded.
    pub(super) outside: Option<Outward>,
}

/// What a case needs of a worker of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// It only talks to the worker.
    Nothing,
    /// It ends the worker, or cuts it off: it must start it.
    Command,
    /// It must know a text on which the worker fails.
    Failing,
}

/// A demand on any worker, in whatever language.
pub(super) struct Outward {
    pub(super) level: Level,
    pub(super) needs: Needs,
    /// What is demanded, in a sentence.
    pub(super) says: &'static str,
    /// What to do where it is not met.
    pub(super) fix: &'static str,
    pub(super) run: for<'a> fn(&'a mut Rig<Outside>) -> LocalBoxFuture<'a, Result<(), String>>,
}

fn all(_: &Subject) -> bool {
    true
}

fn with_peer(subject: &Subject) -> bool {
    subject.has_peer
}

fn holders(subject: &Subject) -> bool {
    subject.has_peer && subject.holds.is_some()
}

/// Holders whose replies have an order.
fn session_holders(subject: &Subject) -> bool {
    subject.has_peer
        && subject.holds == Some(Holds::Sessions)
        && subject.ordering != OrderingMode::None
}

fn transports(subject: &Subject) -> bool {
    subject.kind == Kind::Transport
}

/// Whoever passes on or answers messages: a transport answers with events, which carry nothing.
fn carriers(subject: &Subject) -> bool {
    subject.kind != Kind::Transport
}

fn applications(subject: &Subject) -> bool {
    subject.kind == Kind::Application
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
    ($( $name:literal $applies:ident $module:ident :: $function:ident
        $(=> $level:ident $needs:ident $says:literal $fix:literal)?; )*) => {
        /// Every case.
        pub(super) const CASES: &[Case] = &[
            $(Case {
                name: $name,
                applies: $applies,
                run: |rig| Box::pin($module::$function(rig)),
                outside: cases!(@outside $module::$function $(, $level $needs $says $fix)?),
            },)*
        ];
    };
    (@outside $module:ident :: $function:ident) => { None };
    (@outside $module:ident :: $function:ident, $level:ident $needs:ident $says:literal $fix:literal) => {
        Some(Outward {
            level: Level::$level,
            needs: $needs,
            says: $says,
            fix: $fix,
            run: |rig| Box::pin($module::$function(rig)),
        })
    };
}

const TALKS: Needs = Needs::Nothing;
const BREAKS: Needs = Needs::Command;
const FAILS: Needs = Needs::Failing;

cases! {
    "manifest" all surface::manifest;
    "statuses" all surface::statuses;
    "metrics" all surface::metrics;
    "queues" all wire::queues_are_declared => Must BREAKS
        "What it consumes is declared by itself, durable, and bound to the exchange vumi by its own name."
        "Declare the exchange vumi (direct, durable), then each queue (durable, x-queue-type classic), and bind it with its name as routing key.";
    "flow" all flow::everything_flows => Must TALKS
        "Every message is handled and acknowledged, and one that asks for an answer gets it."
        "Consume all its queues, publish the answer to the exchange vumi, then acknowledge; also events, which need no answer.";
    "messages" all wire::messages_are_whole => Must TALKS
        "What it publishes holds every required field, whatever the content, and is persistent."
        "Write all fields, null where there is nothing, as UTF-8 JSON, with delivery mode 2.";
    "other-writers" all wire::sparse_messages => Must TALKS
        "Messages without the fields that may be absent, and with fields that nobody knows, are handled."
        "Read optional fields with a default, ignore unknown ones, and do not parse a timestamp that you do not need.";
    "metadata" carriers flow::metadata_is_kept => Must TALKS
        "transport_metadata is copied into replies unchanged."
        "Copy the object as it is: the transport finds the user's request by it.";
    "helper-metadata" carriers flow::helper_metadata_is_kept => Should TALKS
        "helper_metadata is copied into replies unchanged."
        "Copy the object: middleware and dispatchers route by what they keep there.";
    "replies" applications wire::replies_name_their_cause => Must TALKS
        "A reply names what it answers in in_reply_to, swaps the addresses and keeps transport_name and transport_type."
        "Build replies from the message they answer.";
    "sessions" applications wire::sessions_are_kept => Must TALKS
        "A session that was opened goes on, and nothing is said to one that has ended."
        "Take session_event new with content null; publish nothing for session_event close, and never new in a reply.";
    "opening" applications wire::openings_are_answered => Should TALKS
        "The opening of a session, which has no content, is answered."
        "Greet, or show the menu, when session_event is new and content null: on USSD the user waits for it.";
    "outcomes" transports wire::one_outcome_each => Must TALKS
        "Each outbound message gets exactly one ack or nack, which names it."
        "Publish one event for each: ack with sent_message_id, or nack with nack_reason; user_message_id is the message_id.";
    "unknown-fields" dispatchers flow::unknown_fields_are_kept;
    "order" all flow::order_per_user => Should TALKS
        "Messages of one user come out in the order in which they came in."
        "Handle the messages of one user one after the other.";
    "garbage" all errors::garbage_stops_nothing => Must TALKS
        "Bodies that are no messages stop nothing."
        "Catch what decoding raises, set the body aside in <queue>.parked, acknowledge it and go on.";
    "garbage-parked" all errors::garbage_is_parked => Should TALKS
        "Bodies that are no messages are set aside with the reason."
        "Publish the envelope that the page on the wire protocol describes to <queue>.parked, wait for the confirm, acknowledge.";
    "odd-fields" all odd::odd_fields_stop_nothing => Must TALKS
        "Messages whose fields are of another kind than they should be stop nothing."
        "Look at the kinds of the fields that you use, and treat a message that is not as it should be like a body that cannot be read.";
    "odd-fields-parked" all odd::odd_fields_are_kept => Should TALKS
        "Messages with fields that cannot be right are set aside with the reason."
        "Texts are text or null (a number is read as its text), session_event is null, new, resume or close: publish others to <queue>.parked, wait for the confirm, acknowledge.";
    "no-id" all odd::missing_ids_are_made => Should TALKS
        "A message whose message_id is null or empty is handled under an id derived from its body."
        "Make an id from a hash of the body, so that a repeat gets the same one, and name it in in_reply_to or user_message_id.";
    "handling-fails" all odd::failure_stops_nothing => Must FAILS
        "A message on which handling fails is set aside, and stops nothing."
        "Catch what your own code raises; after some attempts publish the envelope to <queue>.parked, wait for the confirm, acknowledge and go on.";
    "confirm-before-ack" all broker::confirmed_before_acknowledged => Must BREAKS
        "A message is acknowledged only after the broker confirmed what it caused."
        "Use publisher confirms (confirm.select) and wait for them before basic.ack.";
    "crash-before-ack" all broker::crash_between_confirm_and_ack => Must BREAKS
        "What was not acknowledged when the process died is handled again."
        "Consume with acknowledgements, and do not skip messages marked as redelivered.";
    "equal-ids" all broker::repeats_have_equal_ids => Should BREAKS
        "A message that is handled twice causes the same ids both times."
        "Derive message_id and event_id from the id of the message that causes them, for example by a hash, instead of drawing them.";
    "crash-while-sending" transports broker::crash_while_sending;
    "freeze" all freeze::another_takes_over;
    "publication-troubles" all broker::publications_are_repeated => Must BREAKS
        "What the broker refuses, or does not confirm before the connection breaks, is published again."
        "On a nack, a return or a lost connection publish again, or end without acknowledging.";
    "unroutable-kept" all wire::unroutable_is_kept => Must BREAKS
        "A message whose answer no queue takes is not lost: it is set aside or stays unacknowledged."
        "Publish with mandatory, and treat a return as a failure.";
    "channel-lost" all broker::channel_lost;
    "window" all broker::window_is_bounded => Must BREAKS
        "It takes a bounded number of messages at a time."
        "Set a prefetch (basic.qos), 20 for example, and acknowledge by hand.";
    "broker-away" all outage::broker_away_and_back => Must BREAKS
        "After a lost connection it consumes again, and nothing is lost."
        "Connect again with growing waits, or end and be started again.";
    "unroutable" all unroutable::set_aside;
    "unroutable-told" dispatchers unroutable::sender_is_told;
    "temporary-error" parallel_users errors::temporary_error_holds_one_user;
    "order-divert" ordered_users journal::order_through_divert;
    "permanent-error" all errors::permanent_error;
    "panic" all errors::panic_is_parked;
    "stop-finishes" all stop::stop_finishes_what_runs => Should BREAKS
        "On SIGTERM what is at hand is finished and acknowledged, and nothing new begins."
        "Handle SIGTERM: stop consuming, finish, acknowledge, close the connection.";
    "stop-bounded" all stop::stop_is_bounded => Should BREAKS
        "It ends within 30 seconds of SIGTERM, finished or not, and what was not is handled by the next one."
        "Give up waiting for confirms after some seconds; what is not acknowledged comes again.";
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
    "replicas" holders replicas::replies_find_their_replica;
    "replicas-nameless" holders replicas::nameless_replies_find_their_replica;
    "replicas-takeover" session_holders replicas::replies_keep_their_order;
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
async fn judge<W: UnderTest>(rig: &Rig<W>, mut oracle: Oracle) -> Result<(), String> {
    let ids: BTreeSet<String> = oracle.open().into_iter().map(str::to_owned).collect();
    for id in &ids {
        rig.far_end.output_of(id).await?;
    }
    rig.settle().await?;
    for seen in rig.far_end.seen() {
        let cause = cause(rig.kind, &seen.message);
        if ids.contains(cause) {
            let place = seen.place();
            oracle.observe(cause, &place, seen.message.id(), Duration::ZERO);
        }
    }
    let order = rig.ordering != OrderingMode::None;
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
