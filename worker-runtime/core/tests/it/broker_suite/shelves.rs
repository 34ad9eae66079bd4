//! Looking at parked messages without a worker: shelves.
//! Part of the broker suite.

use super::{
    Rig, consume, consume_spec, direct, next, next_numbers, number, numbers, publish, quiet, send,
    unique, until_depth,
};
use std::sync::Arc;
use vumi_core::broker::{Access, Broker, Confirmation, ConsumerState, QueueSpec};

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
    if !rig.replicated() {
        until_depth(&broker, &queue, 2, None).await;
    }
    let second = shelf.messages()[1].tag;
    shelf.remove(second).await.expect("remove");
    shelf.close().await;
    // Looks of every size leave the order as it was.
    for limit in [1, 2, 1] {
        let shelf = broker.shelf(&queue, limit).await.expect("shelf");
        assert_eq!(numbers(shelf.messages()), [1, 3][..limit]);
        shelf.close().await;
    }
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
