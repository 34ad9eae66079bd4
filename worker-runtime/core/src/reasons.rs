//! Every reason of a component's status, registered once with a sentence and who must act. `vumi explain REASON` and the
//! reference pages print this table; the reasons that a queue cannot be consumed are the ends of codes.

use crate::codes::{self, Code};
use crate::message::Actor;

/// A reason such as `slowed_down`: what stands in a status message as its `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The name, snake_case.
    pub name: &'static str,
    /// Components that report it.
    pub component: &'static str,
    /// What it means, in one sentence.
    pub meaning: &'static str,
    /// What to do about it; empty where all is well.
    pub fix: &'static str,
    /// Who must act.
    pub who: Actor,
}

macro_rules! reasons {
    ($( $konst:ident = $component:literal, $name:literal, $meaning:literal, $fix:literal, $who:ident; )*) => {
        $(
            #[doc = $meaning]
            pub const $konst: Reason = Reason {
                name: $name,
                component: $component,
                meaning: $meaning,
                fix: $fix,
                who: Actor::$who,
            };
        )*

        const TABLE: &[Reason] = &[$($konst),*];
    };
}

reasons! {
    CONNECTED = "broker", "connected", "The broker answers.", "", Nobody;
    UNREACHABLE = "broker", "unreachable", "The broker cannot be reached; it is tried again all the time.",
        "Check that it runs and that host, port and network allow the connection.", Operator;
    REFUSED = "broker, queue", "refused", "The broker answered and refused user, password or virtual host, or speaks TLS where we do not, or the other way round.",
        "Correct user, password, virtual host or TLS in the broker's Secret or the flags.", Operator;
    BLOCKED = "broker", "blocked", "The broker takes no messages for now: it is short of memory or disk.",
        "Free memory or disk at the broker; nothing is lost, and work goes on by itself.", Operator;
    CLOSED = "broker", "closed", "The connection was closed because the worker stops.", "", Nobody;

    CONSUMING = "queue", "consuming", "The queue is read.", "", Nobody;
    STANDBY = "queue", "standby", "Another replica reads the queue; this one takes over when it ends.", "", Nobody;
    TOO_MANY_PARKED = "queue", "too_many_parked", "The worker paused because too many messages had to be set aside.",
        "Look with `vumi parked list`, cure the cause, requeue or drop, then `vumi parked resume`.", Operator;
    BACKLOG_FULL = "queue, target", "backlog_full", "Too many messages wait in a queue that this worker publishes to; it takes no new work until they are fewer.",
        "Start or scale the consumer of that queue, or raise backlogLimit.", Operator;

    FLOWING = "target", "flowing", "The queue that the worker publishes to is there.", "", Nobody;
    NOT_DECLARED = "target", "not_declared", "A queue that the worker publishes to cannot be declared.",
        "Often the user may not configure queues of this name: give it the right, or declare the queue for it.", Operator;
    QUEUE_UNAVAILABLE = "queue, target", "queue_unavailable", "The broker's node that has the queue is away.",
        "Start that node again; nothing in the queue is lost.", Operator;
    NO_CONSUMER = "target", "no_consumer", "Nobody has read the queue for five minutes; messages wait there.",
        "Start the worker that reads it, or correct the name: `vumi lint` finds slips.", Operator;

    REDIVIDING = "partitions", "redividing", "The queue was divided differently before: what waits in the old parts is finished first, and new messages wait.",
        "Nothing, if it passes; `vumi journal list` shows what waits for its time, and `vumi journal release` ends that.", Operator;
    DIVISION_UNSETTLED = "partitions", "division_unsettled", "How the queue was divided is not known or cannot be changed, because the broker or the state store does not answer or another replica still has something; new messages wait.",
        "Look at the broker, the state store and the other replicas; it is tried again all the time.", Operator;
    DIVIDED = "partitions", "divided", "The queue is divided as the manifest says.", "", Nobody;

    UP = "state", "up", "The state store answers.", "", Nobody;
    STATE_UNAVAILABLE = "state", "state_unavailable", "The state store does not answer: what needs it waits.",
        "Check the store; work goes on by itself when it answers.", Operator;
    STATE_NOT_DURABLE = "state", "state_not_durable", "What the worker keeps in its state store may be lost in a crash, and the broker would have kept it.",
        "Let Redis write an append-only file (appendonly yes), or give `vumi run` a --state folder; `allowVolatileState: true` accepts the risk.", Operator;

    NOTHING_KEPT = "journal", "nothing_kept", "No message waits in the worker's journals.", "", Nobody;
    MESSAGES_KEPT = "journal", "messages_kept", "Messages wait in the worker's journals: for a retry, their turn or their time.", "", Nobody;

    LEDGER_ON = "ledger", "on", "Every outbound message has a row.", "", Nobody;
    LEDGER_OFF = "ledger", "off", "There is no state store: a message that comes again may be sent again, and `vumi why` knows nothing of it.",
        "Nothing, if that is meant; else name a store in spec.state.", Nobody;
    OVERDUE = "ledger", "overdue", "Messages are without news for longer than they should be.",
        "`vumi ledger overdue` lists them, and `vumi why MESSAGE` tells more of each.", Operator;

    FULL_SPEED = "throttled", "full_speed", "Messages are sent as fast as rateLimit allows.", "", Nobody;
    SLOWED_DOWN = "throttled", "slowed_down", "The peer asked to slow down: messages are sent slower for a while.",
        "Nothing, if it passes. If it lasts, set rateLimit to what the provider allows.", Operator;

    RESTARTING = "peer", "restarting", "The side of the transport towards its peer failed and is started again until it works.",
        "Look at the peer and the log; if it does not pass, correct the settings of the transport.", Operator;
    RESTARTED = "peer", "restarted", "The side towards the peer works again.", "", Nobody;

    LISTENING = "listener", "listening", "The worker accepts connections.", "", Nobody;
    LISTEN_FAILED = "listener", "listen_failed", "The address to listen on cannot be opened.",
        "Stop the program that uses the port (`ss -ltnp` shows it), or write another port; a host must be an address of this machine.", Operator;
    ACCEPT_FAILED = "listener", "accept_failed", "A connection could not be taken, often because too many files are open.",
        "Raise the limit of open files, or lower the limit of connections.", Operator;

    REQUEST_PARSED = "request", "request_parsed", "Requests are valid again.", "", Nobody;
    NO_BAD_REQUEST = "request", "no_bad_request", "No request was refused for a while.", "", Nobody;
    INVALID_REQUEST = "request", "invalid_request", "A request lacks parameters or has wrong ones, or its body cannot be read; the caller was told which.",
        "Ask the caller; if the provider changed its requests, change the description.", Operator;
    REPEATED_PARAMETER = "request", "repeated_parameter", "A request has more than one value of a parameter; the first counted, and the request was taken.",
        "Ask the caller which one it means; if it means nothing, let it send one.", Operator;
    WRONG_CREDENTIALS = "request", "wrong_credentials", "A request has wrong credentials, or none; it was refused.",
        "If it was the provider's, compare the Secret with what the provider was given.", Operator;
    WRONG_SIGNATURE = "request", "wrong_signature", "A request has a wrong signature, or none, or was signed too long ago; it was refused.",
        "If it was the provider's, compare the secrets and the clocks.", Operator;
    UNKNOWN_SESSION = "request", "unknown_session", "A request is of a session that is not known, and does not begin one.",
        "Nothing, if it passes: its time was over. If it lasts, keep sessions longer, or correct `session.begins`.", Operator;
    CANNOT_ANSWER = "request", "cannot_answer", "A request could not be handled: a template cannot be filled in with what it holds, a Secret is missing or empty, or the state store is away.",
        "Correct the template or the Secret, or look at the state store.", Operator;
    REQUEST_TOO_LARGE = "request", "request_too_large", "A request has a body above http.maxBody; it was refused with 413.",
        "Raise http.maxBody if it was the provider's.", Operator;
    REQUEST_TOO_SLOW = "request", "request_too_slow", "A request did not arrive in time.",
        "Nothing, if it passes; if it lasts, look at the network, or at who sends such requests.", Operator;
    REQUEST_BROKEN_OFF = "request", "request_broken_off", "A connection ended in the middle of a request.",
        "Nothing, if it passes; if it lasts, look at the network between the caller and us.", Operator;
    NOT_HTTP = "request", "not_http", "What a caller sent is not HTTP.",
        "Somebody speaks TLS or another protocol to this port, or tries what is there.", Operator;
    TOO_MANY_CONNECTIONS = "request", "too_many_connections", "There are too many connections; further ones get 503.",
        "Scale the transport, or look at who opens them.", Operator;
    TOO_MUCH_AT_ONCE = "request", "too_much_at_once", "The bodies of the requests that arrive at one time are too large together; further ones get 503.",
        "Scale the transport, lower http.maxBody, or look at who sends so much.", Operator;
    CALLER_LEFT = "request", "caller_left", "A caller closed its connection, or its half of it, before its answer was there. A reply that comes later is refused as `reply.session_closed`.",
        "If it lasts, let callers wait longer than requests take (http.requestTimeout), keep their connection open in both directions, and look at proxies between them and us.", Operator;
    ORPHAN_RECEIPT = "request", "orphan_receipt", "Receipts came again and again that name no message of this transport; they are answered as if they were taken.",
        "Ask whether another system sends with the same account; see receipt.unmatched.", Operator;
    ANSWER_NOT_READ = "request", "answer_not_read", "A caller did not read its answer in time; its connection was closed.",
        "Nothing, if it passes; if it lasts, look at the caller, or at the network.", Operator;

    PROVIDER_ANSWERED = "provider", "provider_answered", "The provider takes messages.", "", Nobody;
    PROVIDER_UNREACHABLE = "provider", "provider_unreachable", "The provider cannot be reached; messages are tried again.",
        "Check URL, DNS, TLS and network.", Operator;
    PROVIDER_CREDENTIALS = "provider", "provider_credentials", "The provider refuses our credentials; messages are tried again.",
        "Correct them in the Secret; they take effect without a restart.", Operator;
    PROVIDER_THROTTLES = "provider", "provider_throttles", "The provider asks to slow down; messages are tried again.",
        "If it lasts, set rateLimit to what the provider allows.", Operator;
    PROVIDER_LOST = "provider", "provider_lost", "The provider did not answer in time: it may have a message or not.",
        "See onUnknown; ask the provider if it lasts.", Operator;
    PROVIDER_FAILED = "provider", "provider_failed", "The provider failed and did not take a message, which is tried again.",
        "Ask the provider if it lasts.", Provider;
    DESCRIPTION_FAILED = "provider", "description_failed", "A template of the description could not be filled in with what a message holds; that message was refused.",
        "Let that template stand such messages too.", Operator;

    ENDPOINT_ANSWERED = "endpoint", "endpoint_answered", "The endpoint takes messages.", "", Nobody;
    ENDPOINT_UNREACHABLE = "endpoint", "endpoint_unreachable", "The endpoint cannot be reached; messages wait and are tried again.",
        "Check URL, DNS, TLS and network, and whether the endpoint runs.", Operator;
    ENDPOINT_CREDENTIALS = "endpoint", "endpoint_credentials", "The endpoint refuses our credentials or our signature, or a Secret is missing or wrong; messages wait and are tried again.",
        "Correct the Secret, or what the endpoint expects; it takes effect without a restart.", Operator;
    ENDPOINT_THROTTLES = "endpoint", "endpoint_throttles", "The endpoint asks to slow down; messages wait and are tried again.",
        "Nothing, if it passes; else give the endpoint more room.", Operator;
    ENDPOINT_LOST = "endpoint", "endpoint_lost", "The endpoint did not answer in time; the message is tried again under the same id.",
        "Make the endpoint answer sooner: let it take the message, answer, and work on it afterwards. Or raise client.answerTimeout.", Operator;
    ENDPOINT_FAILED = "endpoint", "endpoint_failed", "The endpoint failed and did not take a message, which is tried again.",
        "Look at the endpoint's own log.", Operator;
    ENDPOINT_REFUSES = "endpoint", "endpoint_refuses", "The endpoint refused a message for good, redirects, or answered what cannot be used; the message was set aside.",
        "Correct the URL, or the endpoint; then `vumi parked requeue` delivers what was set aside.", Operator;

    NUMBER_UNCLEAR = "numbers", "number_unclear", "A number belongs to no numbering plan, or to two. Its message was refused, or went on with the number as it is where unclearNumbers says `pass`.",
        "Look at numbersOf; let the provider write numbers with the country code. A user whose number is written in two ways is two people.", Operator;
    NUMBERS_CLEAR = "numbers", "numbers_clear", "No number was unclear for a while.", "", Nobody;

    DEADLINE = "response", "deadline", "The network would not have waited longer: a user was answered without the application.",
        "Look at the application that replies: `vumi why` shows how far the message came.", Operator;
    RESPONSE_SENT = "response", "response_sent", "Responses are sent in time.", "", Nobody;
    NO_LATE_RESPONSE = "response", "no_late_response", "No response was late for a while.", "", Nobody;
    SLOW_RESPONSE = "response", "slow_response", "A response took longer than http.degradedAfter.",
        "Look at the application that replies, and at how many messages wait before it.", Operator;
    VERY_SLOW_RESPONSE = "response", "very_slow_response", "A response took longer than http.downAfter.",
        "Look at the application that replies, and at how many messages wait before it.", Operator;
    NO_RESPONSE = "response", "timeout", "No reply that could be delivered came in time, and the caller got an error.",
        "Look at the application that replies: `vumi why` shows how far the message came.", Operator;
}

/// Codes with which a queue cannot be consumed: the last part of the code is the reason.
const REFUSALS: &[Code] = &[
    codes::BROKER_QUEUE_TYPE,
    codes::BROKER_FENCE,
    codes::BROKER_FOREIGN,
];

impl Reason {
    /// The reason that a queue cannot be consumed for `code`: `broker.queue_type_mismatch` → `queue_type_mismatch`.
    pub fn of_code(code: &str) -> Self {
        let end = code.rsplit('.').next().unwrap_or(code);
        all().find(|reason| reason.name == end).unwrap_or(REFUSED)
    }
}

fn refusal(code: &Code) -> Reason {
    Reason {
        name: code.name.rsplit('.').next().unwrap_or(code.name),
        component: "queue",
        meaning: code.meaning,
        fix: code.fix,
        who: Actor::Operator,
    }
}

/// All reasons, component by component.
pub fn all() -> impl Iterator<Item = Reason> {
    let table = TABLE.iter().copied();
    table.chain(REFUSALS.iter().map(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_one_name_and_says_what_to_do_where_somebody_must() {
        let names: Vec<_> = all().map(|reason| reason.name).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
        for reason in all() {
            let snake = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(reason.name.chars().all(snake), "{reason:?}");
            assert!(reason.meaning.ends_with('.'), "{reason:?}");
            assert!(
                reason.who == Actor::Nobody || !reason.fix.is_empty(),
                "{reason:?}"
            );
        }
        assert_eq!(
            Reason::of_code("broker.queue_type_mismatch").name,
            "queue_type_mismatch"
        );
        for (code, reason) in [
            ("broker.refused", REFUSED),
            ("broker.queue_unavailable", QUEUE_UNAVAILABLE),
            ("broker.some_day", REFUSED),
        ] {
            assert_eq!(Reason::of_code(code), reason);
        }
    }
}
