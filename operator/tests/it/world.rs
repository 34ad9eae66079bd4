//! An engine before the mocked server, with a hand on the watches.

use crate::fake::Fake;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::Kind;
use vumi_operator::engine::Engine;
use vumi_operator::engine::apply::remember;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::reconcile::{Looked, reconcile};
use vumi_operator::engine::store::Key;
use vumi_operator::metrics::Metrics;
use vumi_plan::Settings;

pub const NAMESPACE: &str = "campaign";

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
        let api = server.api();
        api.gate()
            .hold(Some(Instant::now() + Duration::from_secs(1_000_000)));
        let engine = Engine::new(api, settings, Metrics::new(), "test");
        engine.cluster.compare().await.unwrap();
        let broker = json!({"metadata": {"name": "vumi-broker"}, "data": {"connection_string": "YW1xcDovL2E="}});
        server.put("/api/v1/namespaces/campaign/secrets/vumi-broker", broker);
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
    }

    /// A watch tells what an object is.
    pub fn tell(&self, kind: &'static ObjectKind, path: &str) {
        remember(&self.engine, kind, self.server.object(path).unwrap());
    }

    pub async fn look(&self) -> (Looked, Vec<String>) {
        let looked = reconcile(&self.engine, &self.key).await;
        (looked, self.server.calls())
    }

    pub async fn done(&self) -> Vec<String> {
        let (looked, calls) = self.look().await;
        assert!(matches!(looked, Looked::Done), "{looked:?} after {calls:?}");
        calls
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
