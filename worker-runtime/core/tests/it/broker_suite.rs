//! What every broker must do, judged from outside: one list of cases, run against the embedded broker in each
//! durability and against every RabbitMQ we support. Nothing here knows which broker it talks to.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vumi_core::broker::{
    Access, Broker, Confirmation, ConsumerState, EXCHANGE, HEALTH_EXCHANGE, LinkState, Publication,
    PublicationClass, QueueSpec, RawDelivery, Subscribe, Subscription,
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long we watch that something does not happen.
const QUIET: Duration = Duration::from_millis(300);

/// A broker under test.
#[async_trait]
pub trait Rig: Send + Sync {
    /// Another independent connection to it, up.
    async fn connect(&self) -> Arc<dyn Broker>;
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
            requeue_comes_back_first
            cancel_keeps_what_is_in_flight
            release_gives_messages_and_fence_in_one_step
            fence_has_one_holder_and_a_standby
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

pub async fn bodies_ids_and_keys_arrive(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("bodies"));
    let bodies = [
        Bytes::from_static(b"{\"plain\": true}"),
        Bytes::new(),
        Bytes::from_static(&[0, 255, 10, 13, 0]),
        Bytes::from(vec![b'x'; 300_000]),
    ];
    for (n, body) in bodies.iter().enumerate() {
        let publication = Publication {
            message_id: (n % 2 == 0).then(|| format!("id-{n}")),
            ..data(&queue, body.clone())
        };
        assert_eq!(publish(&broker, publication).await, Confirmation::Confirmed);
    }
    let mut subscription = consume(&broker, &queue, 10, Access::Shared).await;
    for (n, body) in bodies.iter().enumerate() {
        let delivery = next(&mut subscription).await;
        assert!(delivery.body == *body, "body {n} differs");
        assert_eq!(delivery.routing_key, queue);
        assert_eq!(delivery.message_id, (n % 2 == 0).then(|| format!("id-{n}")));
        assert!(!delivery.redelivered);
        assert_eq!(delivery.delivery_count, None);
        assert!(ack(&subscription, &delivery, false));
    }
}

pub async fn data_queue_is_declared_by_its_publisher(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("declared"));
    assert_eq!(broker.depth(&queue).await.expect("depth"), None);
    send(&broker, &queue, 1..=1).await;
    until_depth(&broker, &queue, 1, Some(0)).await;
    let sent = publish(&broker, direct(EXCHANGE, &queue, "2")).await;
    assert_eq!(sent, Confirmation::Confirmed, "it is bound");
    until_depth(&broker, &queue, 2, Some(0)).await;
}

pub async fn missing_queue_returns_a_direct_publication(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("missing"));
    for exchange in [EXCHANGE, ""] {
        let fate = publish(&broker, direct(exchange, &queue, "1")).await;
        assert!(matches!(fate, Confirmation::Returned(_)), "{fate:?}");
    }
    assert_eq!(broker.depth(&queue).await.expect("depth"), None);
}

pub async fn telemetry_to_nowhere_is_fine(rig: &impl Rig) {
    let broker = rig.connect().await;
    for exchange in [EXCHANGE, HEALTH_EXCHANGE] {
        let fate = publish(&broker, telemetry(exchange, &unique("nowhere"), "1")).await;
        assert_eq!(fate, Confirmation::Confirmed);
    }
}

pub async fn parking_queue_is_not_bound(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("parking"));
    let spec = QueueSpec::Parking(queue.clone());
    broker.declare(&spec).await.expect("declare");
    broker.declare(&spec).await.expect("declare again");
    let bound = publish(&broker, direct(EXCHANGE, &queue, "1")).await;
    assert!(matches!(bound, Confirmation::Returned(_)), "{bound:?}");
    let sent = publish(&broker, direct("", &queue, "1")).await;
    assert_eq!(sent, Confirmation::Confirmed);
    until_depth(&broker, &queue, 1, Some(0)).await;
}

pub async fn prefetch_is_a_hard_bound(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("prefetch"));
    send(&broker, &queue, 1..=12).await;
    let mut subscription = consume(&broker, &queue, 5, Access::Shared).await;
    let taken = next_numbers(&mut subscription, 5).await;
    assert_eq!(numbers(&taken), [1, 2, 3, 4, 5]);
    quiet(&mut subscription).await;
    assert!(ack(&subscription, &taken[2], false));
    assert_eq!(number(&next(&mut subscription).await), 6);
    quiet(&mut subscription).await;
}

pub async fn single_and_multiple_acks(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("acks"));
    send(&broker, &queue, 1..=6).await;
    let mut subscription = consume(&broker, &queue, 10, Access::Shared).await;
    let taken = next_numbers(&mut subscription, 6).await;
    for (n, pair) in taken.windows(2).enumerate() {
        assert_eq!(pair[1].tag, pair[0].tag + 1, "tag {n}");
    }
    assert!(ack(&subscription, &taken[4], false));
    assert!(ack(&subscription, &taken[2], true));
    subscription.acker.close();
    let mut rest = consume(&broker, &queue, 10, Access::Shared).await;
    let left = next_numbers(&mut rest, 2).await;
    assert_eq!(numbers(&left), [4, 6]);
    quiet(&mut rest).await;
    assert!(ack(&rest, &left[1], true));
    rest.acker.close();
    until_depth(&broker, &queue, 0, Some(0)).await;
}

pub async fn unacked_returns_in_order_after_close(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("close"));
    send(&broker, &queue, 1..=5).await;
    let mut first = consume(&broker, &queue, 3, Access::Shared).await;
    let taken = next_numbers(&mut first, 3).await;
    assert!(ack(&first, &taken[1], false));
    assert_eq!(number(&next(&mut first).await), 4);
    first.acker.close();
    let end = tokio::time::timeout(PATIENCE, first.deliveries.recv()).await;
    assert!(matches!(end, Ok(None)), "the stream ends after close");
    until(&first, |s| *s == ConsumerState::Stopped).await;
    assert!(!ack(&first, &taken[0], false), "a verdict after close");
    let mut second = consume(&rig.connect().await, &queue, 10, Access::Shared).await;
    let again = next_numbers(&mut second, 4).await;
    assert_eq!(numbers(&again), [1, 3, 4, 5]);
    let flags: Vec<_> = again.iter().map(|d| d.redelivered).collect();
    assert_eq!(flags, [true, true, true, false]);
}

async fn next_of_later_generation(
    subscription: &mut Subscription,
    old: u64,
    count: usize,
) -> Vec<RawDelivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let delivery = next(subscription).await;
        if delivery.generation > old {
            deliveries.push(delivery);
        }
    }
    deliveries
}

pub async fn unacked_returns_in_order_after_rebuild(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("rebuild"));
    send(&broker, &queue, 1..=6).await;
    let mut subscription = consume(&broker, &queue, 4, Access::Fenced).await;
    let taken = next_numbers(&mut subscription, 4).await;
    assert!(ack(&subscription, &taken[0], false));
    subscription.acker.rebuild();
    let old = taken[0].generation;
    let again = next_of_later_generation(&mut subscription, old, 4).await;
    // The acknowledgement of 1 may still have been on its way; everything else is as it was.
    let skip = numbers(&again).first().map_or(0, |n| n - 1);
    assert!(skip <= 1, "{again:?}");
    assert_eq!(
        numbers(&again),
        (1 + skip..=4 + skip).collect::<Vec<_>>(),
        "in order"
    );
    for delivery in again.iter().filter(|d| number(d) <= 4) {
        assert!(delivery.redelivered, "{delivery:?}");
    }
    consuming(&subscription).await;
}

pub async fn old_generation_changes_nothing(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("generation"));
    send(&broker, &queue, 1..=3).await;
    let mut subscription = consume(&broker, &queue, 10, Access::Shared).await;
    let taken = next_numbers(&mut subscription, 3).await;
    subscription.acker.rebuild();
    let old = taken[0].generation;
    let again = next_of_later_generation(&mut subscription, old, 3).await;
    assert_eq!(numbers(&again), [1, 2, 3]);
    assert!(!ack(&subscription, &taken[2], true));
    assert!(!ack(&subscription, &taken[0], false));
    assert!(!subscription.acker.requeue(old, taken[1].tag));
    quiet(&mut subscription).await;
    subscription.acker.close();
    until_depth(&broker, &queue, 3, Some(0)).await;
}

pub async fn requeue_comes_back_first(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("requeue"));
    send(&broker, &queue, 1..=2).await;
    let mut subscription = consume(&broker, &queue, 1, Access::Shared).await;
    let first = next(&mut subscription).await;
    assert!(subscription.acker.requeue(first.generation, first.tag));
    let again = next(&mut subscription).await;
    assert_eq!((number(&again), again.redelivered), (1, true));
    assert_ne!(again.tag, first.tag);
    assert!(ack(&subscription, &again, false));
    let second = next(&mut subscription).await;
    assert_eq!((number(&second), second.redelivered), (2, false));
}

pub async fn cancel_keeps_what_is_in_flight(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("cancel"));
    send(&broker, &queue, 1..=4).await;
    let mut subscription = consume(&broker, &queue, 2, Access::Shared).await;
    let taken = next_numbers(&mut subscription, 2).await;
    subscription.acker.cancel();
    until_depth(&broker, &queue, 2, Some(0)).await;
    until(&subscription, |s| *s == ConsumerState::Stopped).await;
    assert!(ack(&subscription, &taken[0], false), "still acknowledged");
    quiet(&mut subscription).await;
    subscription.acker.resume();
    consuming(&subscription).await;
    assert_eq!(number(&next(&mut subscription).await), 3);
    assert!(ack(&subscription, &taken[1], false), "still acknowledged");
    assert_eq!(number(&next(&mut subscription).await), 4);
    subscription.acker.close();
    until_depth(&broker, &queue, 2, Some(0)).await;
}

pub async fn release_gives_messages_and_fence_in_one_step(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("release"));
    let mut holder = consume(&one, &queue, 3, Access::Fenced).await;
    consuming(&holder).await;
    let mut standby = consume(&two, &queue, 10, Access::Fenced).await;
    until(&standby, is_standby).await;
    send(&two, &queue, 1..=6).await;
    let taken = next_numbers(&mut holder, 3).await;
    holder.acker.release();
    let over = next_numbers(&mut standby, 6).await;
    assert_eq!(
        numbers(&over),
        [1, 2, 3, 4, 5, 6],
        "nothing overtakes what returns"
    );
    until(&holder, |s| *s == ConsumerState::Stopped).await;
    assert!(!ack(&holder, &taken[0], false), "given up");
    holder.acker.resume();
    until(&holder, is_standby).await;
    standby.acker.close();
    let again = next_numbers(&mut holder, 3).await;
    assert_eq!(numbers(&again), [1, 2, 3]);
}

pub async fn fence_has_one_holder_and_a_standby(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("fence"));
    let mut holder = consume(&one, &queue, 3, Access::Fenced).await;
    consuming(&holder).await;
    let mut standby = consume(&two, &queue, 10, Access::Fenced).await;
    until(&standby, is_standby).await;
    send(&two, &queue, 1..=6).await;
    let taken = next_numbers(&mut holder, 3).await;
    assert_eq!(numbers(&taken), [1, 2, 3]);
    quiet(&mut standby).await;
    until_depth(&two, &queue, 3, Some(1)).await;
    holder.acker.close();
    consuming(&standby).await;
    let over = next_numbers(&mut standby, 6).await;
    assert_eq!(numbers(&over), [1, 2, 3, 4, 5, 6]);
    assert!(over[..3].iter().all(|d| d.redelivered));
}

pub async fn fence_excludes_plain_consumers(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("excludes"));
    let mut holder = consume(&one, &queue, 1, Access::Fenced).await;
    consuming(&holder).await;
    let mut plain = consume(&two, &queue, 10, Access::Shared).await;
    send(&two, &queue, 1..=3).await;
    assert_eq!(number(&next(&mut holder).await), 1);
    quiet(&mut plain).await;
    assert_ne!(*plain.state.borrow(), ConsumerState::Consuming);
    holder.acker.close();
    consuming(&plain).await;
    let rest = next_numbers(&mut plain, 3).await;
    assert_eq!(numbers(&rest), [1, 2, 3]);
    let mut late = consume(&one, &queue, 1, Access::Fenced).await;
    until(&late, is_standby).await;
    quiet(&mut late).await;
}

pub async fn shared_consumers_compete(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("shared"));
    let mut first = consume(&one, &queue, 1, Access::Shared).await;
    let mut second = consume(&two, &queue, 1, Access::Shared).await;
    consuming(&first).await;
    consuming(&second).await;
    send(&one, &queue, 1..=2).await;
    let mut both = [
        number(&next(&mut first).await),
        number(&next(&mut second).await),
    ];
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
    quiet(&mut first).await;
    quiet(&mut second).await;
}

pub async fn reply_queue_vanishes_with_its_owner(rig: &impl Rig) {
    let (owner, other, queue) = (rig.connect().await, rig.connect().await, unique("reply"));
    let spec = QueueSpec::Reply(queue.clone());
    let mut replies = consume_spec(&owner, spec, 10, Access::Shared).await;
    consuming(&replies).await;
    let sent = publish(&other, direct("", &queue, "1")).await;
    assert_eq!(sent, Confirmation::Confirmed);
    let delivery = next(&mut replies).await;
    assert_eq!(number(&delivery), 1);
    let unbound = publish(&other, direct(EXCHANGE, &queue, "2")).await;
    assert!(matches!(unbound, Confirmation::Returned(_)), "{unbound:?}");
    replies.acker.close();
    let begin = Instant::now();
    loop {
        match publish(&other, direct("", &queue, "3")).await {
            Confirmation::Returned(_) => break,
            fate => assert!(begin.elapsed() < PATIENCE, "still {fate:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn reply_queue_is_exclusive(rig: &impl Rig) {
    let (owner, other, queue) = (
        rig.connect().await,
        rig.connect().await,
        unique("exclusive"),
    );
    let spec = QueueSpec::Reply(queue.clone());
    let mut replies = consume_spec(&owner, spec.clone(), 10, Access::Shared).await;
    consuming(&replies).await;
    let mut second = consume_spec(&other, spec, 10, Access::Shared).await;
    let sent = publish(&other, direct("", &queue, "1")).await;
    assert_eq!(sent, Confirmation::Confirmed);
    assert_eq!(number(&next(&mut replies).await), 1);
    quiet(&mut second).await;
    assert_ne!(*second.state.borrow(), ConsumerState::Consuming);
    // A replica that came back under its old name takes over once the old connection is gone.
    owner.close(PATIENCE).await;
    consuming(&second).await;
    let sent = publish(&other, direct("", &queue, "2")).await;
    assert_eq!(sent, Confirmation::Confirmed);
    assert_eq!(number(&next(&mut second).await), 2);
}

pub async fn copy_queues_get_copies(rig: &impl Rig) {
    let broker = rig.connect().await;
    for exchange in [EXCHANGE, HEALTH_EXCHANGE] {
        let keys = vec![unique("status"), unique("status")];
        let copy = |name: &str| QueueSpec::Copy {
            name: unique(name),
            exchange: exchange.into(),
            keys: keys.clone(),
        };
        let mut one = consume_spec(&broker, copy("one"), 10, Access::Shared).await;
        let mut two = consume_spec(&broker, copy("two"), 10, Access::Shared).await;
        consuming(&one).await;
        consuming(&two).await;
        for (n, key) in keys.iter().enumerate() {
            let sent = publish(&broker, telemetry(exchange, key, &n.to_string())).await;
            assert_eq!(sent, Confirmation::Confirmed);
        }
        for subscription in [&mut one, &mut two] {
            for (n, key) in keys.iter().enumerate() {
                let delivery = next(subscription).await;
                assert_eq!(number(&delivery) as usize, n);
                assert_eq!(delivery.routing_key, *key);
                assert!(ack(subscription, &delivery, false));
            }
        }
    }
}

pub async fn depth_counts_what_is_ready(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("depth"));
    assert_eq!(broker.depth(&queue).await.expect("depth"), None);
    send(&broker, &queue, 1..=5).await;
    until_depth(&broker, &queue, 5, Some(0)).await;
    let mut subscription = consume(&broker, &queue, 2, Access::Fenced).await;
    let taken = next_numbers(&mut subscription, 2).await;
    until_depth(&broker, &queue, 3, Some(1)).await;
    assert!(ack(&subscription, &taken[0], false));
    until_depth(&broker, &queue, 2, Some(1)).await;
    subscription.acker.close();
    until_depth(&broker, &queue, 4, Some(0)).await;
}

async fn parked(broker: &Arc<dyn Broker>, queue: &str, count: u32) {
    let spec = QueueSpec::Parking(queue.into());
    broker.declare(&spec).await.expect("declare");
    for n in 1..=count {
        let sent = publish(broker, direct("", queue, &n.to_string())).await;
        assert_eq!(sent, Confirmation::Confirmed);
    }
}

pub async fn shelf_takes_at_most_its_limit(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("shelf"));
    parked(&broker, &queue, 0).await;
    let empty = broker.shelf(&queue, 10).await.expect("shelf");
    assert!(empty.messages().is_empty());
    empty.close().await;
    parked(&broker, &queue, 5).await;
    let mut shelf = broker.shelf(&queue, 3).await.expect("shelf");
    assert_eq!(numbers(shelf.messages()), [1, 2, 3]);
    until_depth(&broker, &queue, 2, None).await;
    let second = shelf.messages()[1].tag;
    shelf.remove(second).await.expect("remove");
    shelf.close().await;
    let spec = QueueSpec::Parking(queue.clone());
    let mut rest = consume_spec(&broker, spec, 10, Access::Shared).await;
    let left = next_numbers(&mut rest, 4).await;
    assert_eq!(numbers(&left), [1, 3, 4, 5]);
    quiet(&mut rest).await;
}

pub async fn shelf_excludes_others(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("shelf2"));
    parked(&one, &queue, 4).await;
    let shelf = one.shelf(&queue, 10).await.expect("shelf");
    assert_eq!(numbers(shelf.messages()), [1, 2, 3, 4]);
    assert!(two.shelf(&queue, 10).await.is_err(), "taken");
    let spec = QueueSpec::Parking(queue.clone());
    let mut waiting = consume_spec(&two, spec, 10, Access::Shared).await;
    let sent = publish(&two, direct("", &queue, "5")).await;
    assert_eq!(sent, Confirmation::Confirmed);
    quiet(&mut waiting).await;
    assert_ne!(*waiting.state.borrow(), ConsumerState::Consuming);
    shelf.close().await;
    let all = next_numbers(&mut waiting, 5).await;
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5]);
}

pub async fn shelf_is_refused_while_a_worker_consumes(rig: &impl Rig) {
    for access in [Access::Shared, Access::Fenced] {
        let (broker, queue) = (rig.connect().await, unique("shelf3"));
        send(&broker, &queue, 1..=3).await;
        let mut worker = consume(&broker, &queue, 1, access).await;
        assert_eq!(number(&next(&mut worker).await), 1);
        assert!(broker.shelf(&queue, 10).await.is_err(), "{access:?}");
        worker.acker.close();
        until_depth(&broker, &queue, 3, Some(0)).await;
        let shelf = broker.shelf(&queue, 10).await.expect("shelf");
        assert_eq!(numbers(shelf.messages()), [1, 2, 3]);
        shelf.close().await;
    }
}

pub async fn dropped_shelf_returns_everything(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("shelf4"));
    parked(&broker, &queue, 3).await;
    let shelf = broker.shelf(&queue, 2).await.expect("shelf");
    assert_eq!(numbers(shelf.messages()), [1, 2]);
    drop(shelf);
    until_depth(&broker, &queue, 3, Some(0)).await;
    let shelf = broker.shelf(&queue, 3).await.expect("shelf");
    assert_eq!(numbers(shelf.messages()), [1, 2, 3]);
    shelf.close().await;
}

pub async fn ten_thousand_in_flight(rig: &impl Rig) {
    const COUNT: u32 = 10_000;
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("many"));
    let mut subscription = consume(&two, &queue, 200, Access::Fenced).await;
    consuming(&subscription).await;
    let target = queue.clone();
    let publisher = tokio::spawn(async move { send(&one, &target, 1..=COUNT).await });
    for n in 1..=COUNT {
        let delivery = next(&mut subscription).await;
        assert_eq!(number(&delivery), n, "order");
        if n % 50 == 0 {
            assert!(ack(&subscription, &delivery, true));
        }
    }
    publisher.await.expect("every receipt says Confirmed");
    subscription.acker.close();
    until_depth(&two, &queue, 0, Some(0)).await;
}

pub async fn dropped_subscription_returns_everything(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("dropped"));
    send(&broker, &queue, 1..=5).await;
    let mut subscription = consume(&broker, &queue, 3, Access::Fenced).await;
    assert_eq!(number(&next(&mut subscription).await), 1);
    drop(subscription);
    let mut heir = consume(&broker, &queue, 10, Access::Fenced).await;
    let all = next_numbers(&mut heir, 5).await;
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5]);
}

pub async fn backlog_waits_for_a_consumer(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("backlog"));
    send(&broker, &queue, 1..=2000).await;
    until_depth(&broker, &queue, 2000, Some(0)).await;
    let mut subscription = consume(&broker, &queue, 100, Access::Fenced).await;
    for n in 1..=2000 {
        let delivery = next(&mut subscription).await;
        assert_eq!(number(&delivery), n);
        assert!(ack(&subscription, &delivery, false));
    }
    subscription.acker.close();
    until_depth(&broker, &queue, 0, Some(0)).await;
}

pub async fn close_flushes(rig: &impl Rig) {
    let (one, two, queue) = (rig.connect().await, rig.connect().await, unique("flush"));
    let link = one.link();
    assert!(matches!(*link.borrow(), LinkState::Up { .. }));
    let mut subscription = consume(&one, &unique("idle"), 5, Access::Shared).await;
    consuming(&subscription).await;
    let mut receipts = Vec::new();
    for n in 0..500 {
        receipts.push(one.publish(data(&queue, n.to_string())).await);
    }
    tokio::time::timeout(PATIENCE, one.close(PATIENCE))
        .await
        .expect("close ends");
    for receipt in receipts {
        assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
    }
    assert_eq!(*link.borrow(), LinkState::Closed);
    let end = tokio::time::timeout(PATIENCE, subscription.deliveries.recv()).await;
    assert!(matches!(end, Ok(None)), "consumers end");
    until_depth(&two, &queue, 500, Some(0)).await;
    let late = publish(&one, data(&queue, "late")).await;
    assert_ne!(late, Confirmation::Confirmed);
}
