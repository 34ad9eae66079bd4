//! A campaign that is tested: its workers on a broker and a state store of their own, stand-ins for the transports that do
//! not run, fake servers for what is called, and a transcript of everything that passes.

use super::answers::{Script, StandInAnswer};
use super::clock::{Beside, Clock};
use super::file::{Action, Server, Test, TestFile, TransportSetting};
use super::peers::{Call, FakeServer, Shared};
use super::transcript::Transcript;
use crate::error::CliError;
use crate::{manifests, registry};
use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use vumi_api::manifest::{Texts, campaign_findings, load};
use vumi_api::{Flow, Kind, Port, Resource, Severity, Target};
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{
    Access, Broker, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Receipt,
    Subscribe,
};
use vumi_core::engine::StopLimits;
use vumi_core::error::WorkError;
use vumi_core::message::{Actor, Event, FailureClass, Fate, FateState, UserMessage};
use vumi_core::secrets::Secrets;
use vumi_core::state::StateStore;
use vumi_core::state::around::Around;
use vumi_core::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use vumi_core::supervisor::engine::Registered;
use vumi_core::supervisor::services::{BrokerSource, StateSource};
use vumi_core::supervisor::{Options, Restart, Supervisor};
use vumi_core::telemetry::Telemetry;

/// A campaign that is not ready after so much time of its own does not start.
const START: Duration = Duration::from_secs(60);
/// Window of stand-ins and of the transcript.
const WINDOW: u16 = 1000;

/// What of a campaign runs in one test, as a pure function of its files.
pub struct Cast {
    texts: Vec<(String, String)>,
    resources: Vec<Resource>,
    secrets: Texts,
    /// Connectors of transports that run, by the names of the transports.
    pub real: BTreeMap<String, String>,
    /// Connectors that have a stand-in.
    pub stand_ins: Vec<String>,
}

impl Cast {
    /// Reads the manifests and decides which transports run: those that a step speaks to, and those that the file says.
    pub fn of(file: &TestFile, test: &Test) -> Result<Self, CliError> {
        let texts = manifests::read(&file.manifest_paths())?;
        let mut found = load(&texts, Target::Local);
        for (name, keys) in &file.secrets {
            let held = found.secrets.entry(name.clone()).or_default();
            held.extend(keys.clone());
        }
        let mut findings = std::mem::take(&mut found.findings);
        findings.extend(campaign_findings(&found));
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            return Err(CliError::validation(errors.join("\n")));
        }
        let resources: Vec<Resource> = found.resources.into_iter().map(|r| r.resource).collect();
        if resources.is_empty() {
            return Err(CliError::validation("there is no worker in the manifests"));
        }
        let transports: BTreeMap<String, String> = resources
            .iter()
            .filter_map(|resource| {
                let transport = (resource.kind() == Kind::Transport).then_some(resource)?;
                Some((resource.name.clone(), transport.transport_name().to_owned()))
            })
            .collect();
        let named = spoken_to(file, test, &transports)?;
        let real: BTreeMap<String, String> = transports
            .into_iter()
            .filter(|(name, connector)| named.contains(name) || named.contains(connector))
            .collect();
        let runs = |resource: &Resource| {
            resource.kind() != Kind::Transport || real.contains_key(&resource.name)
        };
        let (running, replaced): (Vec<Resource>, Vec<Resource>) =
            resources.into_iter().partition(runs);
        let stand_ins = outside(&running, &replaced);
        let mut known = connectors(&running);
        known.extend(stand_ins.iter().cloned());
        let named = test.steps.iter().enumerate().flat_map(|(at, step)| {
            let names = step
                .action()
                .map_or(Vec::new(), |(_, action)| names(action));
            names
                .into_iter()
                .map(move |name| (format!("step {}", at + 1), name))
        });
        let head = file
            .transports
            .keys()
            .map(|name| ("transports".to_owned(), name));
        for (place, name) in head.chain(named) {
            if !known.contains(name) && !real.contains_key(name) {
                return Err(CliError::validation(format!(
                    "{place}: {name:?} is no connector of this campaign; there are: {}",
                    listed(&known)
                )));
            }
        }
        Ok(Self {
            texts,
            resources: running,
            secrets: found.secrets,
            real,
            stand_ins,
        })
    }
}

/// Names, for people.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: BTreeSet<&str> = names.into_iter().map(String::as_str).collect();
    match names.is_empty() {
        true => "none".into(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// Connectors of workers.
fn connectors(resources: &[Resource]) -> BTreeSet<String> {
    let mut connectors = BTreeSet::new();
    for resource in resources {
        let topology = resource.topology();
        let ports = topology.intake.iter().chain(&topology.replies);
        let ports = ports.chain(&topology.publishes);
        connectors.extend(ports.map(|port| port.connector.clone()));
    }
    connectors
}

/// Connectors that a step names.
fn names(action: Action<'_>) -> Vec<&String> {
    match action {
        Action::Inbound(given) | Action::Outbound(given) => given.connector.iter().collect(),
        Action::Event(given) => given.connector.iter().collect(),
        Action::Transports(changed) => changed.keys().collect(),
        Action::Expect(expect) => {
            let messages = expect.outbound.iter().chain(&expect.inbound).flatten();
            let messages = messages.filter_map(|message| message.connector.as_ref());
            let events = expect.events.iter().flatten();
            messages
                .chain(events.filter_map(|event| event.connector.as_ref()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Transports that run, by name or connector.
fn spoken_to(
    file: &TestFile,
    test: &Test,
    transports: &BTreeMap<String, String>,
) -> Result<BTreeSet<String>, CliError> {
    let mut named = BTreeSet::new();
    for (at, step) in test.steps.iter().enumerate() {
        let name = match step.action() {
            Some((_, Action::Request(request))) => Some(&request.to),
            Some((_, Action::Line(line))) => Some(&line.to),
            // Nobody but the transport itself takes it.
            Some((_, Action::Outbound(given))) => given.connector.as_ref().or({
                match transports.len() {
                    1 => transports.keys().next(),
                    _ => None,
                }
            }),
            _ => continue,
        };
        let Some(name) = name else {
            return Err(CliError::validation(format!(
                "step {}: name the connector; there are: {}",
                at + 1,
                listed(transports.values())
            )));
        };
        if !transports.contains_key(name) && !transports.values().any(|known| known == name) {
            return Err(CliError::validation(format!(
                "step {}: there is no transport {name:?}; there are: {}",
                at + 1,
                listed(transports.keys())
            )));
        }
        named.insert(name.clone());
    }
    let said = file.transports.iter().filter(|(_, setting)| setting.real);
    named.extend(said.map(|(name, _)| name.clone()));
    Ok(named)
}

/// Connectors at which the campaign meets what does not run: those of replaced transports, and those to which workers
/// publish although none reads them.
fn outside(running: &[Resource], replaced: &[Resource]) -> Vec<String> {
    let topologies: Vec<_> = running.iter().map(Resource::topology).collect();
    let reads = |port: &Port| {
        topologies
            .iter()
            .any(|topology| topology.intake.contains(port) || topology.replies.contains(port))
    };
    let mut outside: BTreeSet<String> = replaced
        .iter()
        .map(|resource| resource.transport_name().to_owned())
        .collect();
    for port in topologies.iter().flat_map(|topology| &topology.publishes) {
        if port.flow == Flow::Outbound && !reads(port) {
            outside.insert(port.connector.clone());
        }
    }
    outside.into_iter().collect()
}

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
    scripts: BTreeMap<String, Script<StandInAnswer>>,
    broker: Arc<dyn Broker>,
    supervisor: Arc<Supervisor>,
    _state: TempDir,
}

impl Stage {
    /// Starts the campaign; on return all its workers are ready.
    pub async fn set(file: &TestFile, mut cast: Cast, clock: Clock) -> Result<Self, CliError> {
        let calls = Shared::default();
        let mut servers = BTreeMap::new();
        for (name, server) in &file.servers {
            let open = FakeServer::open(name, &server.answers, Arc::clone(&calls)).await?;
            servers.insert(name.clone(), open);
        }
        let (resources, ports) = adapted(&mut cast, file, &servers)?;
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
                sweep: Duration::from_secs(60),
            },
        );
        let mut stage = Self {
            clock,
            transcript: Transcript::default(),
            calls,
            ports,
            servers,
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

async fn publish(broker: &dyn Broker, port: &Port, body: Bytes) -> Receipt {
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

/// The workers as they run in the test: on free ports, and with fake servers in place of those that they call.
fn adapted(
    cast: &mut Cast,
    file: &TestFile,
    servers: &BTreeMap<String, FakeServer>,
) -> Result<(Vec<Resource>, BTreeMap<String, u16>), CliError> {
    let failed = |error: std::io::Error| CliError::environment(format!("no free port: {error}"));
    let mut free: BTreeMap<u16, u16> = BTreeMap::new();
    // Held until all are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    let mut ports = BTreeMap::new();
    for resource in &cast.resources {
        for (_, port) in resource.topology().listens {
            let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
            let chosen = listener.local_addr().map_err(failed)?.port();
            held.push(listener);
            let chosen = *free.entry(port).or_insert(chosen);
            ports.entry(resource.name.clone()).or_insert(chosen);
        }
    }
    let origins: Vec<(&str, &str)> = file
        .servers
        .iter()
        .filter_map(|(name, server)| Some((server.at.as_deref()?, &*servers.get(name)?.origin)))
        .collect();
    for value in cast.secrets.values_mut().flat_map(BTreeMap::values_mut) {
        if let Some(known) = redirected(value, &origins) {
            *value = known;
        }
    }
    let mut texts = Vec::new();
    let mut strangers = Vec::new();
    for (name, text) in &cast.texts {
        for document in serde_yaml::Deserializer::from_str(text) {
            let mut document = serde_yaml::Value::deserialize(document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            if !runs(cast, &document) {
                continue;
            }
            rewrite(&mut document, "", &free, &origins, &mut strangers);
            let text = serde_yaml::to_string(&document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            texts.push((name.clone(), text));
        }
    }
    if !strangers.is_empty() {
        return Err(CliError::validation(format!(
            "a test calls nobody outside of it: write a fake server with `at` for {}",
            strangers.join(", ")
        )));
    }
    let loaded = load(&texts, Target::Local);
    if loaded.has_errors() {
        let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        return Err(CliError::validation(format!(
            "the manifests are not valid once ports and addresses are those of the test:\n{}",
            findings.join("\n")
        )));
    }
    let resources = loaded.resources.into_iter().map(|loaded| loaded.resource);
    Ok((resources.collect(), ports))
}

/// Whether a document is a worker that runs.
fn runs(cast: &Cast, document: &serde_yaml::Value) -> bool {
    let text = |value: Option<&serde_yaml::Value>| {
        value
            .and_then(serde_yaml::Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let kind = text(document.get("kind"));
    let name = text(
        document
            .get("metadata")
            .and_then(|metadata| metadata.get("name")),
    );
    cast.resources
        .iter()
        .any(|resource| resource.kind().as_str() == kind && resource.name == name)
}

/// Puts free ports and fake servers in place; collects addresses of others.
fn rewrite(
    value: &mut serde_yaml::Value,
    key: &str,
    ports: &BTreeMap<u16, u16>,
    origins: &[(&str, &str)],
    strangers: &mut Vec<String>,
) {
    use serde_yaml::Value;
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping.iter_mut() {
                let key = key.as_str().unwrap_or("").to_owned();
                rewrite(value, &key, ports, origins, strangers);
            }
        }
        Value::Sequence(values) => {
            for value in values {
                rewrite(value, key, ports, origins, strangers);
            }
        }
        Value::Number(number) if key == "port" => {
            let port = number.as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some(free) = port.and_then(|port| ports.get(&port)) {
                *value = Value::from(u64::from(*free));
            }
        }
        Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
            match redirected(text, origins) {
                Some(known) => *text = known,
                None => strangers.push(text.clone()),
            }
        }
        _ => {}
    }
}

/// An address with the fake server in place of the real one, if there is one.
fn redirected(address: &str, origins: &[(&str, &str)]) -> Option<String> {
    origins.iter().find_map(|(at, origin)| {
        let rest = address.strip_prefix(at)?;
        // `https://a.org` is not the beginning of `https://a.org.evil`.
        let whole = at.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']);
        let gap = if at.ends_with('/') { "/" } else { "" };
        whole.then(|| format!("{origin}{gap}{rest}"))
    })
}

/// The broker of every worker of a test.
struct BrokerOfTest(Arc<EmbeddedBroker>);

#[async_trait]
impl BrokerSource for BrokerOfTest {
    fn identity(&self, _: &Resource) -> Result<String, WorkError> {
        Ok("embedded".into())
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn Broker>, WorkError> {
        Ok(self.0.connect())
    }
}

/// The state store of every worker of a test: in a folder, so that it is as durable as any worker asks for.
struct StoreOfTest {
    beside: Beside,
    folder: std::path::PathBuf,
}

#[async_trait]
impl StateSource for StoreOfTest {
    fn identity(&self, _: &Resource) -> Result<Option<String>, WorkError> {
        Ok(Some("embedded".into()))
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn StateStore>, WorkError> {
        let _working = self.beside.begin();
        let store = EmbeddedStore::open(EmbeddedStoreOptions {
            folder: Some(self.folder.join("store")),
            sync: false,
        })?;
        Ok(Arc::new(CountedStore {
            store,
            beside: self.beside.clone(),
        }))
    }
}

/// A store whose operations are known to the clock.
struct CountedStore {
    store: Arc<dyn StateStore>,
    beside: Beside,
}

#[async_trait]
impl Around for CountedStore {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn around<T: Send>(
        &self,
        _: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        let _working = self.beside.begin();
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_fake_servers_take_the_place_of_real_ones() {
        let origins = [
            ("https://a.org", "http://127.0.0.1:1"),
            ("http://b.org/api/", "http://127.0.0.1:2"),
        ];
        for (address, known) in [
            ("https://a.org", Some("http://127.0.0.1:1")),
            ("https://a.org/x?y=1", Some("http://127.0.0.1:1/x?y=1")),
            ("https://a.org.evil/x", None),
            ("http://b.org/api/x", Some("http://127.0.0.1:2/x")),
            ("http://b.org/other", None),
        ] {
            assert_eq!(redirected(address, &origins).as_deref(), known, "{address}");
        }
    }

    #[test]
    fn ports_and_addresses_of_manifests_become_those_of_the_test() {
        let text = "spec: {http: {port: 8080}, other: {port: 9}, urls: [https://a.org/x, https://c.org/], say: at https://d.org}";
        let mut document: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        let mut strangers = Vec::new();
        let origins = [("https://a.org", "http://127.0.0.1:1")];
        rewrite(
            &mut document,
            "",
            &BTreeMap::from([(8080, 1234)]),
            &origins,
            &mut strangers,
        );
        let expected: serde_yaml::Value = serde_yaml::from_str(
            "spec: {http: {port: 1234}, other: {port: 9}, urls: ['http://127.0.0.1:1/x', https://c.org/], say: at https://d.org}",
        )
        .unwrap();
        assert_eq!(document, expected);
        assert_eq!(strangers, ["https://c.org/"]);
    }
}
