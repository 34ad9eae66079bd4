//! An engine before the mocked server, with a hand on the watches.

use crate::fake::Fake;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::Kind;
use vumi_api::shared::BrokerRef;
use vumi_operator::brokers::{Known, Link, Place};
use vumi_operator::clock::Clock;
use vumi_operator::engine::Engine;
use vumi_operator::engine::apply::remember;
use vumi_operator::engine::claims;
use vumi_operator::engine::kinds::{KINDS, ObjectKind};
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::reconcile::reconcile;
use vumi_operator::engine::store::Key;
use vumi_operator::metrics::Metrics;
use vumi_plan::{Broker, BrokerIdentity, Queue, Report, Settings};

pub const NAMESPACE: &str = "campaign";
/// The Secret of the broker.
const BROKER: &str = "/api/v1/namespaces/campaign/secrets/vumi-broker";

/// What a transport says that has one pod.
pub fn telnet() -> Value {
    json!({"telnet": {"port": 9010}, "replicas": 1})
}

/// Calls without those that look again, as time passes, at Secrets and at how new the definitions are.
pub fn told(mut calls: Vec<String>) -> Vec<String> {
    calls.retain(|call| !call.starts_with("GET secrets/") && call != COMPARED);
    calls
}

/// The call by which the definitions are compared, where they are those of before.
pub const COMPARED: &str = "GET /openapi/v3";

/// The Secret of the broker with this URL, encoded.
fn broker(url: &str) -> Value {
    json!({"metadata": {"name": "vumi-broker"}, "data": {"connection_string": url}})
}

/// An engine that may write.
async fn engine(server: &Fake, settings: Settings, clock: Clock) -> Arc<Engine> {
    let api = server.api();
    let held = Instant::now() + Duration::from_secs(1_000_000);
    api.gate().hold(Some(held));
    let engine = Engine::new(api, settings, Metrics::new(), "test", clock);
    engine.cluster.compare().await.unwrap();
    engine
}

/// An engine that may write, before a server with a broker's Secret.
pub struct World {
    pub engine: Arc<Engine>,
    pub server: Fake,
    pub key: Key,
    generation: i64,
}

impl World {
    async fn with(settings: Settings) -> Self {
        let (_, server) = Fake::start();
        let engine = engine(&server, settings, Clock::of_tokio()).await;
        server.put(BROKER, broker("YW1xcDovL2E="));
        server.calls();
        let key = Key {
            kind: Kind::Transport,
            namespace: NAMESPACE.into(),
            name: "t".into(),
        };
        Self {
            engine,
            server,
            key,
            generation: 0,
        }
    }

    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub fn path(&self) -> String {
        ObjectKind::of(Kind::Transport).path(NAMESPACE, "t")
    }

    /// Somebody writes the resource, and the watch tells of it.
    pub fn write(&mut self, spec: Value) {
        self.write_with(spec, json!({}));
    }

    pub fn write_with(&mut self, spec: Value, annotations: Value) {
        self.generation += 1;
        let status = self
            .server
            .object(&self.path())
            .map_or(Value::Null, |o| o["status"].clone());
        let object = json!({
            "apiVersion": "vumi.dev/v1alpha1",
            "kind": "Transport",
            "metadata": {
                "name": "t",
                "namespace": NAMESPACE,
                "generation": self.generation,
                "annotations": annotations,
            },
            "spec": spec,
            "status": status,
        });
        let path = self.path();
        self.server.put(&path, object);
        self.tell(ObjectKind::of(Kind::Transport), &path);
        claims::note(&self.engine, &self.key);
    }

    /// Somebody changes the Secret of the broker, of which no watch tells.
    pub fn rotate(&self) {
        self.server.put(BROKER, broker("YW1xcDovL2I="));
    }

    /// A watch tells what an object is.
    pub fn tell(&self, kind: &'static ObjectKind, path: &str) {
        remember(&self.engine, kind, self.server.object(path).unwrap());
    }

    /// Another operator takes over. It knows what the watches tell, and has read the broker.
    pub async fn restart(&mut self) {
        let (settings, clock) = (self.engine.settings.clone(), self.engine.clock);
        self.engine = engine(&self.server, settings, clock).await;
        for path in self.server.paths() {
            let Some((place, name)) = path.rsplit_once('/') else {
                continue;
            };
            let watched = KINDS.iter().find(|kind| kind.path(NAMESPACE, "") == place);
            if let Some(kind) = watched {
                self.tell(kind, &kind.path(NAMESPACE, name));
            }
        }
        claims::note(&self.engine, &self.key);
        self.read(0, 1);
        self.server.calls();
    }

    pub async fn look(&self) -> (Looked, Vec<String>) {
        let looked = reconcile(&self.engine, &self.key).await;
        (looked, self.server.calls())
    }

    pub async fn done(&self) -> Vec<String> {
        let (looked, calls) = self.look().await;
        assert!(
            matches!(looked, Looked::Done(_)),
            "{looked:?} after {calls:?}"
        );
        calls
    }

    /// What is known of its virtual host.
    pub fn link(&self) -> Arc<Link> {
        self.engine.brokers.open(&Place {
            namespace: NAMESPACE.into(),
            broker: BrokerRef::usual(),
        })
    }

    /// The broker is read: so many messages wait, and so many consumers are there.
    pub fn read(&self, ready: u64, consumers: u32) {
        let queue = Queue {
            ready,
            unacked: Some(0),
            consumers: Some(consumers),
            arriving: Some(0.0),
            handled: Some(1.0),
        };
        let queues = ["t.outbound", "t.inbound", "t.event"].map(|name| (name.to_owned(), queue));
        self.link().read(Broker {
            address: Some("rabbitmq:5672/".into()),
            unread: None,
            queues: queues.into(),
        });
    }

    /// The broker says who it is.
    pub fn identify(&self) {
        self.link().know(Known {
            identity: BrokerIdentity {
                cluster: "rabbit at rabbitmq:5672".into(),
                vhost: "/".into(),
            },
            cluster: "rabbit".into(),
            address: "rabbitmq:5672".into(),
            queue: String::new(),
            listening: false,
        });
        claims::unsettle(&self.engine);
    }

    /// A worker says how a component is.
    pub fn say(&self, pod: &str, component: &str, status: &str, reason: &str) {
        let message = json!({
            "message_type": "status_event",
            "component": component,
            "status": status,
            "type": reason,
            "message": format!("{component} is {status}"),
            "details": {"kind": "Transport", "name": "t", "instance": format!("{pod}-1")},
        });
        let body = message.to_string();
        let report = Report::parse("t", body.as_bytes(), self.engine.clock.now());
        self.link().hear(report.unwrap());
    }

    /// Controller and kubelet do their part: the pods that are wanted run, are ready, and consume.
    pub fn run(&self) {
        let kind = ObjectKind::named("Deployment").unwrap();
        let path = kind.path(NAMESPACE, "transport-t");
        let mut object = self.child("Deployment").unwrap();
        let wanted = object["spec"]["replicas"].as_u64().unwrap();
        object["status"] = json!({
            "observedGeneration": object["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": wanted,
        });
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        self.server.put(&path, object);
        self.tell(kind, &path);
        let pod = ObjectKind::named("Pod").unwrap();
        for n in 0..wanted {
            let name = format!("transport-t-{n}");
            let path = pod.path(NAMESPACE, &name);
            let object = json!({
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            });
            self.server.put(&path, object);
            self.tell(pod, &path);
        }
        self.read(0, u32::try_from(wanted).unwrap());
    }

    /// A new resource whose pods run, and of which that is said.
    pub async fn running(&mut self, spec: Value) {
        self.write(spec);
        self.done().await;
        self.run();
        let calls = self.done().await;
        assert_eq!(calls, ["PATCH transports/t/status", "POST events Running"]);
        assert_eq!(self.condition("Ready")["status"], "True");
    }

    /// Controller, kubelet and operator go on until there is nothing left to do.
    pub async fn settle(&self) {
        for _ in 0..5 {
            self.run();
            let calls = self.done().await;
            if calls.iter().all(|call| call.starts_with("GET secrets/")) {
                return;
            }
        }
        panic!("there is no end to it");
    }

    /// Nothing is called, however often it is looked at.
    pub async fn silence(&self) {
        // Longer than what was read of Secrets counts as fresh.
        tokio::time::advance(Duration::from_secs(30)).await;
        for _ in 0..3 {
            let calls = self.done().await;
            let writes: Vec<_> = calls
                .iter()
                .filter(|call| !call.starts_with("GET secrets/"))
                .collect();
            assert!(writes.is_empty(), "{writes:?}");
        }
    }

    pub fn child(&self, kind: &str) -> Option<Value> {
        let kind = ObjectKind::named(kind).unwrap();
        self.server.object(&kind.path(NAMESPACE, "transport-t"))
    }

    pub fn status(&self) -> Value {
        self.server.object(&self.path()).unwrap()["status"].clone()
    }

    pub fn condition(&self, kind: &str) -> Value {
        let status = self.status();
        let mut conditions = status["conditions"].as_array().unwrap().iter();
        conditions
            .find(|c| c["type"] == kind)
            .cloned()
            .unwrap_or_default()
    }
}
