//! What a write survives is read from the server and kept: nothing confirmed is lost when Redis is killed.

use super::{PATIENCE, store, up};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vumi_core::broker::Durability;
use vumi_core::state::journal::{About, Append as Appended, Due, Entry, Filter, Lane, Reason};
use vumi_core::state::redis::RedisStore;
use vumi_core::state::{Journal, StateStore};
use vumi_testkit::redis::{Append, Options, Redis};

fn options(append: Append, lines: &[&str]) -> Options {
    Options {
        append,
        lines: lines.iter().map(|line| line.to_string()).collect(),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

/// Appends numbered messages of one lane, one after the other, until told to stop; the last number that was confirmed.
async fn write(store: Arc<RedisStore>, lane: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let about = About {
            reason: Reason::Backoff,
            since: 1,
            attempts: 1,
            code: String::new(),
            text: String::new(),
            routing_key: "q".into(),
            amqp_message_id: None,
        };
        let message = Appended {
            lane: Lane {
                group: String::new(),
                number: lane,
            },
            due: Due::After(Duration::ZERO),
            entry: Entry {
                about,
                body: (number + 1).to_string().into(),
            },
        };
        match store.append("q", vec![message]).await {
            Ok(()) => number += 1,
            // What was on its way may be there or not; nothing follows it.
            Err(_) => break,
        }
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_kill_of_redis() {
    for append in [Append::Always, Append::EverySec] {
        let Some(mut redis) = Redis::start_or_skip(options(append, &[])).await else {
            return;
        };
        for round in 0..3 {
            let store = store(&redis);
            up(&store).await;
            let lanes = round * 10..(round + 1) * 10;
            let stop = Arc::new(AtomicBool::new(false));
            let writers: Vec<_> = lanes
                .clone()
                .map(|lane| tokio::spawn(write(Arc::clone(&store), lane, Arc::clone(&stop))))
                .collect();
            let depth = async {
                while store.depth("q").await.expect("depth").messages < 500 * (round + 1) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, depth)
                .await
                .expect("written");
            redis.kill().await.expect("killed");
            stop.store(true, Ordering::Relaxed);
            let mut confirmed = Vec::new();
            for writer in writers {
                confirmed.push(writer.await.expect("a writer"));
            }
            redis.restart().await.expect("started again");
            up(&store).await;
            for (lane, confirmed) in lanes.zip(confirmed) {
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
                    confirmed > 0 && (confirmed..=confirmed + 1).contains(&there),
                    "{append:?}: {there} of {confirmed}"
                );
            }
        }
    }
}
