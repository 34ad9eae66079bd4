//! What every broker must do, judged from outside: one list of cases, run against the embedded broker in each
//! durability and against every RabbitMQ we support. Nothing here knows which broker it talks to.

mod access;
mod consuming;
mod publishing;
mod shelves;

pub use access::*;
pub use consuming::*;
pub use publishing::*;
pub use shelves::*;

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vumi_core::broker::{
    Access, Broker, Confirmation, ConsumerState, EXCHANGE, Publication, PublicationClass,
    QueueSpec, RawDelivery, Subscribe, Subscription,
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long we watch that something does not happen.
const QUIET: Duration = Duration::from_millis(300);

/// A broker under test.
#[async_trait]
pub trait Rig: Send + Sync {
    /// Another independent connection to it, up.
    async fn connect(&self) -> Arc<dyn Broker>;

    /// Whether its queues are kept by several nodes. Such a queue sends to one consumer at a time, counts a cancelled one
    /// while it holds something, and puts a single returned message last.
    fn replicated(&self) -> bool {
        false
    }
}

/// Makes one test per case, in a module of its own. The expression makes a [`Rig`] and may await.
#[macro_export]
macro_rules! broker_suite {
    ($module:ident, $rig:expr) => {
        $crate::broker_suite!(@cases $module, $rig,
            bodies_ids_and_keys_arrive
            data_queue_is_declared_by_its_publisher
            missing_queue_returns_a_direct_publication
            telemetry_to_nowhere_is_fine
            parking_queue_is_not_bound
            prefetch_is_a_hard_bound
            single_and_multiple_acks
            unacked_returns_in_order_after_close
            unacked_returns_in_order_after_rebuild
            old_generation_changes_nothing
            requeue_comes_back
            cancel_keeps_what_is_in_flight
            release_gives_messages_and_fence_in_one_step
            fence_has_one_holder_and_a_standby
            order_outlives_many_handovers
            fence_excludes_plain_consumers
            shared_consumers_compete
            reply_queue_vanishes_with_its_owner
            reply_queue_is_exclusive
            copy_queues_get_copies
            depth_counts_what_is_ready
            shelf_takes_at_most_its_limit
            shelf_excludes_others
            shelf_is_refused_while_a_worker_consumes
            dropped_shelf_returns_everything
            ten_thousand_in_flight
            dropped_subscription_returns_everything
            backlog_waits_for_a_consumer
            close_flushes
        );
    };
    (@cases $module:ident, $rig:expr, $($case:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let rig = $rig;
                    $crate::broker_suite::$case(&rig).await;
                }
            )*
        }
    };
}

/// A name that no other test and no earlier run has used.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("clock")
        .as_nanos();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{now:x}-{n}.inbound", std::process::id())
}

/// A message for a data queue.
pub fn data(queue: &str, body: impl Into<Bytes>) -> Publication {
    Publication {
        exchange: EXCHANGE.into(),
        routing_key: queue.into(),
        body: body.into(),
        message_id: None,
        class: PublicationClass::Data,
    }
}

fn direct(exchange: &str, key: &str, body: &str) -> Publication {
    Publication {
        exchange: exchange.into(),
        routing_key: key.into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        message_id: None,
        class: PublicationClass::Direct,
    }
}

fn telemetry(exchange: &str, key: &str, body: &str) -> Publication {
    Publication {
        class: PublicationClass::Telemetry,
        ..direct(exchange, key, body)
    }
}

/// Publishes one message and returns what became of it.
pub async fn publish(broker: &Arc<dyn Broker>, publication: Publication) -> Confirmation {
    let fate = async { broker.publish(publication).await.confirmation().await };
    tokio::time::timeout(PATIENCE, fate)
        .await
        .expect("no confirmation in time")
}

/// Publishes the numbers as bodies, pipelined, and checks that all are confirmed.
pub async fn send(broker: &Arc<dyn Broker>, queue: &str, numbers: std::ops::RangeInclusive<u32>) {
    let mut receipts = Vec::new();
    for n in numbers {
        receipts.push(broker.publish(data(queue, n.to_string())).await);
    }
    for receipt in receipts {
        let fate = tokio::time::timeout(PATIENCE, receipt.confirmation()).await;
        assert_eq!(fate, Ok(Confirmation::Confirmed));
    }
}

/// Starts a consumer of a data queue.
pub async fn consume(
    broker: &Arc<dyn Broker>,
    queue: &str,
    prefetch: u16,
    access: Access,
) -> Subscription {
    consume_spec(broker, QueueSpec::Data(queue.into()), prefetch, access).await
}

async fn consume_spec(
    broker: &Arc<dyn Broker>,
    queue: QueueSpec,
    prefetch: u16,
    access: Access,
) -> Subscription {
    let subscribe = Subscribe {
        queue,
        prefetch,
        access,
        tag: unique("consumer"),
    };
    tokio::time::timeout(PATIENCE, broker.subscribe(subscribe))
        .await
        .expect("subscribe hangs")
}

/// Waits until the consumer is in a state.
pub async fn until(subscription: &Subscription, what: fn(&ConsumerState) -> bool) {
    let mut state = subscription.state.clone();
    if tokio::time::timeout(PATIENCE, state.wait_for(what))
        .await
        .is_err()
    {
        panic!("the consumer stays {:?}", *subscription.state.borrow());
    }
}

/// Waits until the broker sends messages to the consumer.
pub async fn consuming(subscription: &Subscription) {
    until(subscription, |s| *s == ConsumerState::Consuming).await;
}

fn is_standby(state: &ConsumerState) -> bool {
    matches!(state, ConsumerState::Standby(_))
}

/// The next delivery.
pub async fn next(subscription: &mut Subscription) -> RawDelivery {
    match tokio::time::timeout(PATIENCE, subscription.deliveries.recv()).await {
        Ok(Some(delivery)) => delivery,
        Ok(None) => panic!("the consumer ended"),
        Err(_) => panic!(
            "no delivery in time; the consumer is {:?}",
            *subscription.state.borrow()
        ),
    }
}

async fn next_numbers(subscription: &mut Subscription, count: usize) -> Vec<RawDelivery> {
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(next(subscription).await);
    }
    deliveries
}

fn numbers(deliveries: &[RawDelivery]) -> Vec<u32> {
    deliveries.iter().map(number).collect()
}

/// The number in a body.
pub fn number(delivery: &RawDelivery) -> u32 {
    String::from_utf8_lossy(&delivery.body)
        .parse()
        .expect("a number")
}

async fn quiet(subscription: &mut Subscription) {
    if let Ok(Some(delivery)) = tokio::time::timeout(QUIET, subscription.deliveries.recv()).await {
        panic!("an unexpected delivery: {delivery:?}");
    }
}

/// Waits until a queue has this many ready messages and consumers.
pub async fn until_depth(
    broker: &Arc<dyn Broker>,
    queue: &str,
    ready: u32,
    consumers: Option<u32>,
) {
    let begin = Instant::now();
    loop {
        let depth = broker.depth(queue).await.expect("depth");
        if depth.is_some_and(|d| d.ready == ready && consumers.is_none_or(|c| d.consumers == c)) {
            return;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "depth stays {depth:?}, not {ready} ready and {consumers:?} consumers"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn ack(subscription: &Subscription, delivery: &RawDelivery, multiple: bool) -> bool {
    subscription
        .acker
        .ack(delivery.generation, delivery.tag, multiple)
}
