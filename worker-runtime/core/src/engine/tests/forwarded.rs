//! Replies that another replica handed on, before those that this one reads itself after a takeover.

use super::partitions::scripted;
use super::*;
use tokio::sync::Semaphore;

/// An outbound message for a user.
fn reply(user: &str, text: &str) -> bytes::Bytes {
    let mut message = UserMessage::new("telnet", Some(user), Some("555"));
    message.set_content(Some(text));
    message.set_transport_name("t");
    message.encode()
}

/// The reply `n` for user `u`, as another replica hands it on.
fn handed_on(n: impl ToString) -> Publication {
    Publication {
        exchange: String::new(),
        routing_key: "t.reply.two".into(),
        body: reply("u", &n.to_string()),
        message_id: None,
        class: PublicationClass::Direct,
    }
}

/// Another replica hands on that one.
async fn hand_on(broker: &dyn Broker, n: impl ToString) {
    let receipt = broker.publish(handed_on(n)).await;
    let confirmed = receipt.confirmation().await;
    assert_eq!(confirmed, crate::broker::Confirmation::Confirmed);
}

#[tokio::test]
async fn what_was_forwarded_comes_before_what_is_read_after_a_takeover() {
    const EACH: usize = 20;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let (seen, gate) = (Arc::clone(&handled), Arc::new(Semaphore::new(0)));
    let open = Arc::clone(&gate);
    let name = scripted(move |input, cx| {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&open));
        async move {
            let text = content(&input);
            // The first one is slow.
            if text == "0" {
                drop(gate.acquire().await);
            }
            seen.lock().unwrap().push(text);
            Ok(vec![cx.ack(input.to_deliver()?, "remote")])
        }
    });
    let setup = Setup {
        kind: Kind::Transport,
        name,
        ..Setup::new(json!({}))
    };
    let broker = Arc::clone(&setup.broker);
    // The predecessor holds the queue.
    let subscribe = Subscribe {
        queue: QueueSpec::Data("t.outbound".into()),
        prefetch: 1000,
        access: Access::Fenced,
        tag: "predecessor".into(),
    };
    let mut before = broker.subscribe(subscribe).await;
    let held = before.state.wait_for(|s| *s == ConsumerState::Consuming);
    drop(held.await.unwrap());
    let rig = Rig::replica(setup, "two").await;
    rig.until("stands by, and reads its reply queue", |s| {
        let is = |queue: &str, word: &str| {
            s.consumers
                .iter()
                .any(|(q, c)| q == queue && state(c) == word)
        };
        is("t.outbound", "standby") && is("t.reply", "consuming")
    })
    .await;
    for n in 0..EACH {
        hand_on(&*broker, n).await;
    }
    for n in EACH..2 * EACH {
        rig.publish("t.outbound", reply("u", &n.to_string())).await;
    }
    rig.publish("t.outbound", reply("v", "another user")).await;
    before.acker.close();
    // Nobody else waits for the slow one.
    rig.until("the other user is served", |_| {
        *handled.lock().unwrap() == ["another user"]
    })
    .await;
    gate.add_permits(1);
    let all = 2 * EACH + 1;
    rig.until("all are", |_| handled.lock().unwrap().len() == all)
        .await;
    let wanted: Vec<String> = (0..2 * EACH).map(|n| n.to_string()).collect();
    assert_eq!(handled.lock().unwrap()[1..], wanted);
    // The mark is no message.
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.done), (all as u64, all as u64));
    rig.stop_now().await;
}

fn state(state: &ConsumerState) -> &'static str {
    super::super::consumer::state_word(state, false)
}

/// A transport that writes down what it sends, and the replica of it that reads its reply queue. It sends nothing before the
/// gate is open.
async fn writing(broker: Arc<dyn Broker>, gate: &Arc<Semaphore>) -> (Rig, Arc<Mutex<Vec<String>>>) {
    let handled = Arc::new(Mutex::new(Vec::new()));
    let (seen, gate) = (Arc::clone(&handled), Arc::clone(gate));
    let name = scripted(move |input, cx| {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        async move {
            drop(gate.acquire().await);
            tokio::time::sleep(Duration::from_millis(1)).await;
            seen.lock().unwrap().push(content(&input));
            Ok(vec![cx.ack(input.to_deliver()?, "remote")])
        }
    });
    let setup = Setup {
        broker,
        kind: Kind::Transport,
        name,
        ..Setup::new(json!({}))
    };
    let rig = Rig::replica(setup, "two").await;
    reads_its_replies(&rig).await;
    (rig, handled)
}

async fn reads_its_replies(rig: &Rig) {
    rig.until("reads its reply queue", |s| {
        let mut replies = s.consumers.iter().filter(|(queue, _)| queue == "t.reply");
        replies.any(|(_, c)| *c == ConsumerState::Consuming)
    })
    .await;
}

fn in_order(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

async fn stop(rig: &mut Rig) {
    let limits = StopLimits {
        flush: Duration::from_secs(60),
        drain: Duration::ZERO,
        close: Duration::ZERO,
    };
    rig.running.take().unwrap().stop(limits).await;
}

/// What another replica handed on is in nobody else's hands any more: a stop finishes it, also what is still with the broker.
#[tokio::test]
async fn a_stop_finishes_what_was_forwarded() {
    const MANY: usize = 450;
    let gate = Arc::new(Semaphore::new(0));
    let broker = Setup::new(json!({})).broker;
    let (mut rig, handled) = writing(broker, &gate).await;
    for n in 0..MANY {
        hand_on(&*rig.broker, n).await;
    }
    gate.add_permits(1);
    stop(&mut rig).await;
    assert_eq!(*handled.lock().unwrap(), in_order(MANY));
}

/// The same on RabbitMQ, which deletes such a queue with its reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_was_forwarded_on_rabbitmq() {
    const MANY: usize = 450;
    let Some((_server, urls)) = super::lost_channels::servers().await else {
        return;
    };
    for url in urls {
        let gate = Arc::new(Semaphore::new(0));
        let (mut rig, handled) = writing(super::lost_channels::connect(&url), &gate).await;
        for n in 0..MANY {
            hand_on(&*rig.broker, n).await;
        }
        gate.add_permits(1);
        stop(&mut rig).await;
        assert_eq!(*handled.lock().unwrap(), in_order(MANY), "{url}");
        rig.broker.close(Duration::from_secs(5)).await;
    }
}

/// A stop does not wait for a moment in which others hand on nothing.
#[tokio::test]
async fn replies_that_keep_coming_hold_up_no_stop() {
    const MANY: usize = 450;
    let handled = Arc::new(Semaphore::new(0));
    let one_more = Arc::clone(&handled);
    let name = scripted(move |input, cx| {
        let handled = Arc::clone(&one_more);
        async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            handled.add_permits(1);
            Ok(vec![cx.ack(input.to_deliver()?, "remote")])
        }
    });
    let setup = Setup {
        kind: Kind::Transport,
        name,
        ..Setup::new(json!({}))
    };
    let mut rig = Rig::replica(setup, "two").await;
    reads_its_replies(&rig).await;
    for n in 0..MANY {
        hand_on(&*rig.broker, n).await;
    }
    let broker = Arc::clone(&rig.broker);
    let came = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&came);
    let coming = tokio::spawn(async move {
        for n in MANY.. {
            // It never gets less.
            handled.acquire().await.unwrap().forget();
            let receipt = broker.publish(handed_on(n)).await;
            if receipt.confirmation().await != crate::broker::Confirmation::Confirmed {
                break;
            }
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let began = tokio::time::Instant::now();
    stop(&mut rig).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    coming.abort();
    let came = came.load(Ordering::SeqCst);
    assert!(came > MANY as u64, "they kept coming: {came}");
}

/// No mark comes while the broker takes none: that is not waited for.
#[tokio::test]
async fn a_stop_is_not_held_up_by_a_broker_that_takes_nothing() {
    let broker = crate::beacon::testing::Cuttable::new();
    let gate = Arc::new(Semaphore::new(1));
    let (mut rig, _) = writing(Arc::clone(&broker) as Arc<dyn Broker>, &gate).await;
    broker.cut();
    let began = tokio::time::Instant::now();
    stop(&mut rig).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Nothing brings back what was forwarded: when its channel is lost, what is in hand goes on, once and in order.
#[tokio::test]
async fn what_was_forwarded_is_finished_when_its_channel_is_lost() {
    const EACH: usize = 5;
    let gate = Arc::new(Semaphore::new(0));
    let broker = Setup::new(json!({})).broker;
    let (rig, handled) = writing(broker, &gate).await;
    for life in 1..=3 {
        for n in (life - 1) * EACH..life * EACH {
            hand_on(&*rig.broker, n).await;
        }
        let count = (life * EACH) as u64;
        rig.until("all are in hand", |s| s.counts.in_flight == count)
            .await;
        rig.running().rebuild_consumers();
    }
    gate.add_permits(1);
    rig.until("all are done", |s| s.counts.done == 3 * EACH as u64)
        .await;
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.returned), (3 * EACH as u64, 0));
    assert_eq!(*handled.lock().unwrap(), in_order(3 * EACH));
    rig.stop_now().await;
}

/// The same when RabbitMQ ends the connection, and the queue with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_forwarded_is_finished_when_rabbitmq_ended_its_connection() {
    const EACH: usize = 5;
    let Some((server, urls)) = super::lost_channels::servers().await else {
        return;
    };
    for url in urls {
        let gate = Arc::new(Semaphore::new(0));
        let (rig, handled) = writing(super::lost_channels::connect(&url), &gate).await;
        for n in 0..EACH {
            hand_on(&*rig.broker, n).await;
        }
        rig.until("all are in hand", |s| s.counts.in_flight == EACH as u64)
            .await;
        server.close_connections().await.unwrap();
        gate.add_permits(1);
        rig.until("all are done", |s| s.counts.done == EACH as u64)
            .await;
        assert_eq!(*handled.lock().unwrap(), in_order(EACH), "{url}");
        rig.stop_now().await;
    }
}
