//! An API server with our definitions and a campaign, an operator before it, and the plugin as a user runs it.

use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vumi_operator::bounded::{Bounded, Deadlines};
use vumi_operator::engine::Engine;
use vumi_operator::engine::lease::Times;
use vumi_operator::metrics::Metrics;
use vumi_operator::run::{Operator, Options};
use vumi_plan::Settings;
use vumi_testkit::kubernetes::ApiServer;

pub const NAMESPACE: &str = "campaign";
pub const TELNET: &str = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/telnet";
/// Within this time everything is as it should be.
const SOON: Duration = Duration::from_secs(90);

pub fn deployment() -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/transport-telnet")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Asked {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Asked {
    /// Each of these stands in what was printed.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.out.contains(*text), "{text} in {}", self.out);
        }
    }
}

pub struct Place {
    pub server: ApiServer,
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new(server: ApiServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(NAMESPACE);
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        Self { server, folder }
    }

    /// Runs the plugin as its user does.
    pub fn vumi(&self, arguments: &[&str]) -> Asked {
        let output = tokio::task::block_in_place(|| {
            Command::new(env!("CARGO_BIN_EXE_kubectl-vumi"))
                .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
                .args(arguments)
                .output()
                .unwrap()
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Asked {
            code: output.status.code().unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// A file with this text.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Applies an object.
    pub fn put(&self, object: &Value) {
        let (status, answer) = self.server.apply_object(object).unwrap();
        let done = [200, 201].contains(&status);
        assert!(done, "{object}: {status} {}", answer["message"]);
    }

    /// A pod of a worker, which nobody runs here. Returns its path.
    pub fn pod(&self, name: &str, kind: &str, worker: &str) -> String {
        let labels = json!({"vumi.dev/kind": kind, "vumi.dev/name": worker});
        self.put(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "serviceAccountName": "application-echo",
                "containers": [{"name": "worker", "image": "vumi"}],
            },
        }));
        format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, object) = self.server.request("GET", path, None).unwrap();
        if status == 200 { object } else { Value::Null }
    }

    pub fn merge(&self, path: &str, change: &Value) {
        let body = change.to_string();
        let body = Some(("application/merge-patch+json", body.as_str()));
        let (status, answer) = self.server.request("PATCH", path, body).unwrap();
        assert_eq!(status, 200, "{path}: {}", answer["message"]);
    }

    pub fn delete(&self, path: &str) {
        let (status, answer) = self.server.request("DELETE", path, None).unwrap();
        assert_eq!(status, 200, "{path}: {}", answer["message"]);
    }

    pub fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        tokio::task::block_in_place(|| {
            let deadline = Instant::now() + SOON;
            while !holds(self) {
                assert!(Instant::now() < deadline, "still waiting for {what}");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }

    fn documents(&self, file: &str) {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            self.put(&Value::deserialize(document).unwrap());
        }
    }

    /// The operator's rights, as they are shipped.
    pub fn rights(&self) {
        self.documents("deploy/operator/2-rights.yaml");
    }

    /// Definitions, and the operator as it is shipped; there is nobody who would start its pods.
    pub fn install(&self) {
        for definition in vumi_api::crds::crds() {
            self.server.establish(&definition).unwrap();
        }
        self.documents("deploy/operator/1-namespace.yaml");
        self.rights();
        self.documents("deploy/operator/3-operator.yaml");
        self.documents("deploy/operator/4-people.yaml");
        let name = json!({"name": NAMESPACE});
        self.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name}));
    }

    pub fn example(&self) -> String {
        let path = root().join("examples/telnet-echo");
        path.to_str().unwrap().to_owned()
    }

    /// The manifests of the example, as objects.
    fn manifests(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.example()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                let text = std::fs::read_to_string(path).unwrap();
                for document in serde_yaml::Deserializer::from_str(&text) {
                    found.push(Value::deserialize(document).unwrap());
                }
            }
        }
        found
    }

    fn transport(&self) -> Value {
        let mut all = self.manifests().into_iter();
        all.find(|object| object["kind"] == "Transport").unwrap()
    }

    /// The manifest of the transport alone.
    pub fn telnet(&self) -> String {
        self.file("telnet.yaml", &self.transport().to_string())
    }

    /// The manifest of the transport with something more in its spec.
    pub fn edited(&self, more: &str) -> String {
        let mut transport = self.transport();
        let more: Value = serde_yaml::from_str(more).unwrap();
        for (key, value) in more.as_object().unwrap() {
            transport["spec"][key] = value.clone();
        }
        self.file("edited.yaml", &transport.to_string())
    }

    /// The example and the Secret of its broker.
    pub fn campaign(&self, broker: &str) {
        self.put(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "vumi-broker", "namespace": NAMESPACE},
            "stringData": {"connection_string": broker},
        }));
        for mut object in self.manifests() {
            if object["apiVersion"] == "vumi.dev/v1alpha1" {
                object["metadata"]["namespace"] = NAMESPACE.into();
                self.put(&object);
            }
        }
    }

    /// Starts an operator with the rights of an administrator, and waits until it has nothing left to do.
    pub async fn operator(&self) -> Running {
        let mut config = kube::Config::new(self.server.url().parse().unwrap());
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.auth_info = Default::default();
        config.auth_info.token = Some(self.server.token().to_owned().into());
        let metrics = Metrics::new();
        let counted = metrics.clone();
        let service = kube::client::ClientBuilder::try_from(config).unwrap();
        let service = service.with_layer(&tower_layer(counted));
        let options = Options {
            settings: Settings::default(),
            namespaces: Vec::new(),
            watch_secrets: false,
            concurrency: 4,
            lease: ("vumi-system".into(), "vumi-operator".into()),
            times: Times::default(),
            identity: "test".into(),
        };
        let operator = Operator::new(service.build(), options, metrics);
        let engine = operator.engine();
        let stop = CancellationToken::new();
        let running = Running {
            engine,
            task: tokio::spawn(operator.run(stop.clone())),
            stop,
        };
        let engine = &running.engine;
        self.until("the operator to have nothing to do", |_| {
            engine.api.gate().leads()
                && engine.stores.keys().len() == 2
                && engine.queue.is_idle(Duration::from_millis(200))
        });
        running
    }
}

/// What stands around the calls of an operator.
fn tower_layer<S>(metrics: Metrics) -> impl tower::Layer<S, Service = Bounded<S>> {
    tower::layer::layer_fn(move |inner| {
        Bounded::new(
            inner,
            Deadlines::of(Duration::from_secs(10)),
            metrics.clone(),
        )
    })
}

/// An operator that runs.
pub struct Running {
    engine: Arc<Engine>,
    task: JoinHandle<Result<(), String>>,
    stop: CancellationToken,
}

impl Running {
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
