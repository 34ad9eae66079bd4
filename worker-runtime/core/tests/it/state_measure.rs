//! What the embedded store costs: bytes, rates and memory, printed. Run by hand, best with optimisation:
//! `cargo test -p vumi-core --test it -- --ignored --nocapture state_measure`.

use crate::state_suite::{LONG, PATIENCE, append, change, lane};
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vumi_core::message::UserMessage;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::journal::{Due, Next, Step};
use vumi_core::state::ledger::{Put, Row, RowState};
use vumi_core::state::{FirstSeen, Journal, Ledger, StateStore};

const NOW: Due = Due::After(Duration::ZERO);
const QUEUE: &str = "sms.outbound";

fn open(folder: &Path, sync: bool) -> Arc<EmbeddedStore> {
    let folder = Some(folder.to_owned());
    EmbeddedStore::open(EmbeddedStoreOptions { folder, sync }).expect("open")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

fn body(n: u64) -> Bytes {
    let to = format!("2782{n:07}");
    let mut message = UserMessage::new("sms", Some(&to), Some("8000"));
    message.set_content(Some(&"Your appointment is tomorrow. ".repeat(5)));
    message.encode()
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder)
        .expect("folder")
        .map_while(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Megabytes: resident now, and at most so far.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a line");
        let kilobytes = line.split_whitespace().nth(1).expect("a number");
        kilobytes.parse::<f64>().expect("a number") / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn journal_of_a_million() {
    let (messages, lanes) = (number("MESSAGES", 1_000_000), number("LANES", 100_000));
    let folder = tempfile::tempdir().expect("folder");
    let store = open(folder.path(), false);
    println!("at first: RSS {:.1} MB", memory().0);
    let begin = Instant::now();
    let mut bytes = 0;
    for first in (0..messages).step_by(100) {
        let batch: Vec<_> = (first..first + 100)
            .map(|n| {
                let mut one = append(&lane("", n % lanes), NOW, "");
                one.entry.body = body(n % lanes);
                bytes += one.entry.encode().len();
                one
            })
            .collect();
        store.append(QUEUE, batch).await.expect("append");
        if first % 200_000 == 0 {
            println!(
                "  {first}: RSS {:.1} MB, at most {:.1} MB",
                memory().0,
                memory().1
            );
        }
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "appended {messages} in {lanes} lanes by 100: {:.0}/s; RSS {:.1} MB, at most {:.1} MB; {:.0} bytes on disk each, {:.0} of them given",
        messages as f64 / took,
        memory().0,
        memory().1,
        size(folder.path()) as f64 / messages as f64,
        bytes as f64 / messages as f64,
    );
    let begin = Instant::now();
    let depth = store.depth(QUEUE).await.expect("depth");
    assert_eq!((depth.messages, depth.lanes), (messages, lanes));
    println!("depth in {:?}", begin.elapsed());
    let begin = Instant::now();
    let all = store.lanes(QUEUE).await.expect("lanes").len();
    println!(
        "{all} lanes in {:?}; RSS {:.1} MB",
        begin.elapsed(),
        memory().0
    );
    let begin = Instant::now();
    store.close(PATIENCE).await;
    drop(store);
    let closed = begin.elapsed();
    let begin = Instant::now();
    let store = open(folder.path(), false);
    println!(
        "closed in {closed:?}, opened in {:?}; RSS {:.1} MB",
        begin.elapsed(),
        memory().0
    );

    let replay = number("REPLAY", messages.min(300_000));
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let workers = (0..32).map(|_| {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            loop {
                for mut head in store.claim(QUEUE, "", 1, LONG).await.expect("claim") {
                    for _ in 0..10 {
                        if done.fetch_add(1, Ordering::Relaxed) >= replay {
                            return;
                        }
                        let step = store.step(QUEUE, &head.lane, head.id, Step::Done, LONG);
                        match step.await.expect("step") {
                            Next::Head(next) => head = next,
                            Next::Empty => break,
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("worker");
    }
    println!(
        "replayed {replay}: {:.0}/s; RSS {:.1} MB, at most {:.1} MB",
        replay as f64 / begin.elapsed().as_secs_f64(),
        memory().0,
        memory().1,
    );
    store.close(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rows_and_ids() {
    let count = number("ROWS", 100_000);
    for sync in [false, true] {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(folder.path(), sync);
        let begin = Instant::now();
        let tasks = (0..64).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in (task..count).step_by(64) {
                    let mut row = Row::new(&format!("{n:032x}"), "sms", n);
                    row.person = Some(format!("{:032x}", n % 10_000));
                    let mut expected = None;
                    for state in [
                        RowState::Accepted,
                        RowState::Sending,
                        RowState::Sent,
                        RowState::Delivered,
                    ] {
                        let mut change = change(state, n, LONG);
                        change.remote_id = (state == RowState::Sent).then(|| format!("{n:016x}"));
                        row = row.after(change).expect("not final");
                        let put = store.put(&row, expected, LONG).await.expect("put");
                        assert_eq!(put, Put::Stored);
                        expected = Some(row.version);
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("task");
        }
        println!(
            "sync {sync}: {count} rows of four steps by 64 at once: {:.0} steps/s, {:.0} bytes on disk a row; RSS {:.1} MB",
            4.0 * count as f64 / begin.elapsed().as_secs_f64(),
            size(folder.path()) as f64 / count as f64,
            memory().0,
        );
        store.close(PATIENCE).await;

        let folder = tempfile::tempdir().expect("folder");
        let store = open(folder.path(), sync);
        let begin = Instant::now();
        let tasks = (0..64).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in (task..count).step_by(64) {
                    let id = format!("{n:032x}");
                    FirstSeen::reserve(&*store, "http", &id, LONG)
                        .await
                        .expect("reserve");
                    let answer = Bytes::from_static(
                        b"{\"message_id\": \"0123456789abcdef0123456789abcdef\"}",
                    );
                    let commit =
                        FirstSeen::commit(&*store, "http", &id, answer, None, LONG, 1 << 40);
                    commit.await.expect("commit");
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("task");
        }
        println!(
            "sync {sync}: {count} ids reserved and committed by 64 at once: {:.0} ids/s, {:.0} bytes on disk an id; RSS {:.1} MB",
            count as f64 / begin.elapsed().as_secs_f64(),
            size(folder.path()) as f64 / count as f64,
            memory().0,
        );
        store.close(PATIENCE).await;
    }
}
