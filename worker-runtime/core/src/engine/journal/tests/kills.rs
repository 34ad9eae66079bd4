//! The process dies at any operation of store or broker, again and again: nothing is lost, first occurrences keep their
//! order, repeats have equal ids. Schedules follow from seeds: `VUMI_KILLS=FROM..TO` runs others, and
//! `VUMI_KILLS_REDIS=FROM..TO` on Redis.

use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{
    Acker, Broker, EXCHANGE, Publication, PublicationClass, QueueSpec, Receipt, Subscribe,
    Subscription,
};
use crate::codes;
use crate::conformance::delegate::Double;
use crate::conformance::store_faults::Fuse;
use crate::engine::tests::redis_store;
use crate::error::WorkError;
use crate::parking;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::AtomicUsize;
use vumi_api::Kind;
use xxhash_rust::xxh3::xxh3_64;

/// Runs beside each other: most of the time each waits.
const BESIDE: usize = 48;

/// A broker as a process sees it that ends when its fuse is burnt.
pub(super) struct Mortal {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) fuse: Arc<Fuse>,
}

struct MortalAcker {
    inner: Arc<dyn Acker>,
    fuse: Arc<Fuse>,
}

#[async_trait]
impl Double for Mortal {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    async fn take(&self, publication: Publication) -> Receipt {
        if publication.class != PublicationClass::Telemetry {
            self.fuse.pass().await;
        }
        let receipt = self.inner.publish(publication.clone()).await;
        if publication.class != PublicationClass::Telemetry {
            self.fuse.pass().await;
        }
        receipt
    }

    async fn give(&self, subscribe: Subscribe) -> Subscription {
        self.fuse.pass().await;
        let subscription = self.inner.subscribe(subscribe).await;
        let mut unborn = Unborn(Some(Arc::clone(&subscription.acker)));
        self.fuse.pass().await;
        unborn.0 = None;
        Subscription {
            acker: Arc::new(MortalAcker {
                inner: subscription.acker,
                fuse: Arc::clone(&self.fuse),
            }),
            ..subscription
        }
    }

    async fn make(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.fuse.pass().await;
        let made = self.inner.declare(queue).await;
        self.fuse.pass().await;
        made
    }
}

/// A consumer of a process that dies before it has it: it ends with the process.
struct Unborn(Option<Arc<dyn Acker>>);

impl Drop for Unborn {
    fn drop(&mut self) {
        if let Some(acker) = self.0.take() {
            acker.close();
        }
    }
}

impl Acker for MortalAcker {
    fn generation(&self) -> Option<u64> {
        self.inner.generation()
    }
    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        !self.fuse.burn() || self.inner.ack(generation, tag, multiple)
    }
    fn requeue(&self, generation: u64, tag: u64) -> bool {
        self.inner.requeue(generation, tag)
    }
    fn cancel(&self) {
        self.inner.cancel();
    }
    fn resume(&self) {
        self.inner.resume();
    }
    fn release(&self) {
        self.inner.release();
    }
    fn close(&self) {
        self.inner.close();
    }
    fn rebuild(&self) {
        self.inner.rebuild();
    }
}

/// What processes died over three times is set aside, as it should be; nothing else may be.
pub(super) async fn set_aside(
    broker: &dyn Broker,
    queue: &str,
) -> Result<BTreeSet<String>, String> {
    let listed = parking::list(broker, queue, 1000).await;
    let parked = listed.map_err(|e| e.text)?;
    let killers = parked
        .into_iter()
        .filter(|parked| parked.code == codes::BUG_CRASH_LOOP.name);
    Ok(killers.filter_map(|parked| parked.message_id).collect())
}

async fn not_set_aside(
    broker: &Arc<dyn Broker>,
    queue: &str,
    sent: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let set_aside = set_aside(broker.as_ref(), queue).await?;
    let owed = sent.iter().filter(|(_, id)| !set_aside.contains(id));
    Ok(owed.cloned().collect())
}

/// The seeds that a variable names, or else these.
pub(super) fn seeds(variable: &str, default: &str) -> std::ops::Range<u64> {
    let seeds = std::env::var(variable).unwrap_or_else(|_| default.into());
    let (from, to) = seeds.split_once("..").expect("FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs seeds beside each other and demands that nothing is wrong with any of them; what each came to.
pub(super) fn judge_seeds<T: Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    seeds: std::ops::Range<u64>,
    run: impl Fn(u64) -> tokio::task::JoinHandle<Result<T, String>>,
) -> Vec<T> {
    use futures::StreamExt;
    let count = seeds.end - seeds.start;
    let (mut done, mut wrong) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let runs = futures::stream::iter(seeds);
        let runs = runs.map(|seed| {
            let running = run(seed);
            async move { (seed, running.await) }
        });
        let mut runs = std::pin::pin!(runs.buffer_unordered(BESIDE));
        while let Some((seed, ended)) = runs.next().await {
            match ended {
                Ok(Ok(one)) => done.push(one),
                Ok(Err(what)) => wrong.push(format!("seed {seed}: {what}")),
                Err(what) => wrong.push(format!("seed {seed}: {what}")),
            }
        }
    });
    let all = wrong.join("\n");
    assert!(wrong.is_empty(), "{} of {count}:\n{all}", wrong.len());
    done
}

pub(super) fn two_threads() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap()
}

/// Queues outlive a process, and so do their connectors' names in the store: each run has its own.
async fn run(seed: u64, store: &Arc<dyn StateStore>) -> Result<usize, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let broker: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
    let connector = format!("k{seed}");
    let users = rng.random_range(1..6usize);
    // Most schedules are short, so that there are many.
    let count = match rng.random_range(0..8) {
        0 => rng.random_range(20..140usize),
        _ => rng.random_range(3..20usize),
    };
    // Of a hundred attempts so many fail, each decided by message and attempt.
    let failing = [0, 10, 30, 60][rng.random_range(0..4usize)];
    let hold = ["0ms", "3ms", "1s"][rng.random_range(0..3usize)];
    let settings = json!({
        "transportName": connector,
        "holdLimit": hold,
        "retry": {"maxAttempts": 1000, "backoff": {"initial": "1ms", "max": "4ms"}},
    });
    let queue = format!("{connector}.inbound");
    let mut sent = Vec::new();
    let mut messages = Vec::new();
    for n in 0..count {
        let user = format!("u{}", rng.random_range(0..users));
        let mut message = UserMessage::new("sms", Some("555"), Some(&user));
        message.set_message_id(&format!("{seed}-{n}"));
        message.set_transport_name(&connector);
        message.set_content(Some("x"));
        sent.push((user, message.message_id().to_owned()));
        messages.push(message);
    }
    let mut messages = messages.into_iter();
    let lives = rng.random_range(1..5usize);
    let given = AtomicUsize::new(0);
    for life in 0..=lives {
        let last = life == lives;
        let fuse = Fuse::new(if last {
            i64::MAX
        } else {
            rng.random_range(1..20 + 3 * count as i64)
        });
        let faults = StoreFaults::new(Arc::clone(store), Some(Arc::clone(&fuse)));
        for _ in 0..rng.random_range(0..4) {
            faults.next([match rng.random_bool(0.5) {
                true => StoreMishap::Refused,
                false => StoreMishap::AnswerLost,
            }]);
        }
        let mortal = Mortal {
            inner: Arc::clone(&broker),
            fuse: Arc::clone(&fuse),
        };
        let setup = Setup {
            broker: Arc::new(mortal),
            state: Some(faults),
            kind: Kind::Application,
            name: connector.clone(),
            settings: settings.clone(),
        };
        let target = connector.clone();
        let started = Rig::on(setup, move |i, cx| {
            let key = format!("{}/{}", i.message.id(), i.attempt);
            let fails = xxh3_64(key.as_bytes()) % 100 < failing;
            let target = target.clone();
            async move {
                if xxh3_64(key.as_bytes()).is_multiple_of(7) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                match fails {
                    true => Err(temporary()),
                    false => {
                        let mut outputs = echo(&i, &cx);
                        for output in &mut outputs {
                            output.port = vumi_api::Port::new(&target, vumi_api::Flow::Outbound);
                        }
                        Ok(outputs)
                    }
                }
            }
        });
        // It may die while it declares and subscribes.
        let rig = tokio::select! {
            biased;
            rig = started => rig,
            () = fuse.burnt() => continue,
        };
        let share = if last {
            count
        } else {
            rng.random_range(0..count)
        };
        for message in messages.by_ref().take(share) {
            given.fetch_add(1, Ordering::Relaxed);
            let publication = Publication {
                exchange: EXCHANGE.into(),
                routing_key: queue.clone(),
                body: message.encode(),
                message_id: None,
                class: PublicationClass::Data,
            };
            let receipt = broker.publish(publication).await;
            let _ = receipt.confirmation().await;
        }
        if !last {
            // Some lives end because there is nothing left to do.
            let _ = tokio::time::timeout(Duration::from_millis(150), fuse.burnt()).await;
            drop(rig);
            continue;
        }
        let mut at_rest = 0;
        for n in 0.. {
            let left = store.depth(&queue).await.map_err(|e| e.text)?;
            let ready = broker.ready(&queue).await.map_err(|e| e.text)?;
            let counts = rig.running().snapshot().counts;
            at_rest = match (left.messages, ready, counts.in_flight) {
                (0, 0, 0) => at_rest + 1,
                _ => 0,
            };
            // Between the broker and the worker's hand there is a moment in neither.
            if at_rest > 20 {
                break;
            }
            if n > 6000 {
                return Err(format!("does not come to rest: {left:?}, {counts:?}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let owed = not_set_aside(&broker, &queue, &sent).await?;
        let replies = all_replies(&rig, &format!("{connector}.outbound"), &owed).await;
        // Some may have been set aside meanwhile.
        let owed = not_set_aside(&broker, &queue, &owed).await?;
        let c = rig.running().snapshot().counts;
        if c.received != c.done + c.parked + c.journaled + c.returned + c.in_flight {
            return Err(format!("the counts do not add up: {c:?}"));
        }
        let judgement = judge(&owed, &replies);
        judgement.require()?;
        return Ok(judgement.duplicates);
    }
    Ok(0)
}

fn demand(
    runtime: &tokio::runtime::Runtime,
    seeds: std::ops::Range<u64>,
    store: &Arc<dyn StateStore>,
) {
    let runs = judge_seeds(runtime, seeds, |seed| {
        let store = Arc::clone(store);
        tokio::spawn(async move { run(seed, &store).await })
    });
    let repeats: usize = runs.iter().sum();
    println!("{} runs, {repeats} repeats", runs.len());
}

#[test]
fn whatever_operation_the_process_dies_at() {
    let runtime = two_threads();
    demand(&runtime, seeds("VUMI_KILLS", "0..600"), &store());
}

#[test]
fn whatever_operation_of_redis_the_process_dies_at() {
    let runtime = two_threads();
    if let Some((_redis, store)) = runtime.block_on(redis_store()) {
        demand(&runtime, seeds("VUMI_KILLS_REDIS", "0..120"), &store);
    }
}
