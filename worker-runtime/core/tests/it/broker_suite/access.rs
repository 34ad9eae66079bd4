//! Who may read: fences and standbys, competing consumers, reply queues, copies.
//! Part of the broker suite.

use super::{
    PATIENCE, Rig, ack, consume, consume_spec, consuming, direct, is_standby, next, next_numbers,
    number, numbers, publish, quiet, send, telemetry, unique, until, until_depth,
};
use std::time::{Duration, Instant};
use vumi_core::broker::{
    Access, Confirmation, ConsumerState, EXCHANGE, HEALTH_EXCHANGE, QueueSpec,
};

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

/// Two replicas that give the queue up in every way there is, with some messages acknowledged and others not: every message
/// is first seen in its place, and none is lost.
pub async fn order_outlives_many_handovers(rig: &impl Rig) {
    const COUNT: u32 = 1500;
    const PREFETCH: u16 = 20;
    let (brokers, queue) = (
        [rig.connect().await, rig.connect().await],
        unique("handovers"),
    );
    let mut replicas = Vec::new();
    for broker in &brokers {
        replicas.push(consume(broker, &queue, PREFETCH, Access::Fenced).await);
    }
    let (publisher, target) = (rig.connect().await, queue.clone());
    let publishing = tokio::spawn(async move { send(&publisher, &target, 1..=COUNT).await });
    let (mut seen, mut dice) = (0, 7u32);
    let begin = Instant::now();
    while seen < COUNT {
        assert!(
            begin.elapsed() < 3 * PATIENCE,
            "{seen} of {COUNT} after {:?}",
            begin.elapsed()
        );
        for (n, broker) in brokers.iter().enumerate() {
            let replica = &mut replicas[n];
            // The holder works for a while; a standby has nothing to do.
            let mut left = 40 + dice % 40;
            while left > 0 {
                let next =
                    tokio::time::timeout(Duration::from_millis(30), replica.deliveries.recv());
                let Ok(Some(delivery)) = next.await else {
                    break;
                };
                dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = number(&delivery);
                assert!(number <= seen + 1, "{number} after {seen}");
                // Every third one is left behind by the handover, if nothing acknowledges past it.
                let taken = dice >> 16;
                if taken % 3 != 0 || left > 20 {
                    ack(replica, &delivery, taken % 5 == 0);
                }
                seen = seen.max(number);
                left -= 1;
            }
            if left > 0 {
                continue;
            }
            match (dice >> 8) % 4 {
                0 => replica.acker.rebuild(),
                1 => {
                    replica.acker.release();
                    replica.acker.resume();
                }
                2 => {
                    replica.acker.close();
                    *replica = consume(broker, &queue, PREFETCH, Access::Fenced).await;
                }
                _ => *replica = consume(broker, &queue, PREFETCH, Access::Fenced).await,
            }
        }
    }
    publishing.await.expect("all confirmed");
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
    consuming(&first).await;
    let mut second = consume(&two, &queue, 1, Access::Shared).await;
    if rig.replicated() {
        until(&second, is_standby).await;
        send(&one, &queue, 1..=2).await;
        assert_eq!(number(&next(&mut first).await), 1);
        quiet(&mut second).await;
        return;
    }
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
    for asking in [&owner, &other] {
        assert!(asking.is_there(&queue).await.expect("an answer"));
    }
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
    for asking in [&owner, &other] {
        assert!(!asking.is_there(&queue).await.expect("an answer"));
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
