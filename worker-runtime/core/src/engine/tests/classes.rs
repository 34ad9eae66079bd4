//! Classes and batches on the embedded broker: who overtakes whom, and what orders do. Every message is accounted for.

use super::*;
use crate::message::EventType;
use crate::state::batches::Order;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::state::ledger::RowState;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

fn store() -> Arc<dyn StateStore> {
    EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap()
}

/// What the peer got: batch, tenant or class, and content, in the order in which it got it.
type Sent = Arc<Mutex<Vec<(String, String)>>>;

fn count(sent: &Sent, label: &str) -> usize {
    let sent = sent.lock().unwrap();
    sent.iter().filter(|(of, _)| of == label).count()
}

async fn transport(
    store: Option<&Arc<dyn StateStore>>,
    settings: serde_json::Value,
) -> (Rig, Sent) {
    let sent = Sent::default();
    let log = Arc::clone(&sent);
    let setup = Setup {
        kind: Kind::Transport,
        state: store.cloned(),
        ..Setup::new(settings)
    };
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        let metadata = message.helper_metadata();
        let label = |key| Some(metadata?.get(key)?.as_str()?.to_owned());
        let label = label("batch")
            .or_else(|| label("tenant"))
            .or_else(|| label("class"))
            .unwrap_or_default();
        log.lock().unwrap().push((label, content(&i)));
        async move { Ok(vec![cx.ack(&message, "remote")]) }
    })
    .await;
    (rig, sent)
}

fn message(user: &str, text: &str, labels: &[(&str, &str)]) -> UserMessage {
    let mut message = UserMessage::new("sms", Some(user), Some("555"));
    message.set_transport_name("t");
    message.set_content(Some(text));
    for (key, value) in labels {
        let metadata = message.helper_metadata_mut();
        metadata.insert((*key).into(), json!(value));
    }
    message
}

/// Publishes `count` messages of a batch to users of its own, all at once.
async fn campaign(rig: &Rig, batch: &str, count: usize) -> BTreeSet<String> {
    let labels = [("class", "bulk"), ("batch", batch)];
    let messages = (0..count).map(|n| message(&format!("{batch}{n}"), &n.to_string(), &labels));
    publish(rig, messages).await
}

async fn publish(rig: &Rig, messages: impl Iterator<Item = UserMessage>) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut receipts = Vec::new();
    for message in messages {
        ids.insert(message.message_id().to_owned());
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: "t.outbound".into(),
            body: message.encode(),
            message_id: None,
            class: PublicationClass::Data,
        };
        receipts.push(rig.broker.publish(publication).await);
    }
    for receipt in receipts {
        let confirmation = receipt.confirmation().await;
        assert_eq!(confirmation, crate::broker::Confirmation::Confirmed);
    }
    ids
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    for _ in 0..6000 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

async fn rows(store: &Arc<dyn StateStore>, account: &str, batch: &str) -> BTreeMap<RowState, u64> {
    let batches = store.batches().await.unwrap();
    let key = (account.to_owned(), batch.to_owned());
    batches.get(&key).cloned().unwrap_or_default()
}

/// Events by the message that they speak of: its one ack or nack.
async fn verdicts(rig: &Rig, count: usize) -> BTreeMap<String, (EventType, String)> {
    let bodies = rig.read("t.event", count).await;
    let mut verdicts = BTreeMap::new();
    for body in bodies {
        let event = Event::decode(&body).unwrap();
        let state = event.fate().map(|fate| format!("{:?}", fate.state));
        let verdict = (event.event_type(), state.unwrap_or_default());
        let before = verdicts.insert(event.user_message_id().to_owned(), verdict);
        assert!(before.is_none(), "one ack or nack ever");
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interactive_message_overtakes_a_campaign() {
    for store in [None, Some(store())] {
        let settings = json!({"classes": {}, "rateLimit": {"rate": 100, "burst": 1}});
        let (rig, sent) = transport(store.as_ref(), settings).await;
        campaign(&rig, "spring", 1000).await;
        eventually("the campaign is under way", async || {
            count(&sent, "spring") > 20
        })
        .await;
        let before = count(&sent, "spring");
        let otp = message("me", "1234", &[("class", "interactive")]);
        rig.publish("t.outbound", otp.encode()).await;
        eventually("it is sent", async || count(&sent, "interactive") == 1).await;
        let overtaken_by = {
            let sent = sent.lock().unwrap();
            sent.iter().position(|(of, _)| of == "interactive").unwrap() - before
        };
        // 100 leave in a second.
        assert!(overtaken_by < 100, "{overtaken_by} left before it");
        assert!(count(&sent, "spring") < 1000, "the campaign still waits");
        rig.stop_now().await;
    }
}

/// The promise, at its full size and with every limit at its default: 100 000 bulk messages wait for a network that takes
/// 50 in a second, and every interactive one leaves within a second, while more bulk comes in. With a store, which an
/// unoptimised build is slow to fill, as many as are more than any limit, or as `VUMI_BULK` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_interactive_message_leaves_within_a_second_while_100_000_bulk_wait() {
    let stored = std::env::var("VUMI_BULK").map_or(15_000, |n| n.parse().unwrap());
    for (store, thousands) in [(None, 100), (Some(store()), stored / 1000)] {
        let settings = json!({"classes": {}, "rateLimit": {"rate": 50, "burst": 1}});
        let (rig, sent) = transport(store.as_ref(), settings).await;
        let begin = Instant::now();
        for _ in 0..thousands {
            campaign(&rig, "spring", 1000).await;
        }
        let published = begin.elapsed();
        let depth = async |queue: &str| rig.broker.ready(queue).await.unwrap();
        // With a store what has no place in the window waits in the journal.
        let waits_there = async || store.is_none() || depth("t.outbound.bulk").await == 0;
        while depth("t.outbound").await > 0 || count(&sent, "spring") < 20 || !waits_there().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(
                begin.elapsed() < Duration::from_secs(300),
                "all are taken in"
            );
        }
        let taken_in = begin.elapsed();
        let mut slowest = Duration::ZERO;
        for n in 0..20 {
            campaign(&rig, "spring", 10).await;
            let otp = message(&format!("otp{n}"), "1234", &[("class", "interactive")]);
            let begin = Instant::now();
            rig.publish("t.outbound", otp.encode()).await;
            eventually("it is sent", async || count(&sent, "interactive") == n + 1).await;
            slowest = slowest.max(begin.elapsed());
        }
        println!(
            "store: {}; {thousands} 000 published in {published:?}, taken in after {taken_in:?}, the slowest interactive message took {slowest:?}",
            store.is_some()
        );
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        let waits = thousands * 1000 - count(&sent, "spring");
        assert!(waits > 10_000, "{waits} bulk messages still wait");
        rig.stop_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_class_holds_up_who_sends_to_it_and_nobody_else() {
    let setup = Setup::new(json!({"backlogLimit": 100}));
    let broker = Arc::clone(&setup.broker);
    // The transport that divides the queue is somewhere else: its classes are there.
    for class in ["interactive", "transactional", "bulk"] {
        let queue = QueueSpec::Data(format!("t.outbound.{class}"));
        broker.declare(&queue).await.unwrap();
    }
    let rig = Rig::on(setup, |i, cx| async move {
        let mut outputs = echo(&i, &cx);
        if let Some(Message::User(reply)) = outputs.first_mut().map(|o| &mut o.message) {
            let class = content(&i);
            reply
                .helper_metadata_mut()
                .insert("class".into(), class.into());
        }
        Ok(outputs)
    })
    .await;
    let fill = async || {
        for _ in 0..100 {
            rig.publish("t.outbound.bulk", "{}".into()).await;
        }
    };
    let full = |s: &WorkerSnapshot| {
        s.components
            .iter()
            .any(|c| c.message.contains("class bulk"))
    };
    fill().await;
    rig.until("it is known", full).await;
    rig.send("u", "bulk").await;
    // It sends nothing but bulk.
    let paused = rig.until("paused", |s| s.state == "paused").await;
    assert!(paused.why.contains("class bulk"), "{}", paused.why);
    rig.read("t.outbound.bulk", 100).await;
    rig.send("u", "interactive").await;
    rig.until("handled", |s| s.counts.done == 2).await;
    fill().await;
    rig.until("it is known", full).await;
    for n in 0..3 {
        rig.send(&format!("u{n}"), "interactive").await;
    }
    rig.until("handled all the same", |s| s.counts.done == 5)
        .await;
    assert_eq!(rig.running().snapshot().state, "running");
    rig.stop_now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_batch_is_not_behind_a_large_one() {
    let store = store();
    let settings = json!({"classes": {}, "rateLimit": {"rate": 200, "burst": 1}});
    let (rig, sent) = transport(Some(&store), settings).await;
    let large = campaign(&rig, "large", 1500).await;
    let small = campaign(&rig, "small", 20).await;
    eventually("the small one is done", async || {
        count(&sent, "small") == 20
    })
    .await;
    let others = count(&sent, "large");
    assert!(others < 1000, "{others} of the large one left before");
    let verdicts = verdicts(&rig, 1520).await;
    let all: BTreeSet<String> = large.union(&small).cloned().collect();
    assert_eq!(verdicts.keys().cloned().collect::<BTreeSet<_>>(), all);
    assert_eq!(sent.lock().unwrap().len(), 1520, "each once");
    rig.at_rest().await;
}

/// Tenants take turns, however many batches each has: one with three has no more turns than one with one. Without batches, and
/// with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_tenant_is_not_behind_a_large_one() {
    const LARGE: usize = 1500;
    const SMALL: usize = 20;
    for batches in [0, 3] {
        let store = store();
        let settings = json!({"classes": {}, "rateLimit": {"rate": 200, "burst": 1}});
        let (rig, sent) = transport(Some(&store), settings).await;
        let of = |tenant: &str, n: usize, batches: usize| {
            let batch = format!("{tenant}-{}", n % batches.max(1));
            let mut labels = vec![("class", "bulk"), ("tenant", tenant)];
            if batches > 0 {
                labels.push(("batch", &batch));
            }
            message(&format!("{tenant}{n}"), &n.to_string(), &labels)
        };
        let large = publish(&rig, (0..LARGE).map(|n| of("large", n, batches))).await;
        let small = publish(&rig, (0..SMALL).map(|n| of("small", n, batches.min(1)))).await;
        let is_small = |(label, _): &(String, String)| label.starts_with("small");
        eventually("the small one is done", async || {
            sent.lock()
                .unwrap()
                .iter()
                .filter(|one| is_small(one))
                .count()
                == SMALL
        })
        .await;
        let (before, between) = {
            let sent = sent.lock().unwrap();
            let first = sent.iter().position(is_small).unwrap();
            let last = sent.iter().rposition(is_small).unwrap();
            (first, last + 1 - first - SMALL)
        };
        println!("{batches} batches: {before} of the large one before, {between} in between");
        assert!(
            before < LARGE * 4 / 5,
            "{batches} batches: {before} left before"
        );
        // One each, and not one for each batch.
        assert!(
            between <= 3 * SMALL / 2,
            "{batches} batches: {between} in between"
        );
        let verdicts = verdicts(&rig, LARGE + SMALL).await;
        let all: BTreeSet<String> = large.union(&small).cloned().collect();
        assert_eq!(verdicts.keys().cloned().collect::<BTreeSet<_>>(), all);
        assert_eq!(sent.lock().unwrap().len(), LARGE + SMALL, "each once");
        rig.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_kept_within_class_and_batch() {
    const USERS: usize = 5;
    const EACH: usize = 60;
    let store = store();
    let settings = json!({"classes": {}, "rateLimit": {"rate": 2000, "burst": 1}});
    let (rig, sent) = transport(Some(&store), settings).await;
    for n in 0..EACH {
        for user in 0..USERS {
            for batch in ["a", "b"] {
                let labels = [("class", "bulk"), ("batch", batch)];
                let text = format!("{user} {n}");
                let message = message(&format!("u{user}"), &text, &labels);
                rig.publish("t.outbound", message.encode()).await;
            }
        }
        // Paused and released again in the middle of it.
        if n == 10 || n == 30 {
            store
                .set_order("t", "a", Some(&Order::Pause))
                .await
                .unwrap();
        } else if n == 20 || n == 40 {
            store.set_order("t", "a", None).await.unwrap();
        }
    }
    let all = USERS * EACH * 2;
    eventually("all are sent", async || sent.lock().unwrap().len() == all).await;
    let mut seen: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (batch, text) in sent.lock().unwrap().iter() {
        let (user, n) = text.split_once(' ').unwrap();
        let numbers = seen.entry((batch.clone(), user.to_owned())).or_default();
        numbers.push(n.parse().unwrap());
    }
    assert_eq!(seen.len(), USERS * 2);
    for (of, numbers) in seen {
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "{of:?}");
    }
    rig.at_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_paused_resumed_and_cancelled() {
    // With classes and without.
    for classes in [true, false] {
        let store = store();
        let mut settings = json!({"rateLimit": {"rate": 200, "burst": 1}});
        if classes {
            settings["classes"] = json!({});
        }
        let (rig, sent) = transport(Some(&store), settings).await;
        let ids = campaign(&rig, "spring", 400).await;
        eventually("it is under way", async || count(&sent, "spring") > 20).await;
        store
            .set_order("t", "spring", Some(&Order::Pause))
            .await
            .unwrap();
        eventually("the rest is held", async || {
            let rows = rows(&store, "t", "spring").await;
            rows.get(&RowState::Held).copied().unwrap_or(0) + count(&sent, "spring") as u64 == 400
        })
        .await;
        let held = 400 - count(&sent, "spring");
        assert!(held > 200, "{held} are held");
        // Another message of the batch is held as well, and others are not.
        let late = message("late", "late", &[("class", "bulk"), ("batch", "spring")]);
        rig.publish("t.outbound", late.encode()).await;
        let other = message("other", "other", &[("class", "bulk")]);
        rig.publish("t.outbound", other.encode()).await;
        eventually("others go on", async || count(&sent, "bulk") == 1).await;
        assert_eq!(count(&sent, "spring"), 400 - held);
        store.set_order("t", "spring", None).await.unwrap();
        eventually("it goes on", async || count(&sent, "spring") > 450 - held).await;
        store
            .set_order("t", "spring", Some(&Order::Cancel))
            .await
            .unwrap();
        let verdicts = verdicts(&rig, 402).await;
        let cancelled = |id: &&String| verdicts[*id] == (EventType::Nack, "Cancelled".to_owned());
        let count_cancelled = verdicts.keys().filter(cancelled).count();
        assert_eq!(
            count_cancelled + sent.lock().unwrap().len(),
            402,
            "classes: {classes}"
        );
        assert!(count_cancelled > 50, "{count_cancelled}");
        assert!(ids.iter().all(|id| verdicts.contains_key(id)));
        let rows = rows(&store, "t", "spring").await;
        assert_eq!(rows[&RowState::Cancelled], count_cancelled as u64);
        assert_eq!(rows.values().sum::<u64>(), 401, "{rows:?}");
        rig.at_rest().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_rerouted_and_reclassed() {
    let store = store();
    let settings = json!({"classes": {}, "rateLimit": {"rate": 100, "burst": 1}});
    let (rig, sent) = transport(Some(&store), settings).await;
    let ids = campaign(&rig, "spring", 300).await;
    let to_other = Order::Reroute("other".into());
    store
        .set_order("t", "spring", Some(&to_other))
        .await
        .unwrap();
    // The other transport has never run: the messages wait, and none is lost.
    let text = "vumi_errors_total";
    eventually("there is no such queue", async || {
        let text = rig.telemetry.render();
        text.contains("batch.no_target")
    })
    .await;
    assert!(rig.telemetry.render().contains(text));
    let gone = 300 - count(&sent, "spring");
    let bodies = rig.read("other.outbound", gone).await;
    let mut moved = BTreeSet::new();
    for body in &bodies {
        let message = UserMessage::decode(body).unwrap();
        assert_eq!(message.transport_name(), Some("other"));
        moved.insert(message.message_id().to_owned());
    }
    assert_eq!(moved.len(), gone, "each once");
    assert!(moved.is_subset(&ids));
    let rows_there = rows(&store, "other", "spring").await;
    assert_eq!(rows_there[&RowState::Queued], gone as u64);
    rig.at_rest().await;

    store.set_order("t", "spring", None).await.unwrap();
    let faster = Order::Reclass(vumi_api::shared::Class::Interactive);
    store.set_order("t", "autumn", Some(&faster)).await.unwrap();
    let row = async |id: &str| store.row(id).await.unwrap();
    // The transport reads orders now and then: the campaign begins once a message shows that it has.
    eventually("the order is known", async || {
        let probe = campaign(&rig, "autumn", 1).await;
        let probe = probe.first().unwrap();
        loop {
            match row(probe).await {
                Some(row) if row.state.is_final() => return row.class == "interactive",
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await;
    let probes = count(&sent, "autumn");
    let ids = campaign(&rig, "autumn", 50).await;
    let all = probes + 50;
    eventually("all are sent", async || count(&sent, "autumn") == all).await;
    rig.at_rest().await;
    for id in &ids {
        assert_eq!(row(id).await.unwrap().class, "interactive", "{id}");
    }
}

/// The middleware of a transport is for what that transport handles: what it hands on is the message as it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_on_has_not_been_through_middleware() {
    let store = store();
    let peer: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&peer);
    let setup = Setup {
        kind: Kind::Transport,
        state: Some(Arc::clone(&store)),
        // Twice would lead on to `c`.
        ..Setup::new(json!({
            "classes": {},
            "middleware": [{"name": "twice", "addressTranslation": {"outboundMap": {"a": "b", "b": "c"}}}],
        }))
    };
    let other = QueueSpec::Data("other.outbound".into());
    setup.broker.declare(&other).await.unwrap();
    let rerouted = Order::Reroute("other".into());
    store.set_order("t", "away", Some(&rerouted)).await.unwrap();
    let reclassed = Order::Reclass(vumi_api::shared::Class::Interactive);
    store.set_order("t", "up", Some(&reclassed)).await.unwrap();
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        let to = message.to_addr().unwrap().to_owned();
        log.lock().unwrap().push(to);
        async move { Ok(vec![cx.ack(&message, "remote")]) }
    })
    .await;
    for batch in ["away", "up"] {
        let message = message("a", batch, &[("class", "bulk"), ("batch", batch)]);
        rig.publish("t.outbound", message.encode()).await;
    }
    let moved = rig.read("other.outbound", 1).await;
    let moved = UserMessage::decode(&moved[0]).unwrap();
    assert_eq!(moved.to_addr(), Some("a"));
    assert_eq!(moved.transport_name(), Some("other"));
    eventually("the other is sent", async || {
        !peer.lock().unwrap().is_empty()
    })
    .await;
    assert_eq!(*peer.lock().unwrap(), ["b"]);
    rig.at_rest().await;
}

/// However many others the peer is busy with, and however long it takes: some places are for interactive messages alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interactive_message_does_not_wait_for_a_slow_peer_to_finish_others() {
    let open = Arc::new(tokio::sync::Notify::new());
    let (gate, sent) = (Arc::clone(&open), Sent::default());
    let (log, busy) = (Arc::clone(&sent), Arc::new(AtomicU32::new(0)));
    let begun = Arc::clone(&busy);
    let setup = Setup {
        kind: Kind::Transport,
        ..Setup::new(json!({"classes": {}}))
    };
    let rig = Rig::on(setup, move |i, cx| {
        let message = i.to_deliver().unwrap().clone();
        let text = content(&i);
        let (gate, log, begun) = (Arc::clone(&gate), Arc::clone(&log), Arc::clone(&begun));
        async move {
            if text != "1234" {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.notified().await;
            }
            log.lock().unwrap().push((text.clone(), text));
            Ok(vec![cx.ack(&message, "remote")])
        }
    })
    .await;
    campaign(&rig, "spring", 400).await;
    eventually("the peer is as busy as it gets", async || {
        busy.load(Ordering::SeqCst) == 150
    })
    .await;
    let otp = message("me", "1234", &[("class", "interactive")]);
    rig.publish("t.outbound", otp.encode()).await;
    eventually("it is sent", async || count(&sent, "1234") == 1).await;
    assert_eq!(sent.lock().unwrap().len(), 1, "and nothing else");
    eventually("all are sent", async || {
        open.notify_waiters();
        sent.lock().unwrap().len() == 401
    })
    .await;
    rig.at_rest().await;
}
