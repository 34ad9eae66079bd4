//! The embedded broker when things go wrong: kill -9 at any moment, a disk that takes no more, a folder in use, memory
//! running out. Children are this test binary again.

use crate::broker_suite::{
    PATIENCE, consume, consuming, data, next, number, publish, send, unique,
};
use crate::child::{Running, say};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{
    Access, Broker, Confirmation, Durability, EXCHANGE, LinkState, Publication, PublicationClass,
    QueueSpec,
};
use vumi_core::codes;

const FOLDER: &str = "VUMI_TEST_STATE_FOLDER";
const SYNC: &str = "VUMI_TEST_STATE_SYNC";
const FIRST: &str = "VUMI_TEST_FIRST_NUMBER";
const WIDTH: &str = "VUMI_TEST_BODY_WIDTH";
const QUEUE: &str = "faults.inbound";

fn open(folder: &Path, sync: bool) -> Arc<dyn Broker> {
    EmbeddedBroker::open(EmbeddedOptions {
        state: Some(folder.to_owned()),
        sync,
        ..EmbeddedOptions::default()
    })
    .expect("open")
}

/// Not a test: what a child does until it is killed. Publishes numbers and says which are confirmed; consumes them,
/// keeps every seventh, and says what it got before it acknowledges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests of this file as a child process"]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let sync = std::env::var_os(SYNC).is_some();
    let first: u32 = std::env::var(FIRST).map_or(1, |n| n.parse().expect("a number"));
    let width: usize = std::env::var(WIDTH).map_or(1, |n| n.parse().expect("a number"));
    let broker = open(Path::new(&folder), sync);
    let mut subscription = consume(&broker, QUEUE, 2000, Access::Fenced).await;
    let mut link = broker.link();
    tokio::spawn(async move {
        loop {
            match &*link.borrow_and_update() {
                LinkState::Blocked(why) => say("blocked", why),
                LinkState::Up { .. } => say("up", ""),
                _ => {}
            }
            if link.changed().await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let delivery = next(&mut subscription).await;
            say("got", number(&delivery));
            if !number(&delivery).is_multiple_of(7) {
                subscription
                    .acker
                    .ack(delivery.generation, delivery.tag, false);
            }
        }
    });
    let (receipts, mut waiting) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        for n in first.. {
            let receipt = broker.publish(data(QUEUE, format!("{n:0>width$}"))).await;
            let _ = receipts.send((n, receipt)).await;
        }
    });
    while let Some((n, receipt)) = waiting.recv().await {
        match receipt.confirmation().await {
            Confirmation::Confirmed => say("confirmed", n),
            other => say("refused", format!("{n} {other:?}")),
        }
    }
}

fn start(folder: &Path, sync: bool, first: u32, width: usize) -> Running {
    let mut given = vec![
        (FOLDER, folder.display().to_string()),
        (FIRST, first.to_string()),
        (WIDTH, width.to_string()),
    ];
    if sync {
        given.push((SYNC, "1".into()));
    }
    Running::start("embedded_faults::child", given)
}

fn numbers_of(heard: &BTreeMap<String, Vec<String>>, what: &str) -> BTreeSet<u32> {
    let said = heard.get(what).into_iter().flatten();
    said.map(|n| n.parse().expect("a number")).collect()
}

/// Everything in the queue, in order, each with its flag; it is all there again afterwards.
async fn contents(folder: &Path, sync: bool) -> Vec<(u32, bool)> {
    let broker = open(folder, sync);
    let depth = broker.depth(QUEUE).await.expect("depth").expect("exists");
    let mut all = Vec::new();
    let mut subscription = consume(&broker, QUEUE, u16::MAX, Access::Fenced).await;
    for _ in 0..depth.ready {
        let delivery = next(&mut subscription).await;
        all.push((number(&delivery), delivery.redelivered));
    }
    subscription.acker.close();
    broker.close(PATIENCE).await;
    all
}

async fn killed_again_and_again(sync: bool, width: usize, rounds: u64, at_least: usize) {
    let folder = tempfile::tempdir().expect("folder");
    let (mut confirmed, mut got) = (BTreeSet::new(), BTreeSet::new());
    let mut first = 1;
    for round in 0..rounds {
        let mut child = start(folder.path(), sync, first, width);
        child.until("confirmed", at_least);
        let heard = child.kill_within(Duration::from_millis(150));
        confirmed.extend(numbers_of(&heard, "confirmed"));
        got.extend(numbers_of(&heard, "got"));
        first = confirmed.last().copied().unwrap_or(0) + 10_000;

        let there = contents(folder.path(), sync).await;
        let numbers: Vec<u32> = there.iter().map(|(n, _)| *n).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "order, no repeats");
        let present: BTreeSet<u32> = numbers.iter().copied().collect();
        for n in &confirmed {
            let acknowledged = got.contains(n) && n % 7 != 0;
            assert!(
                present.contains(n) || acknowledged,
                "round {round}: {n} was confirmed and is lost"
            );
        }
        for (n, redelivered) in &there {
            assert!(
                *redelivered || !got.contains(n),
                "round {round}: {n} was delivered before the kill and is not marked"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_confirmed() {
    killed_again_and_again(false, 1, 6, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_confirmed_with_sync() {
    killed_again_and_again(true, 1, 6, 20).await;
}

/// Enough bytes per round that the store writes tables and changes journals meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_confirmed_with_large_bodies() {
    killed_again_and_again(false, 30_000, 3, 1200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_confirms_nothing_and_recovers() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = start(folder.path(), false, 1, 1);
    child.until("confirmed", 100);
    child.limit_files("1000");
    child.until("blocked", 0);
    // What was confirmed before is told a little later, and what still fits in the last file is written; then it tries
    // again and fails again, and nothing more is confirmed.
    let patience = Instant::now() + Duration::from_secs(20);
    let mut confirmed = child.count("confirmed");
    loop {
        let quiet_until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < quiet_until {
            child.listen(Duration::from_millis(20));
        }
        let now = child.count("confirmed");
        if now == confirmed {
            break;
        }
        confirmed = now;
        assert!(Instant::now() < patience, "confirmed on a full disk");
    }
    let ups = child.count("up");
    child.limit_files("unlimited");
    child.until("up", ups);
    child.until("confirmed", confirmed + 200);
    let heard = child.kill();
    let (confirmed, got) = (numbers_of(&heard, "confirmed"), numbers_of(&heard, "got"));
    let there: BTreeSet<u32> = contents(folder.path(), false)
        .await
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    for n in &confirmed {
        assert!(
            there.contains(n) || (got.contains(n) && n % 7 != 0),
            "{n} is lost"
        );
    }
    for line in heard.get("refused").into_iter().flatten() {
        let (n, fate) = line.split_once(' ').expect("number and fate");
        assert_eq!(fate, "Nacked");
        let n = n.parse().expect("a number");
        assert!(!there.contains(&n), "{n} was refused and is there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_process_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = start(folder.path(), false, 1, 1);
    child.until("confirmed", 1);
    let options = EmbeddedOptions {
        state: Some(folder.path().to_owned()),
        ..EmbeddedOptions::default()
    };
    let error = EmbeddedBroker::open(options).err().expect("refused");
    assert_eq!(error.code, codes::BROKER_STATE_IN_USE);
    assert!(error.text.contains("in use by another process"), "{error}");
    let _ = child.kill();
    open(folder.path(), false).close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let options = EmbeddedOptions {
        state: Some(file.path().to_owned()),
        ..EmbeddedOptions::default()
    };
    let error = EmbeddedBroker::open(options).err().expect("refused");
    assert_eq!(error.code, codes::BROKER_STATE);
}

fn on_default_exchange(queue: &str, class: PublicationClass) -> Publication {
    Publication {
        exchange: String::new(),
        routing_key: queue.into(),
        body: Bytes::from_static(b"7"),
        message_id: Some("id".into()),
        class,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_keeps_what_is_durable() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = open(folder.path(), true);
    assert_eq!(broker.durability(), Durability::Host);
    send(&broker, QUEUE, 1..=5).await;
    let parking = QueueSpec::Parking("faults.parked".into());
    broker.declare(&parking).await.expect("declare");
    for class in [PublicationClass::Direct, PublicationClass::Telemetry] {
        let sent = publish(&broker, on_default_exchange(parking.name(), class)).await;
        assert_eq!(sent, Confirmation::Confirmed);
    }
    assert_eq!(depth(&broker, parking.name()).await, Some(2));
    let reply = QueueSpec::Reply("faults.reply.one".into());
    broker.declare(&reply).await.expect("declare");
    let mut subscription = consume(&broker, QUEUE, 3, Access::Fenced).await;
    for _ in 0..2 {
        next(&mut subscription).await;
    }
    let third = next(&mut subscription).await;
    subscription.acker.ack(third.generation, third.tag, false);
    broker.close(PATIENCE).await;

    let broker = open(folder.path(), false);
    assert_eq!(broker.durability(), Durability::Process);
    assert_eq!(depth(&broker, QUEUE).await, Some(4));
    assert_eq!(
        depth(&broker, parking.name()).await,
        Some(1),
        "no telemetry"
    );
    assert_eq!(depth(&broker, reply.name()).await, None);
    let direct = Publication {
        class: PublicationClass::Direct,
        ..data(QUEUE, "6")
    };
    assert_eq!(
        publish(&broker, direct).await,
        Confirmation::Confirmed,
        "still bound"
    );
    let bound = Publication {
        exchange: EXCHANGE.into(),
        ..on_default_exchange(parking.name(), PublicationClass::Direct)
    };
    assert!(matches!(
        publish(&broker, bound).await,
        Confirmation::Returned(_)
    ));
    let mut subscription = consume(&broker, QUEUE, 10, Access::Fenced).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut subscription).await;
        assert_eq!(delivery.routing_key, QUEUE);
        all.push(number(&delivery));
        if number(&delivery) < 3 {
            assert!(delivery.redelivered);
        }
    }
    assert_eq!(all, [1, 2, 4, 5, 6]);
    let mut shelf = broker.shelf(parking.name(), 5).await.expect("shelf");
    assert_eq!(shelf.messages()[0].message_id.as_deref(), Some("id"));
    let tag = shelf.messages()[0].tag;
    shelf.remove(tag).await.expect("remove");
    assert!(shelf.remove(tag).await.is_err(), "only once");
    shelf.close().await;
    broker.close(PATIENCE).await;

    let broker = open(folder.path(), false);
    assert_eq!(depth(&broker, parking.name()).await, Some(0), "removed");
    broker.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_broker_answers_everything() {
    for state in [None, Some(tempfile::tempdir().expect("folder"))] {
        let broker = EmbeddedBroker::open(EmbeddedOptions {
            state: state.as_ref().map(|folder| folder.path().to_owned()),
            ..EmbeddedOptions::default()
        })
        .expect("open");
        send(&broker, QUEUE, 1..=2).await;
        let mut shelf = broker.shelf(QUEUE, 1).await.expect("shelf");
        let tag = shelf.messages()[0].tag;
        broker.close(PATIENCE).await;
        broker.close(PATIENCE).await;
        let calls = async {
            assert!(shelf.remove(tag).await.is_err());
            drop(shelf);
            assert!(broker.depth(QUEUE).await.is_err());
            assert!(broker.shelf(QUEUE, 1).await.is_err());
            let spec = QueueSpec::Data(QUEUE.into());
            assert!(broker.declare(&spec).await.is_err());
            let mut late = consume(&broker, QUEUE, 1, Access::Shared).await;
            assert!(late.deliveries.recv().await.is_none());
            let fate = publish(&broker, data(QUEUE, "3")).await;
            assert_eq!(fate, Confirmation::Lost);
        };
        tokio::time::timeout(PATIENCE, calls)
            .await
            .expect("nothing hangs");
        if let Some(folder) = state {
            let broker = open(folder.path(), false);
            assert_eq!(depth(&broker, QUEUE).await, Some(2), "nothing was removed");
            broker.close(PATIENCE).await;
        }
    }
}

async fn depth(broker: &Arc<dyn Broker>, queue: &str) -> Option<u32> {
    broker.depth(queue).await.expect("depth").map(|d| d.ready)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_limit_stops_the_intake_and_not_the_drain() {
    let broker: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions {
        memory_limit: Some(1 << 20),
        ..EmbeddedOptions::default()
    })
    .expect("open");
    let (long, short) = (unique("long"), unique("short"));
    let body = Bytes::from(vec![b'x'; 10_000]);
    let mut accepted = 0;
    let waiting = loop {
        let (broker, publication) = (Arc::clone(&broker), data(&long, body.clone()));
        let mut task = tokio::spawn(async move { publish(&broker, publication).await });
        match tokio::time::timeout(Duration::from_millis(300), &mut task).await {
            Ok(fate) => assert_eq!(fate.expect("task"), Confirmation::Confirmed),
            Err(_) => break task,
        }
        accepted += 1;
        assert!(accepted < 200, "no limit");
    };
    assert!((80..=110).contains(&accepted), "{accepted} of 1 MiB");
    assert!(matches!(*broker.link().borrow(), LinkState::Blocked(_)));
    // A worker moves everything to another queue although memory stays full.
    let mut worker = consume(&broker, &long, 10, Access::Fenced).await;
    consuming(&worker).await;
    let mut sink = consume(&broker, &short, 10, Access::Fenced).await;
    for _ in 0..=accepted {
        let delivery = next(&mut worker).await;
        let sent = publish(&broker, data(&short, delivery.body.clone())).await;
        assert_eq!(sent, Confirmation::Confirmed);
        worker.acker.ack(delivery.generation, delivery.tag, false);
        let moved = next(&mut sink).await;
        sink.acker.ack(moved.generation, moved.tag, false);
    }
    assert_eq!(waiting.await.expect("task"), Confirmation::Confirmed);
    let mut link = broker.link();
    let up = link.wait_for(|l| matches!(l, LinkState::Up { .. }));
    tokio::time::timeout(PATIENCE, up)
        .await
        .expect("up again")
        .expect("open");
}
