//! What becomes of what is published: where it arrives, what comes back, what a close still sends.
//! Part of the broker suite.

use super::{
    PATIENCE, Rig, ack, consume, consuming, data, direct, next, number, publish, send, telemetry,
    unique, until_depth,
};
use bytes::Bytes;
use vumi_core::broker::{
    Access, Confirmation, EXCHANGE, HEALTH_EXCHANGE, LinkState, Publication, QueueSpec,
};

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
