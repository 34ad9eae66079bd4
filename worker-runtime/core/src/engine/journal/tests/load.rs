//! Many messages: a hot user, a peer that is dead for long, a journal that is deep.

use super::*;
use std::collections::HashMap;
use std::sync::Mutex;
use tokio::time::Instant;
use vumi_testkit::{alone, resident};

/// How long it takes to serve many users whose `peer` takes a while for each message, so that it is the places in the
/// window that are scarce. `hot`: of all that waits, every third message is of one more user.
async fn others_served_in(peer: Duration, hot: bool) -> Duration {
    const USERS: usize = 200;
    const EACH: usize = 6;
    let store = store();
    let setup = with(&store, json!({}));
    let queue = QueueSpec::Data(QUEUE.into());
    setup.broker.declare(&queue).await.unwrap();
    // All waits before anything is read: who publishes how fast is no matter.
    let mut receipts = Vec::new();
    let mut publish = async |user: &str, text: &str| {
        let mut message = UserMessage::new("sms", Some("555"), Some(user));
        message.set_transport_name("t");
        message.set_content(Some(text));
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: QUEUE.into(),
            body: message.encode(),
            message_id: None,
            class: PublicationClass::Data,
        };
        receipts.push(setup.broker.publish(publication).await);
    };
    for n in 0..USERS * EACH {
        publish(&format!("u{}", n % USERS), &(n / USERS).to_string()).await;
        if hot && n % 2 == 0 {
            publish("hot", &format!("hot {}", n / 2)).await;
        }
    }
    for receipt in receipts {
        assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
    }
    let (served, done) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let (counter, token) = (Arc::clone(&served), done.clone());
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&order);
    let begin = Instant::now();
    let rig = Rig::on(setup, move |i, _| {
        let (counter, token, log) = (Arc::clone(&counter), token.clone(), Arc::clone(&log));
        async move {
            if let Some(n) = content(&i).strip_prefix("hot ") {
                tokio::time::sleep(Duration::from_millis(50)).await;
                log.lock().unwrap().push(n.parse::<usize>().unwrap());
                return Ok(Vec::new());
            }
            tokio::time::sleep(peer).await;
            if counter.fetch_add(1, Ordering::SeqCst) + 1 == (USERS * EACH) as u32 {
                token.cancel();
            }
            Ok(Vec::new())
        }
    })
    .await;
    let limit = tokio::time::sleep(Duration::from_secs(120));
    either(&done, limit).await;
    let took = begin.elapsed();
    assert!(
        done.is_cancelled(),
        "{} served",
        served.load(Ordering::SeqCst)
    );
    rig.stop_now().await;
    let order = order.lock().unwrap();
    assert!(order.is_sorted(), "{order:?}");
    assert!(order.len() < USERS * EACH / 2, "the hot user waits");
    took
}

/// Alone and beside a hot user, one after the other in the same run. A machine that is busy with other things slows both
/// down, and the one with more messages more: then the peer is made slower, until it is the window that is measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_user_leaves_others_unaffected() {
    let mut share = 0.0;
    for peer in [250, 500, 1000, 2000, 4000].map(Duration::from_millis) {
        let alone = others_served_in(peer, false).await;
        let beside = others_served_in(peer, true).await;
        share = alone.as_secs_f64() / beside.as_secs_f64();
        println!("others beside a hot user: {share:.2} of normal ({beside:?} for {alone:?})");
        if share >= 0.9 {
            break;
        }
    }
    // Without the journal they would wait for the hot user: minutes.
    assert!(share >= 0.9, "{share}");
}

/// Half of the users cannot be reached for many times the hold limit; the others are served as if nothing were; in the
/// end all have everything in order, and nobody gave up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_dead_for_long_leaves_others_unaffected() {
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let settings = json!({
        "holdLimit": "200ms",
        "retry": {"maxAttempts": 1000, "backoff": {"initial": "50ms", "max": "1s"}},
    });
    let rig = Rig::on(with(&store, settings), move |i, cx| {
        let fails = content(&i).starts_with("dead") && !flag.load(Ordering::SeqCst);
        async move {
            match fails {
                true => Err(temporary()),
                false => Ok(echo(&i, &cx)),
            }
        }
    })
    .await;
    let mut sent = Vec::new();
    let begin = Instant::now();
    for round in 0..10 {
        for n in 0..150 {
            let dead = (format!("d{n}"), format!("dead {round}"));
            let live = (format!("l{n}"), format!("live {round}"));
            for (user, text) in [dead, live] {
                let id = rig.send(&user, &text).await;
                sent.push((user, id));
            }
        }
        let done = 150 * (round + 1);
        rig.until("the living are served", |s| s.counts.done >= done)
            .await;
    }
    let served = begin.elapsed();
    // The outage lasts ten times as long as anything is held.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let snapshot = rig.running().snapshot();
    assert_eq!(snapshot.counts.parked, 0);
    assert_eq!(store.depth(QUEUE).await.unwrap().messages, 1500);
    healed.store(true, Ordering::SeqCst);
    let replies = rig.replies(3000).await;
    judge(&sent, &replies).require().unwrap();
    until_empty(&store, QUEUE).await;
    println!("the living were served in {served:?}");
    rig.at_rest().await;
}

/// Most memory that a journal may take of a worker, however deep it is.
const MEMORY_KIB: u64 = 40 << 10;
/// `VUMI_JOURNAL=MESSAGES,LANES` runs other sizes: 1000000,100000 is the budget's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_journal_takes_no_memory_and_is_replayed_in_order() {
    if !alone() {
        return;
    }
    let sizes = std::env::var("VUMI_JOURNAL").unwrap_or_else(|_| "20000,2000".into());
    let (messages, lanes) = sizes.split_once(',').unwrap();
    let (messages, lanes): (usize, usize) = (messages.parse().unwrap(), lanes.parse().unwrap());
    let store = store();
    let healed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let seen = Arc::new(Mutex::new((HashMap::<String, usize>::new(), Vec::new())));
    let log = Arc::clone(&seen);
    let settings = json!({
        "holdLimit": "1ms",
        "retry": {"maxAttempts": 1000, "backoff": {"initial": "10m", "max": "10m"}},
    });
    let rig = Rig::on(with(&store, settings), move |i, _| {
        let ok = flag.load(Ordering::SeqCst);
        if ok && let crate::message::Message::User(m) = &i.message {
            let (user, n) = (m.from_addr().unwrap_or_default(), content(&i));
            let mut log = log.lock().unwrap();
            let next = log.0.entry(user.to_owned()).or_default();
            let expected = *next;
            *next += 1;
            if n.parse() != Ok(expected) {
                log.1.push(format!("{user}: {n} for {expected}"));
            }
        }
        async move {
            match ok {
                true => Ok(Vec::new()),
                false => Err(temporary()),
            }
        }
    })
    .await;
    let before = resident();
    let mut highest = before;
    for n in 0..messages {
        rig.send(&format!("u{}", n % lanes), &(n / lanes).to_string())
            .await;
        if n % 2000 == 1999 {
            // The embedded broker keeps what waits in memory; it is the journal that is measured.
            let all = n as u64 + 1;
            rig.until("all have left", |s| {
                s.counts.received >= all && s.counts.in_flight == 0
            })
            .await;
            highest = highest.max(resident());
        }
    }
    let depth = store.depth(QUEUE).await.unwrap();
    assert_eq!(
        (depth.messages, depth.lanes),
        (messages as u64, lanes as u64)
    );
    healed.store(true, Ordering::SeqCst);
    Journal::release(&*store, QUEUE, &Filter::default())
        .await
        .unwrap();
    let begin = Instant::now();
    while store.depth(QUEUE).await.unwrap().messages > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        highest = highest.max(resident());
        assert!(begin.elapsed() < Duration::from_secs(600));
    }
    let took = begin.elapsed().as_secs_f64();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.1, Vec::<String>::new());
    assert_eq!(seen.0.values().sum::<usize>(), messages);
    println!(
        "{messages} messages in {lanes} lanes: {before} KiB before, {highest} KiB at most; replayed at {:.0}/s",
        messages as f64 / took
    );
    assert!(highest - before <= MEMORY_KIB, "{} KiB", highest - before);
}
