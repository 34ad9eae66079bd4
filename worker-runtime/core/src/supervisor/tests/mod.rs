//! The reload rules, with workers that build, drain, fail and listen as each test says. What they do is written to one
//! record, in order.

mod doors;
mod endings;
mod stores;

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
async fn a_replaced_worker_keeps_its_port_and_refuses_nobody() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let port = free_port();
    let (release, drained) = watch::channel(false);
    world.behave(
        "transport/t",
        Behaviour {
            drained: Some(drained),
            ..Behaviour::default()
        },
    );
    supervisor.apply(set(&[plain("t", port, 10)])).await;
    assert_eq!(who(port).await, "transport/t");
    let reload = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.apply(set(&[plain("t", port, 20)])).await })
    };
    until("the old intake closed", async || {
        world.times("close transport/t") == 1
    })
    .await;
    // While the old one drains and the new one waits, callers wait too; none is refused.
    let callers: Vec<_> = (0..20).map(|_| tokio::spawn(who(port))).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.times("start transport/t"), 1);
    assert_eq!(
        snapshot(&supervisor, "transport/t").await.accepting,
        Some(false)
    );
    release.send(true).expect("heard");
    reload.await.expect("reloaded");
    for caller in callers {
        assert_eq!(caller.await.expect("answered"), "transport/t");
    }
    assert!(world.at("gone transport/t here-1") < world.record().len() - 1);
    assert_eq!(
        world.record().last().map(String::as_str),
        Some("start transport/t")
    );
    supervisor.shutdown().await;
    // The second build had a name of its own on the broker.
    assert_eq!(world.times("gone transport/t here-1-2"), 1);
}

#[tokio::test]
async fn a_transport_that_holds_requests_or_sessions_is_followed_at_once() {
    for (name, kind) in [("h", http as fn(&str, u16, u32) -> String), ("t", telnet)] {
        let world = Arc::new(World::default());
        let supervisor = supervisor(&world);
        let (port, key) = (free_port(), format!("transport/{name}"));
        let release = holding(&world, &key);
        supervisor.apply(set(&[kind(name, port, 10)])).await;
        let reload = {
            let supervisor = Arc::clone(&supervisor);
            tokio::spawn(async move { supervisor.apply(set(&[kind(name, port, 20)])).await })
        };
        until("the new one runs beside the draining one", async || {
            world.times(&format!("start {key}")) == 2
        })
        .await;
        assert_eq!(who(port).await, key);
        let gone = format!("gone {key} here-1");
        assert_eq!(world.times(&gone), 0, "still holds something");
        release.send(true).expect("heard");
        reload.await.expect("reloaded");
        assert_eq!(world.times(&gone), 1);
        supervisor.shutdown().await;
    }
}

#[tokio::test]
async fn ports_move_between_workers() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (one, two) = (free_port(), free_port());
    supervisor
        .apply(set(&[telnet("a", one, 1), telnet("b", two, 1)]))
        .await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/a".into(), "transport/b".into())
    );
    supervisor
        .apply(set(&[telnet("a", two, 1), telnet("b", one, 1)]))
        .await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/b".into(), "transport/a".into())
    );
    // And to a worker that is new, from one that is gone.
    supervisor.apply(set(&[telnet("c", one, 1)])).await;
    assert_eq!(who(one).await, "transport/c");
    TcpStream::connect(("127.0.0.1", two))
        .await
        .expect_err("nobody wants this port any more");
    supervisor.shutdown().await;
    TcpStream::connect(("127.0.0.1", one))
        .await
        .expect_err("closed with everything");
}

#[tokio::test]
async fn what_does_not_build_leaves_the_old_one_running() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let (one, two) = (free_port(), free_port());
    supervisor
        .apply(set(&[telnet("a", one, 1), echo("e", "a", 1)]))
        .await;
    let broken = Behaviour {
        broken: true,
        ..Behaviour::default()
    };
    world.behave("transport/a", broken);
    // a would move to another port and give its own to b.
    let new = set(&[telnet("a", two, 1), telnet("b", one, 1), echo("e", "a", 2)]);
    let outcome = supervisor.apply(new).await;
    assert_eq!(
        outcome.not_applied.keys().collect::<Vec<_>>(),
        ["transport/a", "transport/b"]
    );
    assert_eq!(who(one).await, "transport/a");
    assert_eq!(world.times("close transport/a"), 0, "untouched");
    assert_eq!(world.times("start application/e"), 2, "the others go on");
    let a = snapshot(&supervisor, "transport/a").await;
    assert!(a.ready && a.why.contains("told not to build"), "{a:?}");
    let b = snapshot(&supervisor, "transport/b").await;
    assert!(
        !b.ready && b.state == "stalled" && b.why.contains("transport/a"),
        "{b:?}"
    );
    // Once it builds, the edit takes effect by itself.
    world.behave("transport/a", Behaviour::default());
    until("the edit is applied", async || {
        world.times("start transport/b") == 1
    })
    .await;
    until("both listen", async || supervisor.listening().await.is_ok()).await;
    assert_eq!(
        (who(one).await, who(two).await),
        ("transport/b".into(), "transport/a".into())
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_new_worker_that_does_not_build_is_stalled_and_tried_again() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let broken = Behaviour {
        broken: true,
        ..Behaviour::default()
    };
    world.behave("application/a", broken);
    world.behave(
        "application/p",
        Behaviour {
            panics: true,
            ..Behaviour::default()
        },
    );
    supervisor
        .apply(set(&[
            echo("a", "a", 1),
            echo("b", "b", 1),
            echo("p", "p", 1),
        ]))
        .await;
    for key in ["application/a", "application/p"] {
        let snapshot = snapshot(&supervisor, key).await;
        assert_eq!((snapshot.ready, snapshot.state), (false, "stalled"));
        assert!(!snapshot.why.is_empty());
    }
    assert!(snapshot(&supervisor, "application/b").await.ready);
    let why = supervisor.ready().await.expect_err("two do not run");
    assert!(
        why.contains("application/a: stalled told not to build"),
        "{why}"
    );
    assert_eq!(
        supervisor.live().await,
        Ok(()),
        "a worker that waits is alive"
    );
    world.behave("application/a", Behaviour::default());
    world.behave("application/p", Behaviour::default());
    until("both run", async || supervisor.ready().await.is_ok()).await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn an_old_one_that_never_drains_is_bounded() {
    let world = Arc::new(World::default());
    let mut options = supervisor(&world).shared.options.clone();
    options.limits.drain = Duration::from_millis(100);
    let supervisor = Supervisor::new(
        Fake(Arc::clone(&world)),
        FakeBrokers(Arc::clone(&world)),
        FakeStores(Arc::clone(&world)),
        Arc::default(),
        Arc::default(),
        options,
    );
    let port = free_port();
    world.behave(
        "transport/t",
        Behaviour {
            hangs: true,
            ..Behaviour::default()
        },
    );
    supervisor
        .apply(set(&[telnet("t", port, 1), echo("e", "t", 1)]))
        .await;
    world.behave("transport/t", Behaviour::default());
    let caller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        who(port).await
    });
    supervisor
        .apply(set(&[telnet("t", port, 2), echo("e", "t", 1)]))
        .await;
    assert_eq!(
        caller.await.expect("answered by the new one"),
        "transport/t"
    );
    assert_eq!(world.times("start transport/t"), 2);
    assert_eq!(
        world.times("start application/e"),
        1,
        "the neighbour never noticed"
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_failing_worker_is_restarted_and_hurts_nobody() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let failing = Behaviour {
        fails_after: Some(5),
        ..Behaviour::default()
    };
    world.behave("application/a", failing);
    supervisor
        .apply(set(&[echo("a", "a", 1), echo("b", "b", 1)]))
        .await;
    until("it was restarted twice", async || {
        world.times("start application/a") >= 3
    })
    .await;
    assert_eq!(world.times("start application/b"), 1);
    world.behave("application/a", Behaviour::default());
    until("it runs again", async || {
        snapshot(&supervisor, "application/a").await.state == "running"
            && supervisor.ready().await.is_ok()
    })
    .await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn another_broker_address_moves_only_those_who_use_it() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let resources = || set(&[echo("a", "a", 1), echo("b", "b", 1)]);
    supervisor.apply(resources()).await;
    lock(&world.brokers).insert("application/a".into(), "second".into());
    supervisor.secrets_changed(BTreeMap::new()).await;
    assert_eq!(world.times("start application/a"), 2);
    assert_eq!(world.times("start application/b"), 1);
    assert_eq!(supervisor.describe_brokers().len(), 2);
    lock(&world.brokers).insert("application/b".into(), "second".into());
    until("b followed by itself", async || {
        world.times("start application/b") == 2
    })
    .await;
    until("the first broker is closed", async || {
        supervisor.describe_brokers().len() == 1
    })
    .await;
    assert_eq!(world.opened.load(Ordering::SeqCst), 2);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn what_answers_held_requests_stops_last() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let release = holding(&world, "transport/h");
    let both = || set(&[http("h", free_port(), 10), echo("e", "h", 1)]);
    supervisor.apply(both()).await;
    let ending = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.shutdown().await })
    };
    until("the intake closed", async || {
        world.times("close transport/h") == 1
    })
    .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.times("close application/e"), 0, "it still answers");
    let shown = supervisor.snapshots().await;
    let state = |key: &str| shown.iter().find(|s| s.key == key).map(|s| s.state);
    assert_eq!(state("transport/h"), Some("stopping"), "shown to its end");
    assert!(state("application/e").is_some());
    release.send(true).expect("heard");
    ending.await.expect("ended");
    assert!(world.at("gone transport/h here-1") < world.at("close application/e"));
}

#[tokio::test]
async fn workers_taken_out_together_leave_in_the_same_order() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    supervisor
        .apply(set(&[http("h", free_port(), 10), echo("e", "h", 1)]))
        .await;
    supervisor.apply(Vec::new()).await;
    assert!(world.at("gone transport/h here-1") < world.at("close application/e"));
    assert!(supervisor.describe_brokers().is_empty(), "nobody uses it");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_during_a_reload_ends_both() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let port = free_port();
    let release = holding(&world, "transport/t");
    supervisor.apply(set(&[plain("t", port, 10)])).await;
    let reload = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.apply(set(&[plain("t", port, 20)])).await })
    };
    until("the reload began", async || {
        world.times("close transport/t") == 1
    })
    .await;
    let ending = {
        let supervisor = Arc::clone(&supervisor);
        tokio::spawn(async move { supervisor.shutdown().await })
    };
    until("the shutdown began", async || {
        supervisor.stopping().is_cancelled()
    })
    .await;
    release.send(true).expect("heard");
    reload.await.expect("ended");
    ending.await.expect("ended");
    assert_eq!(
        world.times("start transport/t"),
        1,
        "the new one never started"
    );
    assert!(
        supervisor
            .apply(set(&[plain("t", port, 30)]))
            .await
            .plan
            .steps
            .is_empty()
    );
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
