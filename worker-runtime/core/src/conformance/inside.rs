//! A worker type of ours under test: it runs in this process, on the engine, and a case reaches into it.

use super::Peer;
use super::far_end::FarEnd;
use super::faults::Faults;
use super::fixture;
use super::frozen::{Freezable, Parts};
use super::rig::{LIMITS, Rig, UnderTest, WITHOUT_REPLIES, eventually, everything_turns};
use super::saboteur::{Plan, Trouble};
use super::told::Told;
use crate::broker::{Broker, ConsumerState};
use crate::engine::{self, BuiltWorker, Counts, Environment, RunningWorker, StopLimits};
use crate::message::{Message, TransportStatus, UserMessage, random_id};
use crate::secrets::Secrets;
use crate::state::StateStore;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::status::StatusIdentity;
use crate::supervisor::listeners::Listeners;
use crate::telemetry::Telemetry;
use crate::worker::Registration;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The worker, and what it was built from.
pub(super) struct Inside {
    pub(super) registration: Registration,
    pub(super) resource: Arc<vumi_api::Resource>,
    pub(super) document: serde_json::Value,
    pub(super) plan: Arc<Plan>,
    pub(super) instance: String,
    /// None while it is stopped.
    pub(super) worker: Option<RunningWorker>,
    faults: Arc<Faults>,
    told: Told,
    peer: Option<fn(u16) -> Box<dyn Peer>>,
    port: u16,
    environment: Environment,
    store: Arc<dyn StateStore>,
    /// The end of its names.
    pub(super) suffix: String,
    /// Workers built after the first one: each is an instance of its own.
    reloads: Vec<String>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        Plan::forget(&self.instance);
        self.reloads.iter().for_each(|name| Plan::forget(name));
    }
}

/// A second replica of the worker under test: another instance, another port, the same queues.
pub(super) struct Replica {
    pub(super) worker: RunningWorker,
    pub(super) peer: Box<dyn Peer>,
    pub(super) faults: Arc<Faults>,
    pub(super) instance: String,
}

impl Drop for Replica {
    fn drop(&mut self) {
        Plan::forget(&self.instance);
    }
}

/// A state store of its own, which goes with the bench.
fn store() -> Result<Arc<dyn StateStore>, String> {
    match EmbeddedStore::open(EmbeddedStoreOptions::default()) {
        Ok(store) => Ok(store),
        Err(error) => Err(format!("no state store: {error}")),
    }
}

/// A port that nobody uses now. Ports for outgoing connections are left alone: the kernel may give one of them to
/// another test before the worker has it. Each port is given once per process.
fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    // Test binaries run beside each other: each begins somewhere else.
    let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

impl Rig<Inside> {
    /// A bench with the worker running and consuming.
    pub(super) async fn start(
        registration: &Registration,
        broker: Arc<dyn Broker>,
    ) -> Result<Self, String> {
        let fixture = (registration.fixture)();
        let port = free_port()?;
        let suffix = format!("-{}", &random_id()[..8]);
        let (resource, document) = fixture::load(&fixture, port, &suffix)?;
        let resource = Arc::new(resource);
        let topology = resource.topology();
        let instance = format!("conformance-{}", &random_id()[..12]);
        let (plan, registration) = Plan::of(registration, &instance);
        let faults = Faults::new(Arc::clone(&broker));
        let store = store()?;
        let environment = Environment {
            broker: Arc::clone(&faults) as Arc<dyn Broker>,
            state: Some(Arc::clone(&store)),
            secrets: Arc::new(Secrets::default()),
            listeners: Arc::new(Listeners::default()),
            outside: Default::default(),
            telemetry: Arc::new(Telemetry::new()),
            instance: instance.clone(),
            system_id: "conformance".into(),
        };
        let identity = StatusIdentity::of(&resource, &instance);
        let key = TransportStatus::routing_key(&identity.connector);
        let mut rig = Self {
            kind: registration.kind,
            name: resource.transport_name().to_owned(),
            ordering: resource.ordering_mode(),
            saying: registration.saying.to_owned(),
            far_end: FarEnd::open(&broker, &topology.publishes).await,
            topology,
            run_name: instance.clone(),
            under: Inside {
                told: Told::open(&broker, &instance, key).await,
                faults: Arc::clone(&faults),
                suffix,
                reloads: Vec::new(),
                registration,
                resource,
                plan,
                worker: None,
                instance,
                document,
                peer: fixture.peer,
                port,
                environment,
                store,
            },
            broker,
            faults,
        };
        rig.run().await?;
        Ok(rig)
    }

    /// Replaces the worker by a new one as the supervisor does: builds the new one first, stops the old one in two
    /// stages, starts the new one. `meanwhile` runs once the intake of the old one is closed, and cannot count on the
    /// new one.
    pub(super) async fn reload<T>(
        &mut self,
        meanwhile: impl AsyncFnOnce(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let environment = Environment {
            instance: self.under.next_instance(),
            ..self.under.environment.clone()
        };
        let built = self.under.build(environment).await?;
        let old = self.under.worker.take().ok_or("it does not run")?;
        let mut stopping = Box::pin(old.stop(LIMITS));
        // The first poll closes the intake.
        let mut ended = stopping.as_mut().now_or_never().is_some();
        everything_turns().await;
        // Workers that hold something are made to run beside each other, others share their queues in turn.
        let starting = async {
            let mut built = Some(built);
            let mut new = None;
            if self.topology.holds.is_some()
                && let Some(built) = built.take()
            {
                new = Some(built.start().await);
            }
            if !ended {
                stopping.as_mut().await;
                ended = true;
            }
            match built {
                Some(built) => Some(built.start().await),
                None => new,
            }
        };
        let (new, done) = tokio::join!(starting, meanwhile(self));
        self.under.worker = new;
        self.until_consuming().await?;
        done
    }

    /// Replaces the worker by one whose queues are divided into so many partitions.
    pub(super) async fn divide(&mut self, partitions: u16) -> Result<(), String> {
        self.stop(WITHOUT_REPLIES).await?;
        self.under.resource = Arc::new(fixture::divided(&self.under.document, partitions)?);
        self.run().await
    }

    /// Starts a second replica of a worker that has no peer, behind faults of its own; it need not consume yet.
    pub(super) async fn colleague(&mut self) -> Result<(RunningWorker, Arc<Faults>), String> {
        let faults = Faults::new(Arc::clone(&self.broker));
        let environment = Environment {
            broker: Arc::clone(&faults) as Arc<dyn Broker>,
            instance: self.under.next_instance(),
            ..self.under.environment.clone()
        };
        let built = self.under.build(environment).await?;
        Ok((built.start().await, faults))
    }

    /// Starts a second replica.
    pub(super) async fn replica(&self) -> Result<Replica, String> {
        let Inside {
            registration,
            suffix,
            plan,
            environment,
            ..
        } = &self.under;
        let port = free_port()?;
        let (resource, _) = fixture::load(&(registration.fixture)(), port, suffix)?;
        let instance = format!("{}-2", self.under.instance);
        plan.share(&instance);
        let faults = Faults::new(Arc::clone(&self.broker));
        let environment = Environment {
            broker: Arc::clone(&faults) as Arc<dyn Broker>,
            listeners: Arc::new(Listeners::default()),
            outside: Default::default(),
            instance: instance.clone(),
            ..environment.clone()
        };
        let built = engine::build(registration, Arc::new(resource), environment).await;
        let worker = built.map_err(|e| e.to_string())?.start().await;
        self.under.up(&worker, true).await?;
        let make = self.under.peer.ok_or("its fixture has no peer")?;
        Ok(Replica {
            worker,
            peer: make(port),
            faults,
            instance,
        })
    }

    /// Starts a replica that can be frozen.
    pub(super) async fn freezable(&mut self) -> Result<Freezable, String> {
        let registration = self.under.registration;
        let fixture = (registration.fixture)();
        let (resource, _) = fixture::load(&fixture, free_port()?, &self.under.suffix)?;
        let instance = format!("{}-frozen", self.under.instance);
        self.under.plan.share(&instance);
        self.under.reloads.push(instance.clone());
        let environment = Environment {
            broker: Arc::clone(&self.broker),
            listeners: Arc::new(Listeners::default()),
            outside: Default::default(),
            instance,
            ..self.under.environment.clone()
        };
        Freezable::start(Parts {
            registration,
            resource,
            environment,
        })
        .await
    }

    /// Everything that people and programs can read of the worker: what it is called, and its text.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let mut shown = vec![
            ("the metrics", self.under.metrics()),
            (
                "the Debug output of its resource",
                format!("{:?}", self.under.resource),
            ),
        ];
        if let Some(worker) = &self.under.worker {
            let snapshot = format!("{:?}", worker.snapshot());
            shown.push(("its status", snapshot));
        }
        let told = self.under.told.bodies().into_iter();
        shown.extend(told.map(|body| ("a status message", body)));
        let events = self.far_end.seen().into_iter();
        let events = events.filter(|seen| matches!(seen.message, Message::Event(_)));
        let body = |seen: super::far_end::Seen| {
            String::from_utf8_lossy(&seen.message.encode()).into_owned()
        };
        shown.extend(events.map(|seen| ("an event", body(seen))));
        shown
    }
}

impl Inside {
    async fn build(&self, environment: Environment) -> Result<BuiltWorker, String> {
        let resource = Arc::clone(&self.resource);
        let built = engine::build(&self.registration, resource, environment).await;
        built.map_err(|e| format!("it does not build: {} ({e})", e.code))
    }

    /// The name of one more instance, which shares the plan.
    fn next_instance(&mut self) -> String {
        let instance = format!("{}-{}", self.instance, self.reloads.len() + 2);
        self.plan.share(&instance);
        self.reloads.push(instance.clone());
        instance
    }

    async fn consuming(&self, worker: &RunningWorker) -> Result<(), String> {
        self.up(worker, false).await
    }

    /// Waits until it is ready and its consumers consume, or stand by behind those of another replica if they may.
    async fn up(&self, worker: &RunningWorker, behind: bool) -> Result<(), String> {
        let topology = self.resource.topology();
        let queues = topology.intake.len() + topology.replies.len();
        eventually("all its consumers consume and it is ready", async || {
            let snapshot = worker.snapshot();
            let all = snapshot.consumers.iter();
            let consuming = all.clone().all(|(_, state)| match state {
                ConsumerState::Consuming => true,
                ConsumerState::Standby(_) => behind,
                _ => false,
            });
            let open = snapshot.accepting.unwrap_or(true);
            match snapshot.ready && consuming && open && all.count() >= queues {
                true => Ok(()),
                false => Err(format!("{snapshot:?}")),
            }
        })
        .await
    }

    pub(super) fn running(&self) -> Result<&RunningWorker, String> {
        self.worker.as_ref().ok_or_else(|| "it does not run".into())
    }

    pub(super) fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// The state store of the bench.
    pub(super) fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// The metrics of its process, in Prometheus' text.
    pub(super) fn metrics(&self) -> String {
        self.environment.telemetry.render()
    }
}

impl UnderTest for Inside {
    type Faults = Faults;

    async fn run(&mut self) -> Result<(), String> {
        let built = self.build(self.environment.clone()).await?;
        self.worker = Some(built.start().await);
        self.until_consuming().await
    }

    async fn until_consuming(&self) -> Result<(), String> {
        self.consuming(self.running()?).await
    }

    async fn crash_and_restart(&mut self) -> Result<(), String> {
        drop(self.worker.take());
        self.faults.sever();
        self.run().await
    }

    fn stopping(
        &mut self,
        limits: StopLimits,
    ) -> Result<BoxFuture<'static, Result<(), String>>, String> {
        let worker = self.worker.take().ok_or("it does not run")?;
        Ok(Box::pin(async move {
            worker.stop(limits).await;
            Ok(())
        }))
    }

    fn counts(&self) -> Result<Counts, String> {
        Ok(self.running()?.snapshot().counts)
    }

    fn poison(&self, message: &mut UserMessage) {
        self.plan.trouble(message.message_id(), Trouble::Panic);
    }

    fn attempts(&self, id: &str) -> u32 {
        self.plan.attempts(id)
    }

    async fn settle(&self) -> Result<Counts, String> {
        let worker = self.running()?;
        eventually("nothing is in flight and the counts add up", async || {
            let c = worker.snapshot().counts;
            let ends = c.done + c.parked + c.journaled + c.returned;
            let whole = c.received == ends + c.in_flight;
            match whole && c.in_flight == 0 {
                true => Ok(c),
                false => Err(format!("{c:?}")),
            }
        })
        .await
    }

    async fn finished(&self, done: u64, parked: u64) -> Result<(), String> {
        let what = format!("{done} messages are done and {parked} parked");
        eventually(&what, async || match self.counts()? {
            c if c.done == done && c.parked == parked && c.received == done + parked => Ok(()),
            c => Err(format!("{c:?}")),
        })
        .await?;
        self.settle().await.map(drop)
    }

    async fn notices_outage(&self) -> Result<(), String> {
        eventually("without its broker it is not ready", async || {
            let snapshot = self.running()?.snapshot();
            match (snapshot.ready, snapshot.state, snapshot.alive) {
                (false, "connecting", true) => Ok(()),
                _ => Err(format!("{snapshot:?}")),
            }
        })
        .await
    }

    fn writes_ahead(&self) -> bool {
        true
    }

    fn has_our_codes(&self) -> bool {
        true
    }

    fn peer(&self) -> Result<Box<dyn Peer>, String> {
        let make = self.peer.ok_or("its fixture has no peer")?;
        Ok(make(self.port))
    }
}
