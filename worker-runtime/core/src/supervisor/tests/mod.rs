//! The reload rules, with workers that build, drain, fail and listen as each test says. What they do is written to one
//! record, in order.

mod doors;
mod endings;
mod failing;
mod stores;
mod takeovers;

use super::*;
use crate::backoff::Backoff;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Broker, Durability, LinkState};
use crate::codes;
use crate::engine::{Counts, StopLimits};
use crate::error::ErrorClass;
use crate::state::StateStore;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::supervisor::engine::Running;
use crate::supervisor::services::{BrokerSource, StateSource};
use async_trait::async_trait;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use vumi_api::manifest::{Target, load};

/// How a fake worker behaves, by its key.
#[derive(Clone, Default)]
struct Behaviour {
    /// Does not build.
    broken: bool,
    /// Panics while it is built.
    panics: bool,
    /// Never finishes its drain.
    hangs: bool,
    /// Ends by itself after so many milliseconds.
    fails_after: Option<u64>,
    /// Is built only when this is true.
    waits: Option<watch::Receiver<bool>>,
    /// Holds requests until this is true.
    drained: Option<watch::Receiver<bool>>,
}

#[derive(Default)]
struct World {
    behaviour: Mutex<BTreeMap<String, Behaviour>>,
    record: Mutex<Vec<String>>,
    brokers: Mutex<BTreeMap<String, String>>,
    opened: AtomicU32,
    /// State stores by worker; a worker that is not among them has none.
    stores: Mutex<BTreeMap<String, String>>,
    stores_opened: AtomicU32,
}

impl World {
    fn note(&self, line: String) {
        lock(&self.record).push(line);
    }

    fn record(&self) -> Vec<String> {
        lock(&self.record).clone()
    }

    fn behave(&self, key: &str, behaviour: Behaviour) {
        lock(&self.behaviour).insert(key.to_owned(), behaviour);
    }

    fn times(&self, line: &str) -> usize {
        self.record().iter().filter(|noted| *noted == line).count()
    }

    /// Where a line stands in the record.
    fn at(&self, line: &str) -> usize {
        let record = self.record();
        record
            .iter()
            .position(|noted| noted == line)
            .unwrap_or_else(|| panic!("{line:?} is not in {record:?}"))
    }
}

struct Fake(Arc<World>);

struct FakeBuilt {
    world: Arc<World>,
    resource: Arc<Resource>,
    environment: Environment,
    behaviour: Behaviour,
}

struct FakeRunning {
    world: Arc<World>,
    resource: Arc<Resource>,
    behaviour: Behaviour,
    instance: String,
    closing: CancellationToken,
    accepting: Option<bool>,
}

#[async_trait]
impl Engine for Fake {
    async fn build(
        &self,
        resource: Arc<Resource>,
        environment: Environment,
    ) -> Result<Box<dyn Built>, WorkError> {
        let key = resource.key();
        let behaviour = lock(&self.0.behaviour)
            .get(&key)
            .cloned()
            .unwrap_or_default();
        self.0.note(format!("build {key}"));
        assert!(!behaviour.panics, "told to panic");
        if behaviour.broken {
            return Err(WorkError::new(
                ErrorClass::Config,
                codes::CONFIG_INVALID,
                "told not to build",
            ));
        }
        if let Some(mut waits) = behaviour.waits.clone() {
            let _ = waits.wait_for(|go| *go).await;
        }
        Ok(Box::new(FakeBuilt {
            world: Arc::clone(&self.0),
            resource,
            environment,
            behaviour,
        }))
    }
}

#[async_trait]
impl Built for FakeBuilt {
    async fn start(self: Box<Self>) -> Box<dyn Running> {
        let key = self.resource.key();
        self.world.note(format!("start {key}"));
        if self.environment.state.is_some() {
            self.world.note(format!("store of {key}"));
        }
        if *self.environment.broker.link().borrow() == LinkState::Closed {
            self.world.note(format!("closed broker of {key}"));
        }
        let closing = CancellationToken::new();
        let listens = self.resource.topology().listens;
        for (host, port) in &listens {
            let listener = self
                .environment
                .listeners
                .lend(host, *port)
                .await
                .expect("the port is free for this worker");
            let (closing, key) = (closing.clone(), key.clone());
            // Answers every connection with the worker's name, once it has read a byte.
            tokio::spawn(async move {
                loop {
                    let mut stream = tokio::select! {
                        biased;
                        () = closing.cancelled() => return,
                        accepted = listener.accept() => accepted.expect("accepted").0,
                    };
                    let key = key.clone();
                    tokio::spawn(async move {
                        let mut byte = [0];
                        if stream.read_exact(&mut byte).await.is_ok() {
                            let _ = stream.write_all(key.as_bytes()).await;
                        }
                    });
                }
            });
        }
        Box::new(FakeRunning {
            world: self.world,
            behaviour: self.behaviour,
            instance: self.environment.instance,
            closing,
            accepting: (!listens.is_empty()).then_some(true),
            resource: self.resource,
        })
    }
}

#[async_trait]
impl Running for FakeRunning {
    fn snapshot(&self) -> WorkerSnapshot {
        let mut snapshot = idle(&self.resource, SystemTime::now(), String::new());
        snapshot.state = "running";
        snapshot.ready = true;
        snapshot.accepting = self.accepting;
        snapshot.durability = Durability::Memory;
        snapshot.link = LinkState::Closed;
        snapshot.counts = Counts::default();
        snapshot
    }

    fn resume_parked(&self) {
        self.world.note(format!("resume {}", self.resource.key()));
    }

    async fn failed(&self) -> WorkError {
        match self.behaviour.fails_after {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
        WorkError::new(ErrorClass::Bug, codes::BUG_ENDED, "told to fail")
    }

    async fn stop(self: Box<Self>, limits: StopLimits) {
        let key = self.resource.key();
        self.closing.cancel();
        self.world.note(format!("close {key}"));
        if self.behaviour.hangs {
            std::future::pending::<()>().await;
        }
        if let Some(mut drained) = self.behaviour.drained.clone() {
            let _ = tokio::time::timeout(limits.drain, drained.wait_for(|done| *done)).await;
        }
        self.world.note(format!("gone {key} {}", self.instance));
    }
}

struct FakeBrokers(Arc<World>);

#[async_trait]
impl BrokerSource for FakeBrokers {
    fn identity(&self, resource: &Resource) -> Result<String, WorkError> {
        let brokers = lock(&self.0.brokers);
        let named = brokers.get(&resource.key());
        Ok(named.cloned().unwrap_or_else(|| "first".into()))
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn Broker>, WorkError> {
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        EmbeddedBroker::open(EmbeddedOptions::default())
    }
}

struct FakeStores(Arc<World>);

#[async_trait]
impl StateSource for FakeStores {
    fn identity(&self, resource: &Resource) -> Result<Option<String>, WorkError> {
        Ok(lock(&self.0.stores).get(&resource.key()).cloned())
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        self.0.stores_opened.fetch_add(1, Ordering::SeqCst);
        Ok(EmbeddedStore::open(EmbeddedStoreOptions::default())?)
    }
}

fn supervisor(world: &Arc<World>) -> Arc<Supervisor> {
    let quick = Duration::from_millis(300);
    Supervisor::new(
        Fake(Arc::clone(world)),
        FakeBrokers(Arc::clone(world)),
        FakeStores(Arc::clone(world)),
        Arc::default(),
        Arc::default(),
        Options {
            instance: "here-1".into(),
            system_id: "test".into(),
            limits: StopLimits {
                drain: Duration::from_secs(5),
                flush: quick,
                close: quick,
            },
            restart: Restart {
                backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(100)),
                good_after: Duration::from_secs(60),
            },
            recheck: Duration::from_millis(50),
            outside: Default::default(),
            sweep: Duration::from_millis(50),
        },
    )
}

fn set(documents: &[String]) -> Vec<Resource> {
    let manifests = load(&[("set.yaml", documents.concat())], Target::Local);
    assert!(!manifests.has_errors(), "{:?}", manifests.findings);
    manifests
        .resources
        .into_iter()
        .map(|loaded| loaded.resource)
        .collect()
}

fn telnet(name: &str, port: u16, clients: u32) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\nspec: {{telnet: {{host: 127.0.0.1, port: {port}, maxClients: {clients}}}}}\n"
    )
}

fn http(name: &str, port: u16, seconds: u32) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\nspec: {{httpApi: {{replyExpected: true}}, http: {{host: 127.0.0.1, port: {port}, requestTimeout: {seconds}s}}}}\n"
    )
}

/// One that listens and holds nothing.
fn plain(name: &str, port: u16, hold: u32) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\nspec: {{httpApi: {{}}, http: {{host: 127.0.0.1, port: {port}}}, holdLimit: {hold}s}}\n"
    )
}

fn echo(name: &str, connector: &str, hold: u32) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\nspec: {{echo: {{}}, transportName: {connector}, holdLimit: {hold}s}}\n"
    )
}

/// Workers `key` that start from now on hold requests; those are answered when `true` is sent.
fn holding(world: &World, key: &str) -> watch::Sender<bool> {
    let (release, drained) = watch::channel(false);
    let holds = Behaviour {
        drained: Some(drained),
        ..Behaviour::default()
    };
    world.behave(key, holds);
    release
}

fn free_port() -> u16 {
    vumi_testkit::free_port().expect("a free port")
}

/// The name of the worker that answers on the port.
async fn who(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("not refused");
    stream.write_all(b"?").await.expect("written");
    let mut name = String::new();
    let read = stream.read_to_string(&mut name);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("answered in time")
        .expect("read");
    name
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

async fn snapshot(supervisor: &Supervisor, key: &str) -> WorkerSnapshot {
    let snapshots = supervisor.snapshots().await;
    let found = snapshots.into_iter().find(|snapshot| snapshot.key == key);
    found.unwrap_or_else(|| panic!("{key} is not reported"))
}

#[tokio::test]
async fn starts_keeps_and_stops_single_workers() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    assert_eq!(supervisor.ready().await, Err("starting".into()));
    let (a, b, c) = (echo("a", "a", 1), echo("b", "b", 1), echo("c", "c", 1));
    supervisor.apply(set(&[a.clone(), b])).await;
    assert_eq!(supervisor.ready().await, Ok(()));
    let outcome = supervisor.apply(set(&[a, c])).await;
    assert!(outcome.not_applied.is_empty());
    assert_eq!(world.times("start application/a"), 1, "a was left alone");
    assert_eq!(world.times("gone application/b here-1"), 1);
    assert_eq!(world.times("start application/c"), 1);
    let running: Vec<String> = supervisor
        .snapshots()
        .await
        .into_iter()
        .map(|s| s.key)
        .collect();
    assert_eq!(running, ["application/a", "application/c"]);
    assert_eq!(world.opened.load(Ordering::SeqCst), 1, "one broker for all");
    supervisor.shutdown().await;
    assert_eq!(supervisor.ready().await, Err("stopping".into()));
    assert!(supervisor.snapshots().await.is_empty());
}

#[tokio::test]
async fn resume_reaches_the_worker() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    supervisor.apply(set(&[echo("a", "a", 1)])).await;
    assert!(supervisor.resume_parked("application/a").await);
    assert!(!supervisor.resume_parked("application/b").await);
    until("resumed", async || world.times("resume application/a") == 1).await;
    supervisor.shutdown().await;
}
