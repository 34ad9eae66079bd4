//! The test bench of one case: the worker under test between a faulty broker, the far end of its queues and its peer.

use super::Peer;
use super::far_end::{FarEnd, patience};
use super::faults::Faults;
use super::fixture;
use super::frozen::{Freezable, Parts};
use super::saboteur::Plan;
use super::told::Told;
use crate::broker::{Broker, Confirmation, ConsumerState, EXCHANGE, Publication, PublicationClass};
use crate::engine::{self, BuiltWorker, Counts, Environment, RunningWorker, StopLimits};
use crate::message::{Event, Message, TransportStatus, UserMessage, derived_id, random_id};
use crate::parking::parked_queue;
use crate::secrets::Secrets;
use crate::state::StateStore;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::status::StatusIdentity;
use crate::supervisor::listeners::Listeners;
use crate::telemetry::Telemetry;
use crate::worker::Registration;
use bytes::Bytes;
use futures::FutureExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::{Flow, Kind, Port, Resource, Topology};

/// In every content that the suite sends; must never be in a log line, a status or a metric.
pub(super) const MARK: &str = "mArKeD-c0ntent";

/// Stop limits that no case should need to the full.
pub(super) const LIMITS: StopLimits = StopLimits {
    drain: Duration::from_secs(20),
    flush: Duration::from_secs(20),
    close: Duration::from_secs(5),
};

/// Limits of a stop that waits for nobody who waits for a reply.
pub(super) const WITHOUT_REPLIES: StopLimits = StopLimits {
    drain: Duration::from_millis(100),
    ..LIMITS
};

pub(super) struct Rig {
    pub(super) registration: Registration,
    pub(super) resource: Arc<Resource>,
    pub(super) topology: Topology,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) faults: Arc<Faults>,
    pub(super) far_end: FarEnd,
    pub(super) plan: Arc<Plan>,
    pub(super) worker: Option<RunningWorker>,
    pub(super) instance: String,
    pub(super) document: serde_json::Value,
    told: Told,
    peer: Option<fn(u16) -> Box<dyn Peer>>,
    port: u16,
    environment: Environment,
    store: Arc<dyn StateStore>,
    /// The end of its names.
    suffix: String,
    /// Workers built after the first one: each is an instance of its own.
    reloads: Vec<String>,
}

impl Drop for Rig {
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

impl Rig {
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
            telemetry: Arc::new(Telemetry::new()),
            instance: instance.clone(),
            system_id: "conformance".into(),
        };
        let identity = StatusIdentity::of(&resource, &instance);
        let key = TransportStatus::routing_key(&identity.connector);
        let mut rig = Self {
            far_end: FarEnd::open(&broker, &topology.publishes).await,
            told: Told::open(&broker, &instance, key).await,
            suffix,
            reloads: Vec::new(),
            registration,
            resource,
            topology,
            broker,
            faults,
            plan,
            worker: None,
            instance,
            document,
            peer: fixture.peer,
            port,
            environment,
            store,
        };
        rig.run().await?;
        Ok(rig)
    }

    /// Builds and starts the worker, and waits until it consumes.
    pub(super) async fn run(&mut self) -> Result<(), String> {
        let built = self.build(self.environment.clone()).await?;
        self.worker = Some(built.start().await);
        self.until_consuming().await
    }

    async fn build(&self, environment: Environment) -> Result<BuiltWorker, String> {
        let resource = Arc::clone(&self.resource);
        let built = engine::build(&self.registration, resource, environment).await;
        built.map_err(|e| format!("it does not build: {} ({e})", e.code))
    }

    /// Replaces the worker by a new one as the supervisor does: builds the new one first, stops the old one in two
    /// stages, starts the new one. `meanwhile` runs once the intake of the old one is closed, and cannot count on the
    /// new one.
    pub(super) async fn reload<T>(
        &mut self,
        meanwhile: impl AsyncFnOnce(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let instance = format!("{}-{}", self.instance, self.reloads.len() + 2);
        self.plan.share(&instance);
        self.reloads.push(instance.clone());
        let environment = Environment {
            instance,
            ..self.environment.clone()
        };
        let built = self.build(environment).await?;
        let old = self.worker.take().ok_or("it does not run")?;
        let mut stopping = Box::pin(old.stop(LIMITS));
        // The first poll closes the intake.
        let mut ended = stopping.as_mut().now_or_never().is_some();
        everything_turns().await;
        // Workers that hold requests are made to run beside each other, others share their queues in turn.
        let starting = async {
            let mut built = Some(built);
            let mut new = None;
            if self.topology.holds_requests
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
        self.worker = new;
        self.until_consuming().await?;
        done
    }

    /// Replaces the worker by one whose queues are divided into so many partitions.
    pub(super) async fn divide(&mut self, partitions: u16) -> Result<(), String> {
        self.stop(WITHOUT_REPLIES).await?;
        self.resource = Arc::new(fixture::divided(&self.document, partitions)?);
        self.run().await
    }

    /// Starts a second replica of a worker that has no peer, behind faults of its own; it need not consume yet.
    pub(super) async fn colleague(&mut self) -> Result<(RunningWorker, Arc<Faults>), String> {
        let instance = format!("{}-{}", self.instance, self.reloads.len() + 2);
        self.plan.share(&instance);
        self.reloads.push(instance.clone());
        let faults = Faults::new(Arc::clone(&self.broker));
        let environment = Environment {
            broker: Arc::clone(&faults) as Arc<dyn Broker>,
            instance,
            ..self.environment.clone()
        };
        let built = self.build(environment).await?;
        Ok((built.start().await, faults))
    }

    /// Starts a second replica.
    pub(super) async fn replica(&self) -> Result<Replica, String> {
        let port = free_port()?;
        let (resource, _) = fixture::load(&(self.registration.fixture)(), port, &self.suffix)?;
        let instance = format!("{}-2", self.instance);
        self.plan.share(&instance);
        let faults = Faults::new(Arc::clone(&self.broker));
        let environment = Environment {
            broker: Arc::clone(&faults) as Arc<dyn Broker>,
            listeners: Arc::new(Listeners::default()),
            instance: instance.clone(),
            ..self.environment.clone()
        };
        let built = engine::build(&self.registration, Arc::new(resource), environment).await;
        let worker = built.map_err(|e| e.to_string())?.start().await;
        self.consuming(&worker).await?;
        let make = self.peer.ok_or("its fixture has no peer")?;
        Ok(Replica {
            worker,
            peer: make(port),
            faults,
            instance,
        })
    }

    /// Starts a replica that can be frozen.
    pub(super) async fn freezable(&mut self) -> Result<Freezable, String> {
        let fixture = (self.registration.fixture)();
        let (resource, _) = fixture::load(&fixture, free_port()?, &self.suffix)?;
        let instance = format!("{}-frozen", self.instance);
        self.plan.share(&instance);
        self.reloads.push(instance.clone());
        let environment = Environment {
            broker: Arc::clone(&self.broker),
            listeners: Arc::new(Listeners::default()),
            instance,
            ..self.environment.clone()
        };
        let registration = self.registration;
        Freezable::start(Parts {
            registration,
            resource,
            environment,
        })
        .await
    }

    /// The state store of the bench.
    pub(super) fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    pub(super) async fn until_consuming(&self) -> Result<(), String> {
        self.consuming(self.running()?).await
    }

    async fn consuming(&self, worker: &RunningWorker) -> Result<(), String> {
        eventually("all its consumers consume and it is ready", async || {
            let snapshot = worker.snapshot();
            let all = snapshot.consumers.iter();
            let consuming = all.clone().all(|(_, s)| *s == ConsumerState::Consuming);
            let open = snapshot.accepting.unwrap_or(true);
            match snapshot.ready && consuming && open && all.count() >= self.consumed().count() {
                true => Ok(()),
                false => Err(format!("{snapshot:?}")),
            }
        })
        .await
    }

    pub(super) fn running(&self) -> Result<&RunningWorker, String> {
        self.worker.as_ref().ok_or_else(|| "it does not run".into())
    }

    /// The ports of the data queues that it consumes.
    pub(super) fn consumed(&self) -> impl Iterator<Item = &Port> {
        self.topology.intake.iter().chain(&self.topology.replies)
    }

    pub(super) fn has_peer(&self) -> bool {
        self.peer.is_some()
    }

    /// A far end of the transport.
    pub(super) fn peer(&self) -> Result<Box<dyn Peer>, String> {
        let make = self.peer.ok_or("its fixture has no peer")?;
        Ok(make(self.port))
    }

    /// Whether a message on `port` must cause an output: applications take events without a word.
    pub(super) fn answers(&self, port: &Port) -> bool {
        !(self.registration.kind == Kind::Application && port.flow == Flow::Event)
    }

    /// Whether messages on `port` are handed to a peer: then they are handled at most once, whatever happens (R17).
    pub(super) fn sends(&self, port: &Port) -> bool {
        self.registration.kind == Kind::Transport && port.flow == Flow::Outbound
    }

    /// The ports whose messages cause outputs.
    pub(super) fn answering(&self) -> Vec<Port> {
        let ports = self.consumed().filter(|port| self.answers(port));
        ports.cloned().collect()
    }

    /// The `n`-th message of `user` for `port`: the same at every call.
    pub(super) fn message(&self, port: &Port, user: usize, n: usize) -> Message {
        let id = derived_id(&[
            "conformance",
            &self.instance,
            &port.queue(),
            &user.to_string(),
            &n.to_string(),
        ]);
        let address = format!("+2782900{user:04}");
        let outbound_target = self.topology.publishes.iter();
        let transport = match port.flow {
            Flow::Outbound => outbound_target
                .filter(|p| p.flow == Flow::Outbound)
                .map(|p| p.connector.as_str())
                .next()
                .unwrap_or(&port.connector),
            Flow::Inbound | Flow::Event => &port.connector,
        };
        if port.flow == Flow::Event {
            let mut event = Event::ack(&id, "remote");
            event.set_field("event_id", derived_id(&["event", &id]));
            event.set_transport_name(transport);
            return event.into();
        }
        let (to, from) = match port.flow {
            Flow::Outbound => (address.as_str(), "55555"),
            _ => ("55555", address.as_str()),
        };
        let mut message = UserMessage::new("sms", Some(to), Some(from));
        message.set_message_id(&id);
        message.set_transport_name(transport);
        let text = format!("{MARK} {user} {n}");
        let text = self.registration.saying.replace("{}", &text);
        message.set_content(Some(&text));
        message.into()
    }

    /// Publishes a body to a consumed queue, past all faults.
    pub(super) async fn feed(&self, queue: &str, body: Bytes) -> Result<(), String> {
        self.feed_all([(queue.to_owned(), body)]).await
    }

    /// Publishes bodies to consumed queues, in their order and without a wait for each, past all faults.
    async fn feed_all(
        &self,
        bodies: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<(), String> {
        let mut receipts = Vec::new();
        for (queue, body) in bodies {
            let publication = Publication {
                exchange: EXCHANGE.into(),
                routing_key: queue,
                body,
                message_id: None,
                class: PublicationClass::Data,
            };
            receipts.push(self.broker.publish(publication).await);
        }
        for receipt in receipts {
            match receipt.confirmation().await {
                Confirmation::Confirmed => {}
                other => return Err(format!("the suite cannot publish: {other:?}")),
            }
        }
        Ok(())
    }

    /// Publishes a message to the queue of its port; its id.
    pub(super) async fn send(&self, port: &Port, message: &Message) -> Result<String, String> {
        self.feed(&port.queue(), message.encode()).await?;
        Ok(message.id().to_owned())
    }

    /// Publishes the `n`-th messages of `users` to `port`, for each `n`; their users and ids, in the order sent.
    pub(super) async fn send_many(
        &self,
        port: &Port,
        users: std::ops::Range<usize>,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<(usize, String)>, String> {
        let each = numbers.flat_map(|n| users.clone().map(move |user| (user, n)));
        let messages: Vec<(usize, Message)> = each
            .map(|(user, n)| (user, self.message(port, user, n)))
            .collect();
        let bodies = messages.iter().map(|(_, m)| (port.queue(), m.encode()));
        self.feed_all(bodies).await?;
        let ids = messages.iter().map(|(user, m)| (*user, m.id().to_owned()));
        Ok(ids.collect())
    }

    /// Messages in the parking queue of a consumed queue.
    pub(super) async fn parked(
        &self,
        port: &Port,
    ) -> Result<Vec<crate::parking::Envelope>, String> {
        let shelf = self.broker.shelf(&parked_queue(&port.queue()), 100).await;
        let shelf = match shelf {
            Ok(shelf) => shelf,
            Err(_) => return Ok(Vec::new()),
        };
        let decoded = shelf.messages().iter();
        let envelopes = decoded
            .map(|m| crate::parking::Envelope::decode(&m.body))
            .collect();
        shelf.close().await;
        envelopes
    }

    pub(super) fn counts(&self) -> Result<Counts, String> {
        Ok(self.running()?.snapshot().counts)
    }

    /// The metrics of its process, in Prometheus' text.
    pub(super) fn metrics(&self) -> String {
        self.environment.telemetry.render()
    }

    /// Everything that people and programs can read of the worker: what it is called, and its text.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let mut shown = vec![
            ("the metrics", self.metrics()),
            (
                "the Debug output of its resource",
                format!("{:?}", self.resource),
            ),
        ];
        if let Some(worker) = &self.worker {
            let snapshot = format!("{:?}", worker.snapshot());
            shown.push(("its status", snapshot));
        }
        let told = self.told.bodies().into_iter();
        shown.extend(told.map(|body| ("a status message", body)));
        let events = self.far_end.seen().into_iter();
        let events = events.filter(|seen| matches!(seen.message, Message::Event(_)));
        let body = |seen: super::far_end::Seen| {
            String::from_utf8_lossy(&seen.message.encode()).into_owned()
        };
        shown.extend(events.map(|seen| ("an event", body(seen))));
        shown
    }

    /// Waits until nothing is in flight, and demands that every delivery has exactly one fate.
    pub(super) async fn settle(&self) -> Result<Counts, String> {
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

    /// Ends the process of the worker as a crash does: no goodbye, channels gone, then a new one starts.
    pub(super) async fn crash_and_restart(&mut self) -> Result<(), String> {
        drop(self.worker.take());
        self.faults.sever();
        self.run().await
    }

    /// Stops the worker.
    pub(super) async fn stop(&mut self, limits: StopLimits) -> Result<Duration, String> {
        let worker = self.worker.take().ok_or("it does not run")?;
        let started = Instant::now();
        worker.stop(limits).await;
        Ok(started.elapsed())
    }
}

/// Lets every task that can do something do it: all of a case runs on one thread.
pub(super) async fn everything_turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Asks until the answer is good; the last bad one if it never is.
pub(super) async fn eventually<T>(
    what: &str,
    ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    within(patience(), what, ask).await
}

/// As [`eventually`], for what may take so long.
pub(super) async fn within<T>(
    time: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + time;
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= deadline => {
                return Err(format!("never came true: {what}; at last: {last}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
