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

/// Another replica hands on the reply `n` for user `u`.
async fn hand_on(broker: &dyn Broker, n: impl ToString) {
    let publication = Publication {
        exchange: String::new(),
        routing_key: "t.reply.two".into(),
        body: reply("u", &n.to_string()),
        message_id: None,
        class: PublicationClass::Direct,
    };
    let receipt = broker.publish(publication).await;
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

/// What another replica handed on is in nobody else's hands any more: a stop finishes it.
#[tokio::test]
async fn a_stop_finishes_what_was_forwarded() {
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let name = scripted(move |input, cx| {
        let count = Arc::clone(&count);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(vec![cx.ack(input.to_deliver()?, "remote")])
        }
    });
    let setup = Setup {
        kind: Kind::Transport,
        name,
        ..Setup::new(json!({}))
    };
    let mut rig = Rig::replica(setup, "two").await;
    rig.until("reads its reply queue", |s| {
        let consumes = |c: &ConsumerState| *c == ConsumerState::Consuming;
        s.consumers.iter().all(|(_, c)| consumes(c))
    })
    .await;
    for n in 0..10 {
        hand_on(&*rig.broker, n).await;
    }
    let limits = StopLimits {
        flush: Duration::from_secs(20),
        drain: Duration::ZERO,
        close: Duration::ZERO,
    };
    rig.running.take().unwrap().stop(limits).await;
    assert_eq!(handled.load(Ordering::SeqCst), 10);
}
