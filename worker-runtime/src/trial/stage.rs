//! A campaign that is tested: its workers on a broker and a state store of their own, stand-ins for the transports that do
//! not run, fake servers for what is called, and a transcript of everything that passes.

use super::adapt::adapted;
use super::answers::{Script, StandInAnswer};
use super::cast::{Cast, connectors, listed};
use super::clock::Clock;
use super::file::{Server, TestFile, TransportSetting};
use super::peers::{Call, FakeServer, Shared};
use super::services::{BrokerOfTest, StoreOfTest};
use super::transcript::Transcript;
use super::way::{self, Place};
use crate::error::CliError;
use crate::registry;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use vumi_api::{Flow, Port, Resource};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{
    Access, Broker, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Receipt,
    Subscribe,
};
use vumi_core::engine::StopLimits;
use vumi_core::message::{Actor, Event, FailureClass, Fate, FateState, UserMessage};
use vumi_core::secrets::Secrets;
use vumi_core::supervisor::engine::Registered;
use vumi_core::supervisor::{Options, Restart, Supervisor};
use vumi_core::telemetry::Telemetry;

/// A campaign that is not ready after so much time of its own does not start.
const START: Duration = Duration::from_secs(60);
/// Window of stand-ins and of the transcript.
const WINDOW: u16 = 1000;

/// A campaign on stage.
pub struct Stage {
    /// Its clock.
    pub clock: Clock,
    /// What runs.
    pub cast: Cast,
    /// What passed.
    pub transcript: Transcript,
    /// Requests to the fake servers.
    pub calls: Shared<Call>,
    /// Ports of transports that listen, by name.
    pub ports: BTreeMap<String, u16>,
    servers: BTreeMap<String, FakeServer>,
    /// Whom the campaign called that is nobody in the test.
    strangers: Shared<String>,
    scripts: BTreeMap<String, Script<StandInAnswer>>,
    broker: Arc<dyn Broker>,
    supervisor: Arc<Supervisor>,
    _state: TempDir,
}

impl Stage {
    /// Starts the campaign; on return all its workers are ready.
    pub async fn set(file: &TestFile, cast: Cast, clock: Clock) -> Result<Self, CliError> {
        let calls = Shared::default();
        let (mut servers, mut places) = (BTreeMap::new(), Vec::new());
        for (name, server) in &file.servers {
            let open = FakeServer::open(name, &server.answers, Arc::clone(&calls)).await?;
            if let Some(at) = &server.at {
                let place = Place::parse(at).map_err(CliError::validation)?;
                places.push((place, open.origin.clone()));
            }
            servers.insert(name.clone(), open);
        }
        let strangers = Shared::default();
        let (resources, ports) = adapted(&cast)?;
        if !ports.is_empty() || !servers.is_empty() {
            clock.with_sockets();
        }
        let state = TempDir::with_prefix("vumi-test-")
            .map_err(|error| CliError::environment(format!("no temporary folder: {error}")))?;
        let embedded = EmbeddedBroker::start(EmbeddedOptions::default())?;
        let broker: Arc<dyn Broker> = embedded.connect();
        let store = StoreOfTest {
            beside: clock.beside(),
            folder: state.path().to_owned(),
        };
        let supervisor = Supervisor::new(
            Registered::new(registry::all()),
            BrokerOfTest(embedded),
            store,
            Arc::new(Secrets::new(cast.secrets.clone(), None)),
            Arc::new(Telemetry::new()),
            Options {
                instance: "test".into(),
                system_id: "test".into(),
                limits: StopLimits::default(),
                restart: Restart::default(),
                recheck: Duration::from_secs(2),
                outside: way::out(places, Arc::clone(&strangers)),
                sweep: Duration::from_secs(60),
            },
        );
        let mut stage = Self {
            clock,
            transcript: Transcript::default(),
            calls,
            ports,
            servers,
            strangers,
            scripts: BTreeMap::new(),
            broker,
            supervisor,
            _state: state,
            cast,
        };
        stage.listen(&resources).await;
        for connector in stage.cast.stand_ins.clone() {
            let answers = file.transports.get(&connector);
            stage.stand_in(connector, answers).await;
        }
        stage.start(resources).await?;
        Ok(stage)
    }

    /// Writes down what passes on every connector.
    async fn listen(&self, resources: &[Resource]) {
        let mut connectors = connectors(resources);
        connectors.extend(self.cast.stand_ins.iter().cloned());
        let flows = [Flow::Inbound, Flow::Outbound, Flow::Event];
        let keys = connectors
            .iter()
            .flat_map(|name| flows.map(|flow| Port::new(name, flow).queue()));
        let mut copies = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Copy {
                    name: "vumi.test".into(),
                    exchange: EXCHANGE.into(),
                    keys: keys.collect(),
                },
                prefetch: WINDOW,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        let transcript = self.transcript.clone();
        tokio::spawn(async move {
            while let Some(raw) = copies.deliveries.recv().await {
                transcript.add(&raw.routing_key, &raw.body);
                copies.acker.ack(raw.generation, raw.tag, false);
            }
        });
    }

    /// Takes outbound messages of a connector, as a transport would, and tells what became of them.
    async fn stand_in(&mut self, connector: String, setting: Option<&TransportSetting>) {
        let script = Script::new(setting.map_or(&[], |setting| &setting.answers[..]));
        self.scripts.insert(connector.clone(), script.clone());
        let mut taken = self
            .broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data(Port::new(&connector, Flow::Outbound).queue()),
                prefetch: WINDOW,
                access: Access::Shared,
                tag: format!("stand-in/{connector}"),
            })
            .await;
        let (broker, transcript) = (Arc::clone(&self.broker), self.transcript.clone());
        tokio::spawn(async move {
            let port = Port::new(&connector, Flow::Event);
            while let Some(raw) = taken.deliveries.recv().await {
                if let Ok(message) = UserMessage::decode(&raw.body)
                    && let Some(mut event) = told(&message, script.next())
                {
                    event.set_transport_name(&connector);
                    let body = event.encode();
                    transcript.announce(&port, &body);
                    let _ = publish(&*broker, &port, body).await.confirmation().await;
                }
                taken.acker.ack(raw.generation, raw.tag, false);
            }
        });
    }

    async fn start(&self, resources: Vec<Resource>) -> Result<(), CliError> {
        let applied = self.clock.drive(self.supervisor.apply(resources), START);
        let Some(outcome) = applied.await else {
            return Err(CliError::runtime(
                "the campaign does not start within a minute",
            ));
        };
        if !outcome.not_applied.is_empty() {
            let reasons = outcome.not_applied.iter();
            let reasons: Vec<String> = reasons.map(|(key, why)| format!("{key}: {why}")).collect();
            return Err(CliError::runtime(reasons.join("\n")));
        }
        let mut passed = Duration::ZERO;
        loop {
            self.clock.settle().await;
            let ready = self.clock.drive(self.supervisor.ready(), START).await;
            match ready.unwrap_or_else(|| Err("its workers do not answer".into())) {
                Ok(()) => return Ok(()),
                Err(why) if passed >= START => {
                    return Err(CliError::runtime(format!(
                        "the campaign is not ready after {} s of its time: {why}",
                        START.as_secs()
                    )));
                }
                Err(_) => passed += self.clock.tick().await,
            }
        }
    }

    /// Publishes a message of the test's own.
    pub async fn publish(&self, port: &Port, body: Bytes) -> Result<(), String> {
        self.transcript.announce(port, &body);
        let receipt = publish(&*self.broker, port, body).await;
        let confirmed = self.clock.drive(receipt.confirmation(), START).await;
        match confirmed {
            Some(Confirmation::Confirmed) => Ok(()),
            other => Err(format!("{port} did not take the message: {other:?}")),
        }
    }

    /// That the campaign wanted to call somebody outside of the test, and what to do about it; none if it did not.
    pub fn complaint(&self) -> Option<String> {
        way::complaint(&self.strangers)
    }

    /// What fake servers answer from now on.
    pub fn set_servers(&self, changed: &BTreeMap<String, Server>) {
        for (name, server) in changed {
            if let Some(open) = self.servers.get(name) {
                open.script.replace(&server.answers);
            }
        }
    }

    /// How stand-ins answer from now on.
    pub fn set_transports(
        &self,
        changed: &BTreeMap<String, TransportSetting>,
    ) -> Result<(), String> {
        for (name, setting) in changed {
            let script = self.scripts.get(name).ok_or_else(|| {
                format!(
                    "nothing stands in for {name:?}; there are stand-ins for: {}",
                    listed(self.scripts.keys())
                )
            })?;
            script.replace(&setting.answers);
        }
        Ok(())
    }

    /// Everything that was set aside.
    pub async fn parked(&self) -> Result<Vec<vumi_core::parking::Summary>, String> {
        let mut parked = Vec::new();
        for resource in self.supervisor.resources() {
            let topology = resource.topology();
            for port in topology.intake.iter().chain(&topology.replies) {
                let queue = port.queue();
                let listing = vumi_core::parking::list(&*self.broker, &queue, 1000);
                let listed = self.clock.drive(listing, START).await;
                let listed = listed.ok_or("the broker does not answer")?;
                parked.extend(listed.map_err(|error| error.text)?);
            }
        }
        Ok(parked)
    }

    /// Stops the campaign.
    pub async fn clear(self) {
        let _ = self
            .clock
            .drive(self.supervisor.shutdown(), 2 * START)
            .await;
    }
}

/// What a stand-in tells of a message.
fn told(message: &UserMessage, answer: StandInAnswer) -> Option<Event> {
    let id = message.message_id();
    match answer {
        StandInAnswer::Ack => Some(Event::ack(id, id)),
        StandInAnswer::Nack(text) => Some(Event::nack(
            id,
            &Fate {
                state: FateState::Failed,
                class: FailureClass::Provider.as_str().into(),
                code: String::new(),
                text,
                who: Actor::Provider.as_str().into(),
                attempt: 1,
                is_final: true,
            },
        )),
        StandInAnswer::Nothing => None,
    }
}

pub(super) async fn publish(broker: &dyn Broker, port: &Port, body: Bytes) -> Receipt {
    broker
        .publish(Publication {
            exchange: EXCHANGE.into(),
            routing_key: port.queue(),
            body,
            message_id: None,
            class: PublicationClass::Data,
        })
        .await
}
