//! What a write survives is read from the server and kept: nothing confirmed is lost when Redis is killed.

use super::{store, up};
use crate::state_suite::{self, Dice, LONG, NOW, append, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vumi_core::broker::Durability;
use vumi_core::state::journal::{Due, Filter};
use vumi_core::state::ledger::{Put, Row};
use vumi_core::state::redis::RedisStore;
use vumi_core::state::{Journal, Ledger, StateStore};
use vumi_testkit::redis::{Append, Options, Redis};

fn options(append: Append, lines: &[&str]) -> Options {
    Options {
        append,
        lines: lines.iter().map(|line| line.to_string()).collect(),
        ..Options::default()
    }
}

// In one thread, so that nothing is connected before the test waits.
#[tokio::test]
async fn what_a_write_survives_is_told() {
    let evicting = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"];
    let no_config = ["rename-command CONFIG \"\""];
    for (options, durability) in [
        (options(Append::Off, &[]), Durability::Memory),
        (options(Append::No, &[]), Durability::Memory),
        (options(Append::EverySec, &[]), Durability::Process),
        (options(Append::Always, &[]), Durability::Host),
        (options(Append::Always, &evicting), Durability::Memory),
        (options(Append::Always, &no_config), Durability::Process),
        (options(Append::Off, &no_config), Durability::Memory),
    ] {
        let Some(redis) = Redis::start_or_skip(options.clone()).await else {
            return;
        };
        let store = store(&redis);
        assert_eq!(store.durability(), Durability::Process, "not known yet");
        up(&store).await;
        assert_eq!(store.durability(), durability, "{options:?}");
    }
}

/// Appends numbered messages to a lane, one after the other, until Redis does not answer; keeps the last number that was
/// confirmed.
async fn write(store: Arc<RedisStore>, lane: u64, confirmed: Arc<AtomicU64>) {
    for number in 1.. {
        let lane = state_suite::lane("", lane);
        let message = append(&lane, Due::After(Duration::ZERO), &number.to_string());
        // What is on its way when Redis goes may be there or not; nothing follows it.
        if store.append("q", vec![message]).await.is_err() {
            return;
        }
        confirmed.store(number, Ordering::SeqCst);
    }
}

/// With `everysec` Redis itself may put a write off while the disk is busy, for two seconds at most.
const PUT_OFF: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_kill_of_redis() {
    for kind in [Append::Always, Append::EverySec] {
        let Some(mut redis) = Redis::start_or_skip(options(kind, &[])).await else {
            return;
        };
        for round in 0..3 {
            let store = store(&redis);
            up(&store).await;
            let lanes = round * 10..(round + 1) * 10;
            let confirmed: Vec<_> = lanes.clone().map(|_| Arc::new(AtomicU64::new(0))).collect();
            let now =
                || -> Vec<u64> { confirmed.iter().map(|n| n.load(Ordering::SeqCst)).collect() };
            let writers: Vec<_> = lanes
                .clone()
                .zip(&confirmed)
                .map(|(lane, n)| tokio::spawn(write(Arc::clone(&store), lane, Arc::clone(n))))
                .collect();
            until("each has written", || async {
                now().iter().all(|n| *n >= 20).then_some(())
            })
            .await;
            let mut safe = now();
            if kind == Append::EverySec {
                tokio::time::sleep(PUT_OFF).await;
            }
            redis.kill().await.expect("killed");
            for writer in writers {
                writer.await.expect("a writer");
            }
            if kind == Append::Always {
                safe = now();
            }
            redis.restart().await.expect("started again");
            up(&store).await;
            for ((lane, safe), last) in lanes.zip(safe).zip(now()) {
                let filter = Filter {
                    lane: Some(lane),
                    ..Filter::default()
                };
                let found = store.list("q", &filter, usize::MAX).await.expect("listed");
                let numbers = found.iter().map(|listed| {
                    let body = std::str::from_utf8(&listed.entry.body).expect("a text");
                    body.parse::<u64>().expect("a number")
                });
                let there = found.len() as u64;
                assert!(numbers.eq(1..=there), "in order, once each");
                assert!(
                    (safe..=last + 1).contains(&there),
                    "{kind:?}: {there} of {safe} to {last}"
                );
            }
        }
    }
}

/// Lanes to which one operation appends.
const BATCH: u64 = 3;

/// What a power loss leaves of a Redis with `appendfsync always`, approximately: its append-only file as it was when an
/// operation was answered, and only a part of what was written after that, torn anywhere. It shows that what is written with
/// an answer is enough to have all that was answered, and that a torn operation is left out as a whole. It does not show that
/// the disk keeps what it said it synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_of_redis_keeps_what_was_answered() {
    for seed in 1..=10u64 {
        let mut dice = Dice::new(seed);
        let Some(mut redis) = Redis::start_or_skip(options(Append::Always, &[])).await else {
            return;
        };
        let before = store(&redis);
        up(&before).await;
        assert_eq!(before.durability(), Durability::Host);
        let answered = dice.roll(30);
        let write = async |n: u64| {
            let lanes = (0..BATCH).map(|l| state_suite::lane("", l));
            let batch = lanes.map(|lane| append(&lane, NOW, &n.to_string()));
            let appended = before.append("q", batch.collect()).await;
            appended.expect("appended");
            let row = Row::new(&n.to_string(), "sms", n);
            let put = before.put(&row, None, LONG).await;
            assert_eq!(put.expect("put"), Put::Stored);
        };
        for n in 0..answered {
            write(n).await;
        }
        let synced = redis.append_files().expect("sizes");
        assert!(!synced.is_empty(), "no append-only file");
        for n in answered..answered + 5 {
            write(n).await;
        }
        redis.kill().await.expect("killed");
        for (path, size) in &synced {
            let file = std::fs::OpenOptions::new().write(true).open(path);
            let file = file.expect("the append-only file");
            let more = file.metadata().expect("its size").len() - size;
            // Nothing after the answer, or some of it.
            let left = size + dice.roll(more + 1);
            file.set_len(left).expect("cut");
        }
        redis.restart().await.expect("started again");
        let after = store(&redis);
        up(&after).await;
        let depth = after.depth("q").await.expect("depth").messages;
        let listed = after.list("q", &Filter::default(), 1000).await;
        assert_eq!(depth, listed.expect("listed").len() as u64, "seed {seed}");
        assert_eq!(depth % BATCH, 0, "seed {seed}: half a batch");
        let batches = depth / BATCH;
        assert!(batches >= answered, "seed {seed}: {batches} of {answered}");
        let rows = after.counts().await.expect("counts").values().sum::<u64>();
        assert!(
            rows == batches || rows + 1 == batches,
            "seed {seed}: {rows} and {batches}"
        );
        for n in 0..rows {
            let row = after.row(&n.to_string()).await.expect("row");
            assert!(row.is_some(), "seed {seed}: row {n}");
        }
        // And it goes on from there.
        let on = append(&state_suite::lane("", 0), NOW, "on");
        after.append("q", vec![on]).await.expect("appended");
    }
}
