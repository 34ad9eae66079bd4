//! What the tests on a cluster share: `kubectl`, a namespace of one's own, waiting, and brokers in pods. The cluster is
//! the one of `KUBECONFIG` if that is set, else the one that `make cluster-up` started.

mod faults;
mod load;
mod metrics;
mod operator;
mod process;
mod resources;
mod turns;

pub use faults::{answers, freeze, kill_containers, kill_part, own_cluster, secret_file, thaw};
pub use load::Reply;
pub use metrics::Metrics;
pub use operator::{Operator, documents};
pub use process::Conversation;
pub use resources::Pod;
pub use turns::{Alone, Turn, alone, beside_others};

use process::run;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Between two questions of one who waits: each is a program of its own, and the processor is for the cluster.
const PAUSE: Duration = Duration::from_millis(400);
/// Whoever waits longer is told what for, again and again.
const SILENCE: Duration = Duration::from_secs(30);

/// The top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs `kubectl`, with this text as its standard input.
///
/// # Panics
/// If it cannot be started.
pub fn kubectl(arguments: &[&str], input: &str) -> Output {
    run("kubectl", arguments, input)
}

/// What `kubectl` printed.
///
/// # Panics
/// With what it said if it failed.
#[track_caller]
pub fn succeed(arguments: &[&str], input: &str) -> String {
    let output = kubectl(arguments, input);
    assert!(
        output.status.success(),
        "kubectl {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks again until there is an answer.
///
/// # Panics
/// With the last reason why there was none, after so many seconds.
#[track_caller]
pub fn wait_for<T>(what: &str, seconds: u64, ask: impl FnMut() -> Result<T, String>) -> T {
    ask_until(what, seconds, ask)
        .unwrap_or_else(|reason| panic!("{what}: not within {seconds} s; {reason}"))
}

/// The answer, or the last reason why there was none within so many seconds.
fn ask_until<T>(
    what: &str,
    seconds: u64,
    mut ask: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let begun = Instant::now();
    let mut told = begun;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(reason) if begun.elapsed() > Duration::from_secs(seconds) => return Err(reason),
            Err(_) => std::thread::sleep(PAUSE),
        }
        if told.elapsed() > SILENCE {
            told = Instant::now();
            let waited = begun.elapsed().as_secs();
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            // Straight to the terminal: the test harness would keep it until the test ends.
            let mut terminal = std::io::stderr().lock();
            let _ = writeln!(terminal, "{test}: {what}: {waited} of {seconds} s");
        }
    }
}

/// The name of one of our images (`vumi:e2e`): in the registry of `VUMI_E2E_IMAGES`, or as built here.
pub fn image(name: &str) -> String {
    let registry = std::env::var("VUMI_E2E_IMAGES").unwrap_or_else(|_| "localhost".into());
    format!("{}/{name}", registry.trim_end_matches('/'))
}

/// A file of this source tree.
///
/// # Panics
/// If it cannot be read.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Applies the custom resource definitions, and waits until they serve.
pub fn definitions() {
    let folder = root().join("deploy/crds");
    let folder = folder.to_string_lossy();
    // Several tests may do so at once: what is equal conflicts with nobody.
    succeed(&["apply", "--server-side", "-f", &folder], "");
    let established = ["wait", "--for=condition=Established", "--timeout=60s"];
    succeed(&[established.as_slice(), &["-f", &folder]].concat(), "");
}

/// A version of RabbitMQ that there is an image of.
#[derive(Clone, Copy)]
pub enum RabbitMq {
    /// 3.10, as older installations of Vumi have it.
    V3_10,
    /// 4.0.
    V4_0,
}

/// A namespace of one test, in which only pods of the `restricted` standard may run. It is deleted when this is dropped,
/// unless the test failed and `VUMI_E2E_KEEP` is set.
pub struct Namespace {
    /// Its name, new in each run.
    pub name: String,
    _turn: Turn,
}

impl Namespace {
    /// Creates one whose name begins so.
    pub fn create(prefix: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let turn = beside_others();
        let process = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{process}-{number}");
        succeed(&["create", "namespace", &name], "");
        let label = "pod-security.kubernetes.io/enforce=restricted";
        succeed(&["label", "namespace", &name, label], "");
        Self { name, _turn: turn }
    }

    /// `kubectl` in this namespace.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        kubectl(&self.within(arguments), input)
    }

    /// `kubectl vumi` in this namespace.
    pub fn vumi(&self, arguments: &[&str]) -> Output {
        run("kubectl-vumi", &self.within(arguments), "")
    }

    /// `kubectl vumi` in this namespace, line by line while it runs.
    pub fn follow(&self, arguments: &[&str]) -> Conversation {
        Conversation::start("kubectl-vumi", &self.within(arguments))
    }

    /// What `kubectl` printed in this namespace; panics if it failed.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str], input: &str) -> String {
        succeed(&self.within(arguments), input)
    }

    fn within<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        all
    }

    /// Applies manifests on the server's side, with the images of this run.
    pub fn apply(&self, manifests: &str) {
        let manifests = manifests.replace("localhost/", &image(""));
        let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
        self.succeed(&apply, &manifests);
    }

    /// Starts a RabbitMQ, without waiting for it, as Service `rabbitmq` and Secret `vumi-broker`.
    pub fn rabbitmq(&self, version: RabbitMq) {
        let manifests = file("tests/e2e/manifests/rabbitmq.yaml");
        self.apply(&match version {
            RabbitMq::V4_0 => manifests,
            RabbitMq::V3_10 => manifests.replace("rabbitmq:4.0", "rabbitmq:3.10"),
        });
    }

    /// Starts a Redis, without waiting for it, as Service `redis` and Secret `vumi-redis`.
    pub fn redis(&self) {
        self.apply(&file("tests/e2e/manifests/redis.yaml"));
    }

    /// Starts a pod with a shell and small programs, from which `exec` reaches what only the cluster reaches.
    pub fn client(&self) {
        self.apply(&file("tests/e2e/manifests/client.yaml"));
        self.ready("pod/client", 60);
    }

    /// What a shell command printed in the pod `client`, or why it failed.
    pub fn in_client(&self, command: &str) -> Result<String, String> {
        let output = self.kubectl(&["exec", "client", "--", "sh", "-c", command], "");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(said(&output.stdout)),
            false => Err(said(&output.stderr) + &said(&output.stdout)),
        }
    }

    /// Connects the pod `client` to a port.
    pub fn connect(&self, host: &str, port: u16) -> Conversation {
        let port = port.to_string();
        let nc = ["exec", "-i", "client", "--", "nc", host, &port];
        Conversation::start("kubectl", &self.within(&nc))
    }

    /// Waits until a pod or the pods of a Deployment are ready.
    ///
    /// # Panics
    /// With the state and the logs of all pods here if they are not within so many seconds.
    #[track_caller]
    pub fn ready(&self, what: &str, seconds: u64) {
        let timeout = format!("--timeout={seconds}s");
        let output = match what.starts_with("pod/") {
            true => self.kubectl(&["wait", "--for=condition=Ready", what, &timeout], ""),
            false => self.kubectl(&["rollout", "status", what, &timeout], ""),
        };
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).into_owned();
            panic!("{what} is not ready: {reason}{}", self.situation());
        }
    }

    /// Asks again until there is an answer.
    ///
    /// # Panics
    /// With the last reason why there was none and what happened here, after so many seconds.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        seconds: u64,
        ask: impl FnMut() -> Result<T, String>,
    ) -> T {
        ask_until(what, seconds, ask).unwrap_or_else(|reason| {
            let situation = self.situation();
            panic!("{what}: not within {seconds} s; {reason}\n{situation}")
        })
    }

    /// Pods, events and ends of logs, for a message about a failure.
    fn situation(&self) -> String {
        let said = |arguments: &[&str]| {
            let output = self.kubectl(arguments, "");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let pods = said(&["get", "pods", "--output", "wide"]);
        let events = said(&["events"]);
        let logs: String = said(&["get", "pods", "--output", "name"])
            .lines()
            .map(|pod| {
                let log = said(&["logs", "--tail=15", "--all-containers", pod]);
                format!("{pod}:\n{log}\n")
            })
            .collect();
        format!("{pods}\n{events}\n{logs}")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("VUMI_E2E_KEEP").is_some() {
            eprintln!("namespace {} is kept", self.name);
            return;
        }
        let _ = kubectl(&["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

/// An object as the API server gives it.
///
/// # Panics
/// If it is not there.
pub fn get(arguments: &[&str]) -> Value {
    let mut all = vec!["get", "--output", "json"];
    all.extend(arguments);
    let text = succeed(&all, "");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("kubectl get: {e}: {text}"))
}
