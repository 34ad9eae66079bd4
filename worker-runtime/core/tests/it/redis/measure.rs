//! What the store on Redis costs: bytes, rates and the server's own time, printed. Run by hand, best with optimisation:
//! `cargo test -p vumi-core --test it -- --ignored --nocapture redis::measure`.

use super::{store, up};
use crate::state_suite::{LONG, append, change, lane};
use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use std::time::{Duration, Instant};
use vumi_core::state::journal::{Claimed, Due, Next, Step};
use vumi_core::state::ledger::{Note, Row, RowState, Step as Hop};
use vumi_core::state::redis::RedisStore;
use vumi_core::state::{FirstSeen, Journal, Ledger, Person};
use vumi_testkit::redis::{Append, Options, Redis};

const QUEUE: &str = "sms.outbound";
const COUNT: u64 = 20_000;
const IN_FLIGHT: usize = 200;

/// A line of INFO that begins so, without that beginning.
async fn info(redis: &Redis, section: &str, begin: &str) -> String {
    let told = redis.cli(&["info", section]).await.expect("info");
    let line = told.lines().find_map(|line| line.strip_prefix(begin));
    line.unwrap_or_default().trim().to_owned()
}

async fn bytes(redis: &Redis) -> u64 {
    let used = info(redis, "memory", "used_memory:").await;
    used.parse().expect("a number")
}

/// Runs an operation so many times and tells how fast, and how many bytes each left.
async fn rate<F: Future<Output = ()>>(redis: &Redis, what: &str, operation: impl Fn(u64) -> F) {
    redis.cli(&["config", "resetstat"]).await.expect("reset");
    let (before, begun) = (bytes(redis).await, Instant::now());
    let running = stream::iter(0..COUNT).map(operation);
    running
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<()>>()
        .await;
    let rate = COUNT as f64 / begun.elapsed().as_secs_f64();
    let left = bytes(redis).await.saturating_sub(before) / COUNT;
    let time = info(redis, "commandstats", "cmdstat_evalsha:").await;
    println!("{what}: {rate:.0}/s, {left} bytes each; scripts {time}");
}

/// Works along a lane from its claimed head; how many messages.
async fn along(store: &RedisStore, mut head: Claimed) -> u64 {
    for done in 1.. {
        let next = store.step(QUEUE, &head.lane, head.id, Step::Done, LONG);
        match next.await.expect("step") {
            Next::Head(next) => head = next,
            _ => return done,
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; run by hand"]
async fn what_operations_cost() {
    let body = "x".repeat(600);
    for kind in [Append::EverySec, Append::Always] {
        let options = Options {
            append: kind,
            ..Options::default()
        };
        let Some(redis) = Redis::start_or_skip(options).await else {
            return;
        };
        let store = store(&redis);
        up(&store).await;
        println!("{kind:?}");
        let now = Due::After(Duration::ZERO);
        let message = async |n: u64| {
            let lane = lane("", (n % 2000).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let message = append(&lane, now, &body);
            store.append(QUEUE, vec![message]).await.expect("append");
        };
        rate(&redis, "append 600 bytes in 2000 lanes", message).await;

        let row = |n: u64, steps: usize| {
            let mut row = Row::new(&format!("{n:032x}"), "sms", 1_700_000_000_000 + n);
            row.person = Some(format!("{:032x}", n % 5000));
            let states = [RowState::Queued, RowState::Sending, RowState::Sent];
            for (at, state) in states.into_iter().take(steps).enumerate() {
                let mut change = change(state, 1_700_000_000_000 + at as u64, LONG);
                change.remote_id = (state == RowState::Sent).then(|| format!("{n:016x}"));
                row = row.after(change).expect("not final");
            }
            row
        };
        for steps in 1..=3 {
            let put = async |n: u64| {
                let row = row(n, steps);
                let expected = (steps > 1).then_some(row.version - 1);
                store.put(&row, expected, LONG).await.expect("put");
            };
            rate(&redis, &format!("put, step {steps} of 3"), put).await;
        }

        let hop = async |n: u64| {
            let note = Note {
                message_id: format!("{:032x}", n + COUNT),
                person: Some(format!("{:032x}", n % 5000)),
                step: Hop {
                    at: 1_700_000_000_000 + n,
                    worker: "application/echo@pod-1".into(),
                    state: None,
                    attempt: 0,
                    code: String::new(),
                    class: String::new(),
                    text: "to sms.outbound".into(),
                    who: String::new(),
                    caused: vec![format!("{n:032x}")],
                    holder: None,
                },
            };
            store.note(&[note], LONG).await.expect("note");
        };
        rate(&redis, "note of a first hop", hop).await;

        let reserve = async |n: u64| {
            let id = format!("{n:016x}");
            let reserved = store.reserve("sms", &id, LONG);
            reserved.await.expect("reserve");
        };
        rate(&redis, "reserve", reserve).await;
        let commit = async |n: u64| {
            let (id, person) = (format!("{n:016x}"), Person::new(&format!("27{}", n % 5000)));
            let committed = store.commit("sms", &id, "OK".into(), Some(&person), LONG, COUNT);
            committed.await.expect("commit");
        };
        rate(&redis, "commit", commit).await;

        let (begun, mut done, mut running) = (Instant::now(), 0, FuturesUnordered::new());
        loop {
            let room = IN_FLIGHT - running.len();
            let heads = store.claim(QUEUE, "", room, LONG).await.expect("claim");
            running.extend(heads.into_iter().map(|head| along(&store, head)));
            match running.next().await {
                Some(messages) => done += messages,
                None => break,
            }
        }
        assert_eq!(done, COUNT);
        println!(
            "replay: {:.0}/s",
            COUNT as f64 / begun.elapsed().as_secs_f64()
        );
    }
}
