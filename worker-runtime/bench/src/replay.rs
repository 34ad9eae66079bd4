//! Messages that wait in the journal: what they cost the worker in memory, and how fast they are replayed once they are
//! due. The store is filled as the engine fills it.

use crate::AnyError;
use crate::guarantees::{REDIS, in_folder, state_folder};
use crate::report::Report;
use crate::rig::{DISPATCHED, DISPATCHER, Rig, message, user};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use vumi_core::message::UserMessage;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::state::journal::{About, Append, Due, Entry, Filter, Lane, Reason};
use vumi_core::state::redis::{RedisConfig, RedisStore};
use vumi_core::state::{Journal, Person, StateStore, StoreHealth};
use vumi_testkit::redis::Redis;

/// Messages that wait, for each message of a run of the other rows: a million by default.
const FACTOR: u32 = 50;
/// Messages of a lane.
const DEPTH: u32 = 10;
/// So many are replayed for a rate.
const REPLAYED: u32 = 5;
/// Messages per append.
const BATCH: u32 = 1000;
const LATER: Duration = Duration::from_secs(3600);
/// 40 MB in MiB.
const MEMORY: f64 = 38.1;

/// The rows of this file.
pub async fn rows(
    report: &mut Report,
    rig: &Rig,
    redis: &Redis,
    messages: u32,
) -> Result<(), AnyError> {
    in_redis(report, rig, redis, messages).await?;
    on_disk(report, rig, messages).await
}

async fn in_redis(
    report: &mut Report,
    rig: &Rig,
    redis: &Redis,
    messages: u32,
) -> Result<(), AnyError> {
    rig.clear().await?;
    redis.cli(&["flushall"]).await?;
    let url = redis.url(0);
    let store = RedisStore::open(RedisConfig::from_url(&url)?);
    let mut health = store.health();
    let up = health.wait_for(|health| *health == StoreHealth::Up);
    tokio::time::timeout(Duration::from_secs(30), up).await??;
    let waiting = messages * FACTOR;
    fill(&*store, waiting, Due::After(LATER)).await?;

    let worker = rig.worker(DISPATCHER, &["--redis", &url])?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let rest = worker.rss();
    // Very many lanes are released some at a time.
    let mut tries = 0;
    while let Err(error) = store.release(DISPATCHED.input, &Filter::default()).await {
        tries += 1;
        if tries > 20 {
            return Err(error.to_string().into());
        }
    }
    let run = rig
        .throughput(worker, DISPATCHED, messages * REPLAYED)
        .await?;
    store.close(Duration::from_secs(10)).await;
    redis.cli(&["flushall"]).await?;
    report.row(
        &format!(
            "{waiting} messages wait in {} lanes, worker RSS ({REDIS})",
            waiting / DEPTH
        ),
        format!("{rest:.1} MiB, {:.1} MiB while they are replayed", run.rss),
        "≤ 40 MB",
        Some(rest <= MEMORY && run.rss <= MEMORY),
    );
    replayed(report, REDIS, run.rate);
    Ok(())
}

async fn on_disk(report: &mut Report, rig: &Rig, messages: u32) -> Result<(), AnyError> {
    rig.clear().await?;
    let folder = state_folder()?;
    let store = EmbeddedStore::open(EmbeddedStoreOptions {
        folder: Some(folder.path().join("store")),
        sync: false,
    })?;
    fill(&*store, messages * REPLAYED, Due::After(Duration::ZERO)).await?;
    store.close(Duration::from_secs(10)).await;
    drop::<Arc<EmbeddedStore>>(store);
    let worker = in_folder(rig, DISPATCHER, folder)?;
    let run = rig
        .throughput(worker, DISPATCHED, messages * REPLAYED)
        .await?;
    replayed(report, "`--state` folder", run.rate);
    Ok(())
}

fn replayed(report: &mut Report, store: &str, rate: f64) {
    report.row(
        &format!("journal replay, 10 messages in each lane ({store})"),
        format!("{rate:.0} msg/s"),
        "≥ 5000 msg/s",
        Some(rate >= 5000.0),
    );
}

/// Appends messages, round by round of all users.
async fn fill(store: &dyn StateStore, count: u32, due: Due) -> Result<(), AnyError> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let since = u64::try_from(since.as_millis())?;
    let users = (count / DEPTH).max(1);
    for first in (0..count).step_by(BATCH as usize) {
        let batch = (first..count.min(first + BATCH))
            .map(|n| waits(&message("12345", &user(n % users)), since, due))
            .collect();
        store.append(DISPATCHED.input, batch).await?;
    }
    Ok(())
}

fn waits(message: &UserMessage, since: u64, due: Due) -> Append {
    Append {
        lane: Lane {
            group: String::new(),
            number: Person::new(message.from_addr().unwrap_or_default()).lane(),
        },
        due,
        entry: Entry {
            about: About {
                reason: Reason::Backoff,
                since,
                attempts: 1,
                counted: 0,
                code: "peer.timeout".into(),
                text: "the peer was away".into(),
                routing_key: DISPATCHED.input.into(),
                amqp_message_id: Some(message.message_id().to_owned()),
            },
            body: message.encode(),
        },
    }
}
