//! The metrics themselves: every name and label in one place. Labels are bounded: never an address, an id or a provider's
//! code.

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;

pub(super) const BUILD_INFO: &str = "1, with the version as a label.";
pub(super) const UPTIME: &str = "Age of the process, in seconds.";

macro_rules! metrics {
    ($( $field:ident : $kind:ident = $name:literal [$($label:literal),*] $help:literal; )*) => {
        pub(super) struct Families {
            $( pub(super) $field: $kind, )*
        }

        impl Families {
            pub(super) fn new(registry: &Registry) -> Self {
                Self {
                    $( $field: register(registry, <$kind as Family>::make($name, $help, &[$($label),*])), )*
                }
            }

            /// Removes every series of one worker or store.
            pub(super) fn forget(&self, label: &str, value: &str) {
                $( self.$field.forget(label, value); )*
            }
        }

        /// Every metric as `(name, kind, labels, meaning)`, for the reference pages.
        pub const METRICS: &[(&str, &str, &[&str], &str)] = &[
            ("vumi_build_info", "gauge", &["version"], BUILD_INFO),
            ("vumi_uptime_seconds", "gauge", &[], UPTIME),
            $( ($name, <$kind as Family>::KIND, &[$($label),*], $help), )*
        ];
    };
}

metrics! {
    received: IntCounterVec = "vumi_messages_received_total" ["worker", "queue"]
        "Messages taken from the broker or out of the journal.";
    journaled: IntCounterVec = "vumi_journaled_total" ["worker", "queue"]
        "Messages moved into the journal, or left to wait on there.";
    replayed: IntCounterVec = "vumi_replayed_total" ["worker", "queue"]
        "Of those received: messages taken out of the journal.";
    journal_expired: IntCounterVec = "vumi_journal_expired_total" ["worker", "queue"]
        "Messages that ended because they had waited in the journal as long as retention.journal allows.";
    journal_messages: IntGaugeVec = "vumi_journal_messages" ["worker", "queue"]
        "Messages that wait in the journal of a consumed queue.";
    journal_lanes: IntGaugeVec = "vumi_journal_lanes" ["worker", "queue"]
        "Lanes that wait in the journal of a consumed queue.";
    journal_oldest: GaugeVec = "vumi_journal_oldest_seconds" ["worker", "queue"]
        "Age of the oldest message that came out of the journal in the last minutes, since its first delivery, in seconds; 0 when the journal is empty.";
    done: IntCounterVec = "vumi_messages_done_total" ["worker", "queue"]
        "Deliveries handled: everything they caused is confirmed, and they are acknowledged.";
    retried: IntCounterVec = "vumi_messages_retried_total" ["worker", "queue"]
        "Attempts after the first.";
    parked: IntCounterVec = "vumi_messages_parked_total" ["worker", "queue"]
        "Deliveries set aside with a reason.";
    returned: IntCounterVec = "vumi_messages_returned_total" ["worker", "queue"]
        "Deliveries given back unhandled, or whose verdict came after their channel was lost; the broker delivers them again.";
    in_flight: IntGaugeVec = "vumi_messages_in_flight" ["worker", "queue"]
        "Deliveries being handled, waits in lanes and for retries included.";
    handling: HistogramVec = "vumi_handling_seconds" ["worker", "queue"]
        "Time from delivery to verdict, in seconds.";
    oldest: GaugeVec = "vumi_oldest_message_seconds" ["worker", "queue"]
        "Age of the oldest message that waits, in seconds; 0 when none does, and where another replica reads the queue.";
    ready: IntGaugeVec = "vumi_queue_ready" ["worker", "queue"]
        "Messages ready in a consumed queue, as the broker says.";
    kept: IntGaugeVec = "vumi_parked_kept" ["worker", "queue"]
        "Messages in the parking queue of a consumed queue.";
    backlog: IntGaugeVec = "vumi_backlog" ["worker", "queue"]
        "Messages ready in a target queue; above backlogLimit new work is refused.";
    published: IntCounterVec = "vumi_published_total" ["worker", "queue"]
        "Messages published and confirmed.";
    republished: IntCounterVec = "vumi_republished_total" ["worker", "queue"]
        "Publications repeated because the broker refused them or the connection was lost.";
    errors: IntCounterVec = "vumi_errors_total" ["worker", "class", "code"]
        "Failed attempts and refused messages by error class and code.";
    nacks: IntCounterVec = "vumi_nacks_total" ["worker", "class"]
        "Outbound messages that will not be delivered, by failure class; their senders got a nack event.";
    ledger_rows: IntGaugeVec = "vumi_ledger_rows" ["worker", "state"]
        "Rows of the ledger by state: outbound messages that this transport took over.";
    ledger_overdue: IntGaugeVec = "vumi_ledger_overdue" ["worker"]
        "Rows without a step past the deadline of their state: messages that may be lost. Should be 0.";
    unknown: IntCounterVec = "vumi_unknown_total" ["worker"]
        "Messages that were sent and whose answer was lost, so that a receipt is waited for.";
    resent: IntCounterVec = "vumi_resent_total" ["worker"]
        "Messages sent again although the peer may have them: by onUnknown, or requeued by a person.";
    suppressed: IntCounterVec = "vumi_events_suppressed_total" ["worker"]
        "Answers and receipts that were not told because the message had its ack, nack or end already.";
    duplicates: IntCounterVec = "vumi_duplicates_suppressed_total" ["worker"]
        "Messages that the provider delivered again and that got their first answer.";
    evicted: IntCounterVec = "vumi_first_seen_evicted_total" ["worker"]
        "Remembered messages of the provider that were forgotten before their time because there were too many.";
    trail_lost: IntCounterVec = "vumi_trail_lost_total" ["worker"]
        "Hops that `vumi why` will not show because the state store did not take them.";
    rate_limit: GaugeVec = "vumi_rate_limit" ["worker"]
        "Messages or parts a second that may be sent now; lower than rateLimit after the peer asked to slow down.";
    throttled: IntCounterVec = "vumi_throttled_total" ["worker", "by"]
        "Messages that waited: by limit (ours), by peer (it asked to slow down).";
    unknown_class: IntCounterVec = "vumi_unknown_class_total" ["worker"]
        "Messages whose helper_metadata.class is no class, so that they got the default one.";
    consumer: IntGaugeVec = "vumi_consumer_state" ["worker", "queue", "state"]
        "1 for the state the consumer is in: connecting, consuming, standby, paused, refused, stopped.";
    rebuilt: IntCounterVec = "vumi_consumer_rebuilt_total" ["worker", "queue"]
        "Channels rebuilt because the broker had messages and sent none.";
    broker_up: IntGaugeVec = "vumi_broker_up" ["worker"]
        "1 while the broker connection is up and not blocked.";
    ready_state: IntGaugeVec = "vumi_worker_ready" ["worker"]
        "1 while the worker is ready.";
    component: IntGaugeVec = "vumi_component_status" ["worker", "component"]
        "Last status of a component: 0 ok, 1 degraded, 2 down.";
    link_last: GaugeVec = "vumi_link_last_traffic_timestamp_seconds" ["worker", "direction"]
        "When the peer last sent something (inbound) or took something (outbound), in seconds since 1970.";
    link_up: IntGaugeVec = "vumi_link_up" ["worker", "component"]
        "1 while a part towards the peer (listener, bind, …) works.";
    link_since: GaugeVec = "vumi_link_state_timestamp_seconds" ["worker", "component"]
        "Since when vumi_link_up has its value, in seconds since 1970.";
    link_transitions: IntCounterVec = "vumi_link_transitions_total" ["worker", "component", "to"]
        "Changes of a part towards the peer, by the new state: ok, degraded, down.";
    http_seconds: HistogramVec = "vumi_http_request_seconds" ["worker", "direction", "result"]
        "Time of HTTP requests, in seconds: of those that come in until their answer, of those that go out until the whole answer is here; by result: 2xx, 4xx, …, timeout, or failed where no request could be made.";
    http_open: IntGaugeVec = "vumi_http_open" ["worker"]
        "Requests that wait for the reply of an application.";
    deadlines: IntCounterVec = "vumi_session_deadline_missed_total" ["worker"]
        "Requests that were answered without the application, because the network would not have waited longer.";
    late_replies: IntCounterVec = "vumi_late_reply_total" ["worker"]
        "Replies whose request had ended.";
    repeated_parameters: IntCounterVec = "vumi_http_repeated_parameters_total" ["worker"]
        "Requests in which a parameter came more than once: its first value counts.";
    unclear_numbers: IntCounterVec = "vumi_unclear_numbers_total" ["worker", "direction"]
        "Numbers of users that belong to no numbering plan, or to two: inbound in requests, outbound in messages to be sent.";
    receipts: IntCounterVec = "vumi_receipts_total" ["worker", "state"]
        "Receipts of the provider by what they say: delivered, failed, pending, unknown (a status that nobody wrote down), orphan (of no message that is known).";
    peer_restarts: IntCounterVec = "vumi_peer_restarts_total" ["worker"]
        "How often the side towards the peer ended and was started again.";
    store_up: IntGaugeVec = "vumi_state_up" ["store"]
        "1 while a state store answers.";
    store_operations: IntCounterVec = "vumi_state_operations_total" ["store", "operation", "result"]
        "Operations on a state store by result: ok, error.";
    store_seconds: HistogramVec = "vumi_state_operation_seconds" ["store", "operation"]
        "Time that an operation on a state store took, in seconds.";
}

trait Family: Collector + Clone + 'static {
    const KIND: &'static str;
    fn make(name: &str, help: &str, labels: &[&str]) -> Self;
    fn forget(&self, label: &str, value: &str);
}

macro_rules! family {
    ($type:ident, $kind:literal, $options:ident) => {
        impl Family for $type {
            const KIND: &'static str = $kind;

            fn make(name: &str, help: &str, labels: &[&str]) -> Self {
                $type::new($options::new(name, help).into(), labels)
                    .unwrap_or_else(|e| unreachable!("{name}: {e}"))
            }

            fn forget(&self, label: &str, value: &str) {
                for family in self.collect() {
                    for metric in family.get_metric() {
                        let labels: HashMap<&str, &str> = metric
                            .get_label()
                            .iter()
                            .map(|l| (l.name(), l.value()))
                            .collect();
                        if labels.get(label) == Some(&value) {
                            let _ = self.remove(&labels);
                        }
                    }
                }
            }
        }
    };
}

family!(IntCounterVec, "counter", Opts);
family!(IntGaugeVec, "gauge", Opts);
family!(GaugeVec, "gauge", Opts);
family!(HistogramVec, "histogram", HistogramOpts);

fn register<C: Family>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .unwrap_or_else(|e| unreachable!("metric names are unique: {e}"));
    collector
}
