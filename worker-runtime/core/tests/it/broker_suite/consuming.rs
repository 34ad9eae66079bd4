//! One consumer: its window, its acknowledgements, its generations, what returns to the queue and in which order.
//! Part of the broker suite.

use super::{
    PATIENCE, Rig, ack, consume, consuming, next, next_numbers, number, numbers, quiet, send,
    unique, until, until_depth,
};
use vumi_core::broker::{Access, ConsumerState, RawDelivery, Subscription};

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

pub async fn requeue_comes_back(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("requeue"));
    send(&broker, &queue, 1..=2).await;
    let mut subscription = consume(&broker, &queue, 1, Access::Shared).await;
    let first = next(&mut subscription).await;
    assert!(subscription.acker.requeue(first.generation, first.tag));
    let order = match rig.replicated() {
        true => [(2, false), (1, true)],
        false => [(1, true), (2, false)],
    };
    for expected in order {
        let again = next(&mut subscription).await;
        assert_eq!((number(&again), again.redelivered), expected);
        assert_ne!(again.tag, first.tag);
        assert!(ack(&subscription, &again, false));
    }
}

pub async fn cancel_keeps_what_is_in_flight(rig: &impl Rig) {
    let (broker, queue) = (rig.connect().await, unique("cancel"));
    send(&broker, &queue, 1..=4).await;
    let mut subscription = consume(&broker, &queue, 2, Access::Shared).await;
    let taken = next_numbers(&mut subscription, 2).await;
    subscription.acker.cancel();
    let counted = u32::from(rig.replicated());
    until_depth(&broker, &queue, 2, Some(counted)).await;
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
