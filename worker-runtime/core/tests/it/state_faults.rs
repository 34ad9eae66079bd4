//! The embedded store when things go wrong: kill -9 at any moment, power loss, a disk that takes no more, a folder that is
//! not ours. Children are this test binary again.

mod folders;
mod said;

use crate::child::{Running, say};
use crate::state_suite::{Dice, LONG, PATIENCE, append, change, lane, remove, text};
use said::Said;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vumi_core::broker::Durability;
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::journal::{Due, Filter, Next, Step};
use vumi_core::state::ledger::{Put, Row, RowState};
use vumi_core::state::sessions::Session;
use vumi_core::state::{FirstSeen, Journal, Ledger, Sessions, StateStore, StoreHealth};

const FOLDER: &str = "VUMI_TEST_STATE_FOLDER";
const SYNC: &str = "VUMI_TEST_STATE_SYNC";
const FIRST: &str = "VUMI_TEST_FIRST_NUMBER";
const WIDTH: &str = "VUMI_TEST_BODY_WIDTH";
const QUEUE: &str = "faults.outbound";
const ACCOUNT: &str = "faults";
const LANES: u64 = 4;
const ROWS: u64 = 4;
/// Messages of one append.
const BATCH: u64 = 3;
const NOW: Due = Due::After(Duration::ZERO);

fn options(folder: &Path, sync: bool) -> EmbeddedStoreOptions {
    EmbeddedStoreOptions {
        folder: Some(folder.to_owned()),
        sync,
    }
}

fn open(folder: &Path, sync: bool) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(options(folder, sync)).expect("open")
}

/// Not a test: what a child does until it is killed. It says what it begins, and what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests of this file as a child process"]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let sync = std::env::var_os(SYNC).is_some();
    let number = |name| std::env::var(name).map_or(1, |n| n.parse().expect("a number"));
    let (first, width) = (number(FIRST), number(WIDTH) as usize);
    let store = open(Path::new(&folder), sync);
    Journal::release(&*store, QUEUE, &Filter::default())
        .await
        .expect("release");
    store.reclaim(QUEUE).await.expect("reclaim");
    let mut health = store.health();
    tokio::spawn(async move {
        loop {
            match &*health.borrow_and_update() {
                StoreHealth::Away(why) => say("away", why),
                StoreHealth::Up => say("up", ""),
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    });
    for lane in 0..LANES {
        let store = Arc::clone(&store);
        tokio::spawn(async move { fill(&store, lane, first, width).await });
    }
    for row in 0..ROWS {
        let store = Arc::clone(&store);
        tokio::spawn(async move { advance(&store, row).await });
    }
    let taker = Arc::clone(&store);
    tokio::spawn(async move { see(&taker, first).await });
    replay(&store).await;
}

/// A failure of the store is said, and after a while the operation is tried again.
async fn insist<T, F: Future<Output = Result<T, WorkError>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(e) => {
                assert_eq!(e.class, ErrorClass::Connect, "{e}");
                say("failed", e.code.name);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn fill(store: &EmbeddedStore, number: u64, first: u64, width: usize) {
    for n in (first..).step_by(BATCH as usize) {
        let batch =
            (n..n + BATCH).map(|n| append(&lane("", number), NOW, &format!("{n:0>width$}")));
        let batch: Vec<_> = batch.collect();
        // An append that failed may have been made: at least once. So it is not repeated here, but left out.
        match store.append(QUEUE, batch).await {
            Ok(()) => say("appended", format!("{number} {n}")),
            Err(e) => {
                say("failed", e.code.name);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn replay(store: &EmbeddedStore) {
    loop {
        for mut head in insist(|| store.claim(QUEUE, "", 2, LONG)).await {
            for _ in 0..5 {
                say("removing", format!("{} {}", head.lane.number, text(&head)));
                let next =
                    insist(|| store.step(QUEUE, &head.lane, head.id, Step::Done, LONG)).await;
                say("removed", format!("{} {}", head.lane.number, text(&head)));
                match next {
                    Next::Head(next) => head = next,
                    // After a failure the step may have been made.
                    Next::Empty | Next::Moved | Next::Waits => break,
                }
            }
            let about = head.entry.about.clone();
            let step = || Step::Again(about.clone(), NOW);
            insist(|| store.step(QUEUE, &head.lane, head.id, step(), LONG)).await;
        }
        insist(|| store.reclaim(QUEUE)).await;
    }
}

async fn advance(store: &EmbeddedStore, number: u64) {
    let id = format!("row {number}");
    let mut row = insist(|| store.row(&id)).await;
    loop {
        let expected = row.as_ref().map(|row| row.version);
        let base = row.clone().unwrap_or_else(|| {
            let mut row = Row::new(&id, ACCOUNT, number);
            row.person = Some(format!("person {number}"));
            row
        });
        let states = [
            RowState::Queued,
            RowState::Sending,
            RowState::Sent,
            RowState::Unknown,
        ];
        let state = states[base.version as usize % states.len()];
        let mut change = change(state, base.version, LONG);
        change.remote_id = Some(format!("remote {} of {number}", base.version));
        let next = base.after(change).expect("not final");
        match insist(|| store.put(&next, expected, LONG)).await {
            Put::Stored => say("stored", format!("{number} {}", next.version)),
            Put::Conflict(_) => {}
        }
        row = insist(|| store.row(&id)).await;
    }
}

async fn see(store: &EmbeddedStore, first: u64) {
    for n in first.. {
        let id = n.to_string();
        insist(|| FirstSeen::reserve(store, ACCOUNT, &id, LONG)).await;
        let answer = || id.clone().into_bytes().into();
        insist(|| FirstSeen::commit(store, ACCOUNT, &id, answer(), None, LONG, 1 << 40)).await;
        say("seen", n);
        insist(|| store.create(ACCOUNT, &id, Session::new(), Some(LONG))).await;
        say("created", n);
    }
}

fn start(folder: &Path, sync: bool, first: u64, width: usize) -> Running {
    let mut given = vec![
        (FOLDER, folder.display().to_string()),
        (FIRST, first.to_string()),
        (WIDTH, width.to_string()),
    ];
    if sync {
        given.push((SYNC, "1".into()));
    }
    Running::start("state_faults::child", given)
}

async fn killed_again_and_again(sync: bool, width: usize, rounds: u64, at_least: usize) {
    let folder = tempfile::tempdir().expect("folder");
    let mut said = Said::default();
    for round in 0..rounds {
        let first = round * 3_000_000 + 1;
        let mut child = start(folder.path(), sync, first, width);
        child.until("appended", at_least);
        said.hear(child.kill_within(Duration::from_millis(100)));
        let store = open(folder.path(), sync);
        said.check(&store, 1).await;
        // The next child begins with what this one left, as long as that is little; what is known of rows is what is there.
        if store.depth(QUEUE).await.expect("depth").messages > 3000 {
            store.reclaim(QUEUE).await.expect("reclaim");
            let store: Arc<dyn StateStore> = Arc::clone(&store) as _;
            remove(&store, QUEUE, &Filter::default(), usize::MAX).await;
            said = Said::default();
        }
        for number in 0..ROWS {
            if let Some(row) = store.row(&format!("row {number}")).await.expect("row") {
                said.stored.insert(number, row.version);
            }
        }
        store.close(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_answered() {
    killed_again_and_again(false, 1, 25, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_answered_with_sync() {
    killed_again_and_again(true, 1, 15, 5).await;
}

/// Enough bytes per round that tables are written and merged meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_loses_nothing_answered_with_large_bodies() {
    killed_again_and_again(false, 20_000, 4, 150).await;
}

/// After an error everything fails until the disk works again; what was answered is there, and what failed is there
/// wholly or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_fails_operations_and_recovers() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = start(folder.path(), false, 1, 1000);
    child.until("appended", 50);
    child.limit_files("1000");
    child.until("away", 0);
    child.until("failed", 20);
    let ups = child.count("up");
    child.limit_files("unlimited");
    child.until("up", ups);
    let appended = child.count("appended");
    child.until("appended", appended + 50);
    let heard = child.kill();
    let codes = heard.get("failed").expect("failures");
    assert!(codes.iter().all(|code| code == codes::STATE_UNUSABLE.name));
    let mut said = Said::default();
    said.hear(heard);
    let store = open(folder.path(), false);
    // A put that failed may have been made; then the next one conflicts and goes on from there.
    said.check(&store, 1000).await;
    store.close(PATIENCE).await;
}

/// What a power loss leaves of a synced store, approximately: every file as it was when an operation was answered, and
/// of the write-ahead log only a part of what was written after that, torn anywhere. It shows that what was synced with an
/// answer is enough to have all that was answered, and that a torn end is left out as a whole. It does not show that the
/// disk keeps what it said it synced, nor files in the middle of being merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_keeps_what_was_answered() {
    for seed in 1..=40u64 {
        let mut dice = Dice::new(seed);
        let folder = tempfile::tempdir().expect("folder");
        let state = folder.path().join("state");
        let store = open(&state, true);
        assert_eq!(store.durability(), Durability::Host);
        let answered = dice.roll(30);
        let write = async |n: u64| {
            let batch = (0..BATCH)
                .map(|l| append(&lane("", l), NOW, &n.to_string()))
                .collect();
            store.append(QUEUE, batch).await.expect("append");
            let row = Row::new(&n.to_string(), ACCOUNT, n);
            assert_eq!(store.put(&row, None, LONG).await.expect("put"), Put::Stored);
        };
        for n in 0..answered {
            write(n).await;
        }
        let synced = log_sizes(&state);
        for n in answered..answered + 5 {
            write(n).await;
        }
        let image = folder.path().join("image");
        copy(&state, &image);
        for (log, size) in &synced {
            let log = image.join(log.strip_prefix(&state).expect("inside"));
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(&log)
                .expect("log");
            // Nothing after the answer, or some of it.
            let now = std::fs::metadata(state.join(log.strip_prefix(&image).expect("inside")));
            let more = now.expect("log").len() - size;
            file.set_len(size + dice.roll(more + 1)).expect("truncate");
        }
        store.close(PATIENCE).await;
        let store = open(&image, true);
        let depth = store.depth(QUEUE).await.expect("depth");
        let listed = store
            .list(QUEUE, &Filter::default(), 1000)
            .await
            .expect("list");
        assert_eq!(depth.messages, listed.len() as u64, "seed {seed}");
        assert_eq!(depth.messages % BATCH, 0, "seed {seed}: half a batch");
        let batches = depth.messages / BATCH;
        assert!(batches >= answered, "seed {seed}: {batches} of {answered}");
        let rows = store.counts().await.expect("counts").values().sum::<u64>();
        assert!(
            rows == batches || rows + 1 == batches,
            "seed {seed}: {rows} and {batches}"
        );
        for n in 0..rows {
            assert!(
                store.row(&n.to_string()).await.expect("row").is_some(),
                "seed {seed}"
            );
        }
        // And it goes on from there.
        store
            .append(QUEUE, vec![append(&lane("", 0), NOW, "on")])
            .await
            .expect("append");
        store.close(PATIENCE).await;
    }
}

/// The write-ahead logs in a folder, with their sizes.
fn log_sizes(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).expect("folder");
    let entries = entries.map(|entry| entry.expect("entry").path());
    let logs: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "jnl"))
        .map(|path| {
            let size = std::fs::metadata(&path).expect("log").len();
            (path, size)
        })
        .collect();
    assert!(!logs.is_empty(), "no log in {}", folder.display());
    logs
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
