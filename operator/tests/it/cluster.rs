//! A real API server with our definitions, an operator with the rights of its manifests before it, and what tests ask of them.

use crate::proxy::Proxy;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vumi_api::manifest::load;
use vumi_api::{Resource, Target, WorkerType};
use vumi_operator::bounded::{Bounded, Deadlines};
use vumi_operator::engine::Engine;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::lease::Times;
use vumi_operator::health::Health;
use vumi_operator::metrics::Metrics;
use vumi_operator::run::{Operator, Options};
use vumi_plan::Settings;
use vumi_testkit::kubernetes::{ApiServer, KubernetesError};

pub const NAMESPACE: &str = "campaign";
const ACCOUNT: &str = "system:serviceaccount:vumi-system:vumi-operator";
/// Within this time everything is as it should be.
const SOON: Duration = Duration::from_secs(90);
/// Within this time there is nothing left to do, however much else the machine does.
const LATER: Duration = Duration::from_secs(240);
/// For so long it is watched that nothing is written.
pub const QUIET: Duration = Duration::from_secs(10);
/// Once, longer than all that happens each minute: Secrets are read again, classes may change, reports are repeated.
pub const MINUTE: Duration = Duration::from_secs(75);
/// What only Secrets say.
pub const PLANTED: &str = "planted-value";

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An operator that runs.
pub struct Running {
    pub engine: Arc<Engine>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Running {
    pub fn start(proxy: &Proxy, identity: &str) -> Self {
        Self::start_with(proxy, identity, Settings::default())
    }

    /// One that is set up otherwise.
    pub fn start_with(proxy: &Proxy, identity: &str, settings: Settings) -> Self {
        let mut config = kube::Config::new(proxy.url().parse().unwrap());
        config.default_retry = false;
        config.auth_info = Default::default();
        // The rights of its account alone.
        config.headers = vec![(
            http::HeaderName::from_static("impersonate-user"),
            http::HeaderValue::from_static(ACCOUNT),
        )];
        let metrics = Metrics::new();
        let service = kube::client::ClientBuilder::try_from(config).unwrap();
        let counted = metrics.clone();
        let deadlines = Deadlines::of(Duration::from_secs(2));
        let service = service.with_layer(&tower::layer::layer_fn(move |inner| {
            Bounded::new(inner, deadlines, counted.clone())
        }));
        let options = Options {
            settings,
            namespaces: Vec::new(),
            watch_secrets: false,
            concurrency: 8,
            lease: ("vumi-system".into(), "vumi-operator".into()),
            times: Times::default(),
            identity: identity.into(),
        };
        let operator = Operator::new(service.build(), options, metrics.clone());
        let (engine, health) = (operator.engine(), operator.health());
        let stop = CancellationToken::new();
        let task = tokio::spawn(operator.run(stop.clone()));
        Self {
            engine,
            health,
            metrics,
            stop,
            task,
        }
    }

    /// Waits until nothing is left to do.
    pub async fn idle(&self) {
        let (gate, queue) = (self.engine.api.gate(), &self.engine.queue);
        let idle = within(LATER, || {
            gate.leads() && queue.is_idle(Duration::from_millis(200))
        })
        .await;
        let (now, leads) = (tokio::time::Instant::now(), gate.leads());
        assert!(
            idle,
            "still something to do at {now:?}: leads: {leads}, may write: {:?}, {queue:#?}",
            gate.check()
        );
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// What only Secrets say stands nowhere in a text: neither as it is, nor in base64, with whatever before and after it.
pub fn has_no_secret(what: &str, text: &str) {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    assert!(!text.contains(PLANTED), "{what}: {text}");
    for before in 0..3 {
        let mut bytes = vec![b' '; before];
        bytes.extend_from_slice(PLANTED.as_bytes());
        let encoded = engine.encode(&bytes);
        // Digits that depend on nothing but the value.
        let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        let digits = &encoded[first..last];
        assert!(!text.contains(digits), "{what} has {digits}: {text}");
    }
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    for before in ["", "a", "ab", "abc", "amqp://u:"] {
        let text = engine.encode(format!("{before}{PLANTED}@host"));
        let found = std::panic::catch_unwind(|| has_no_secret("a test", &text));
        assert!(found.is_err(), "{text}");
    }
    has_no_secret("a test", &engine.encode("amqp://u:another@host"));
}

/// Waits until something holds, however long that takes within reason.
pub async fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(within(SOON, holds).await, "still waiting for {what}");
}

/// Whether something comes to hold within a time.
async fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + time;
    while !holds() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

/// The server and what the test asks of it.
pub struct Cluster {
    pub server: ApiServer,
}

/// A new server and a proxy before it; none, said loudly, where it is not installed.
pub async fn begin() -> Option<(Cluster, Proxy)> {
    let server = match ApiServer::start() {
        Ok(server) => server,
        Err(missing @ KubernetesError::Missing(_)) => {
            vumi_testkit::skip(&missing.to_string());
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut upstream = kube::Config::new(server.url().parse().unwrap());
    upstream.accept_invalid_certs = true;
    upstream.default_retry = false;
    upstream.auth_info = Default::default();
    upstream.auth_info.token = Some(server.token().to_owned().into());
    let proxy = Proxy::before(kube::Client::try_from(upstream).unwrap()).await;
    Some((Cluster { server }, proxy))
}

impl Cluster {
    pub fn get(&self, path: &str) -> Option<Value> {
        let (status, object) = self.server.request("GET", path, None).unwrap();
        (status == 200).then_some(object)
    }

    pub fn apply(&self, path: &str, object: &Value) {
        let (status, answer) = self.server.apply(path, &object.to_string()).unwrap();
        assert!(
            [200, 201].contains(&status),
            "{path}: {status} {}",
            answer["message"]
        );
    }

    /// Applies an object where those of its kind are.
    pub fn put(&self, object: &Value) {
        let (status, answer) = self.server.apply_object(object).unwrap();
        assert!(
            [200, 201].contains(&status),
            "{object}: {status} {}",
            answer["message"]
        );
    }

    pub fn merge(&self, path: &str, change: &Value) {
        let body = change.to_string();
        let body = Some(("application/merge-patch+json", body.as_str()));
        let (status, answer) = self.server.request("PATCH", path, body).unwrap();
        assert_eq!(status, 200, "{path}: {}", answer["message"]);
    }

    /// The Secret of the broker, with its URL and with its parts, which programs of others need.
    pub fn broker(&self, url: &str) {
        let (_, rest) = url.split_once("://").unwrap();
        let (user, place) = rest.rsplit_once('@').unwrap();
        let (username, password) = user.split_once(':').unwrap();
        let (host, port) = place.split('/').next().unwrap().split_once(':').unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vumi-broker"},
            "stringData": {
                "connection_string": url,
                "host": host, "port": port, "username": username, "password": password,
            },
        });
        self.apply(
            &format!("/api/v1/namespaces/{NAMESPACE}/secrets/vumi-broker"),
            &secret,
        );
    }

    /// What a controller or the kubelet says of an object.
    pub fn said(&self, path: &str, status: Value) {
        self.merge(&format!("{path}/status"), &json!({"status": status}));
    }

    pub fn secret(&self, name: &str, keys: &BTreeSet<String>, value: &str) {
        let data: serde_json::Map<String, Value> =
            keys.iter().map(|key| (key.clone(), value.into())).collect();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
        });
        self.apply(
            &format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}"),
            &secret,
        );
    }
}

pub fn path(resource: &Resource) -> String {
    ObjectKind::of(resource.kind()).path(NAMESPACE, &resource.name)
}

pub fn child(kind: &str, name: &str) -> String {
    ObjectKind::named(kind).unwrap().path(NAMESPACE, name)
}

/// The resources of all examples of worker types, with their documents. Names are unique among them.
pub fn examples() -> Vec<(Resource, Value)> {
    let mut found = Vec::new();
    for worker in WorkerType::all() {
        for file in ["minimal.yaml", "full.yaml"] {
            let place = root()
                .join("examples")
                .join(worker.kind.plural())
                .join(worker.key)
                .join(file);
            let text = std::fs::read_to_string(&place).unwrap();
            for loaded in load(&[(file, text)], Target::Cluster).resources {
                found.push((loaded.resource.clone(), loaded.document()));
            }
        }
    }
    let names: BTreeSet<String> = found.iter().map(|(resource, _)| resource.key()).collect();
    assert_eq!(names.len(), found.len());
    found
}

/// Definitions, namespaces and the operator's account with its rights. Returns the rules that it has.
pub fn install(cluster: &Cluster) -> Vec<Value> {
    for definition in definitions() {
        cluster.server.establish(&definition).unwrap();
    }
    let mut rules = Vec::new();
    for file in ["1-namespace.yaml", "2-rights.yaml"] {
        let text = std::fs::read_to_string(root().join("deploy/operator").join(file)).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            cluster.put(&object);
            rules.extend(object["rules"].as_array().cloned().unwrap_or_default());
        }
    }
    let name = json!({"name": NAMESPACE});
    cluster.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name}));
    rules
}

/// Our definitions.
pub fn definitions() -> Vec<Value> {
    vumi_api::crds::crds()
}

/// The broker of those examples that do not say which. Many of them have the same connector, and give way to each other: one has
/// a virtual host of its own.
pub struct BrokerPlace {
    pub url: String,
    pub management: String,
}

pub fn apply_examples(cluster: &Cluster, examples: &[(Resource, Value)], broker: &BrokerPlace) {
    let mut secrets = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
    for (resource, _) in examples {
        for (name, used) in resource.secrets() {
            secrets.entry(name).or_default().extend(used.keys);
        }
    }
    for (name, keys) in &secrets {
        cluster.secret(name, keys, PLANTED);
    }
    let place = format!("/api/v1/namespaces/{NAMESPACE}/secrets/vumi-broker");
    cluster.server.request("DELETE", &place, None).unwrap();
    cluster.broker(&broker.url);
    for (resource, document) in examples {
        let mut document = document.clone();
        if document["spec"]["broker"].is_null() {
            document["spec"]["broker"] = json!({
                "secretRef": {"name": "vumi-broker"},
                "management": {"url": broker.management},
            });
            if resource.name != "telnet" {
                document["spec"]["broker"]["vhost"] = "others".into();
            }
        }
        cluster.apply(&path(resource), &document);
    }
}
