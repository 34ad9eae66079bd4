//! A real Kubernetes API server on a real etcd, without nodes: what custom resource definitions and manifests meet
//! first on a cluster. Requests go through `curl`.

use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the server may take to get ready.
const READY: Duration = Duration::from_secs(90);
/// Any token does: the server lives as long as one test and listens on the loopback address only.
const TOKEN: &str = "test-admin";

/// Why there is no API server.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// A program is not installed.
    #[error("{0} is not there; run scripts/setup test")]
    Missing(String),
    /// It was there, and did not work.
    #[error("{0}")]
    Failed(String),
}

fn failed(what: &str, error: impl std::fmt::Display) -> KubernetesError {
    KubernetesError::Failed(format!("{what}: {error}"))
}

/// A child process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to tell a test that is over; a process that has ended already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API server and its etcd, both stopped when this is dropped.
pub struct ApiServer {
    // In this order: the server first, its store after it, the files last.
    server: Process,
    etcd: Process,
    folder: TempDir,
    port: u16,
}

impl ApiServer {
    /// Starts both and waits until the server is ready.
    pub fn start() -> Result<Self, KubernetesError> {
        let binary = kube_apiserver()?;
        let mut last = None;
        // A free port may be taken by another test before the process binds it: begin again with others.
        for _ in 0..3 {
            match Self::try_start(&binary) {
                Ok(server) => return Ok(server),
                Err(KubernetesError::Failed(reason)) => last = Some(reason),
                Err(missing) => return Err(missing),
            }
        }
        Err(KubernetesError::Failed(last.unwrap_or_default()))
    }

    fn try_start(binary: &Path) -> Result<Self, KubernetesError> {
        let folder = tempfile::tempdir().map_err(|e| failed("temporary folder", e))?;
        let at = |name: &str| folder.path().join(name);
        let [client, peer, port] = free_ports()?;
        let store = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let etcd = spawn(
            Command::new("etcd")
                .arg("--data-dir")
                .arg(at("etcd"))
                .args(["--listen-client-urls", &store])
                .args(["--advertise-client-urls", &store])
                .args(["--listen-peer-urls", &peers])
                .args(["--initial-advertise-peer-urls", &peers])
                .args(["--initial-cluster", &format!("default={peers}")])
                .arg("--unsafe-no-fsync"),
            "etcd",
            &at("etcd.log"),
        )?;
        service_account_key(&at("account.key"))?;
        let tokens = format!("{TOKEN},admin,admin,system:masters\n");
        std::fs::write(at("tokens.csv"), tokens).map_err(|e| failed("token file", e))?;
        let server = spawn(
            Command::new(binary)
                .args(["--etcd-servers", &store])
                .args(["--bind-address", "127.0.0.1"])
                .args(["--secure-port", &port.to_string()])
                .arg("--cert-dir")
                .arg(at("certificates"))
                .arg("--token-auth-file")
                .arg(at("tokens.csv"))
                .arg("--service-account-key-file")
                .arg(at("account.key"))
                .arg("--service-account-signing-key-file")
                .arg(at("account.key"))
                .args(["--service-account-issuer", "https://127.0.0.1"])
                .args(["--authorization-mode", "RBAC"])
                // Without a controller manager, no namespace ever gets its default account.
                .args(["--disable-admission-plugins", "ServiceAccount"])
                .args(["--service-cluster-ip-range", "10.0.0.0/16"]),
            "kube-apiserver",
            &at("kube-apiserver.log"),
        )?;
        let mut this = Self {
            server,
            etcd,
            folder,
            port,
        };
        this.wait_ready()?;
        Ok(this)
    }

    fn wait_ready(&mut self) -> Result<(), KubernetesError> {
        let deadline = Instant::now() + READY;
        loop {
            if let Ok((200, _)) = self.request("GET", "/readyz", None) {
                return Ok(());
            }
            let server = self.server.0.try_wait().ok().flatten();
            let etcd = self.etcd.0.try_wait().ok().flatten();
            if let Some(status) = server.or(etcd) {
                let logs = self.logs();
                return Err(failed("ended early", format!("{status}; {logs}")));
            }
            if Instant::now() > deadline {
                return Err(failed("not ready in time", self.logs()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Where it listens, on this machine, with a certificate of its own making.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The token of somebody who may do everything.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// A kubeconfig for whoever takes one, with this namespace.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{
                "name": "test",
                "cluster": {"server": self.url(), "insecure-skip-tls-verify": true},
            }],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{
                "name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": namespace},
            }],
        })
        .to_string()
    }

    /// The last lines of both logs.
    fn logs(&self) -> String {
        ["etcd.log", "kube-apiserver.log"]
            .map(|name| {
                let text = std::fs::read_to_string(self.folder.path().join(name));
                let text = text.unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(5).collect();
                let lines: Vec<&str> = lines.into_iter().rev().collect();
                format!("{name}:\n{}", lines.join("\n"))
            })
            .join("\n")
    }

    /// Sends a request; `body` is its media type and text. Returns the status and the JSON answer (null if there is none).
    pub fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &str)>,
    ) -> Result<(u16, Value), KubernetesError> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--insecure", "--max-time", "60"])
            .args(["--request", method])
            .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
            .args(["--write-out", "\n%{http_code}"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some((media_type, _)) = body {
            curl.args(["--header", &format!("Content-Type: {media_type}")])
                .args(["--data-binary", "@-"]);
        }
        curl.arg(format!("{}{path}", self.url()));
        let mut child = curl.spawn().map_err(|error| missing("curl", &error))?;
        if let Some(mut stdin) = child.stdin.take()
            && let Some((_, text)) = body
        {
            let written = stdin.write_all(text.as_bytes());
            written.map_err(|e| failed("request body", e))?;
        }
        let output = child.wait_with_output().map_err(|e| failed("curl", e))?;
        if !output.status.success() {
            return Err(failed("curl", String::from_utf8_lossy(&output.stderr)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (answer, status) = text.rsplit_once('\n').unwrap_or(("", &text));
        let status = status.parse().map_err(|e| failed("status", e))?;
        Ok((status, serde_json::from_str(answer).unwrap_or(Value::Null)))
    }

    /// Server-side apply of one YAML document with strict validation of fields, as `kubectl apply --server-side`.
    pub fn apply(&self, path: &str, document: &str) -> Result<(u16, Value), KubernetesError> {
        self.patch(path, "test", "&force=true", document)
    }

    /// The same where objects of its kind are: in the namespace that it names, else in none.
    pub fn apply_object(&self, object: &Value) -> Result<(u16, Value), KubernetesError> {
        self.apply_as(object, "test", "&force=true")
    }

    /// The same as this manager of fields; `more` stands in the query, as in `&force=true`, without which nothing is taken
    /// from another.
    pub fn apply_as(
        &self,
        object: &Value,
        manager: &str,
        more: &str,
    ) -> Result<(u16, Value), KubernetesError> {
        self.patch(&place(object), manager, more, &object.to_string())
    }

    fn patch(
        &self,
        path: &str,
        manager: &str,
        more: &str,
        document: &str,
    ) -> Result<(u16, Value), KubernetesError> {
        let path = format!("{path}?fieldManager={manager}&fieldValidation=Strict{more}");
        let body = ("application/apply-patch+yaml", document);
        self.request("PATCH", &path, Some(body))
    }

    /// Applies a custom resource definition and waits until its resources are served.
    pub fn establish(&self, definition: &Value) -> Result<(), KubernetesError> {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let (status, answer) = self.apply(&path, &definition.to_string())?;
        if status >= 300 {
            return Err(failed(name, format!("{status} {}", answer["message"])));
        }
        let wanted = json!("True");
        let deadline = Instant::now() + READY;
        loop {
            let (_, answer) = self.request("GET", &path, None)?;
            let conditions = answer["status"]["conditions"].as_array();
            let established = conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Established" && c["status"] == wanted);
            if established {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(failed(name, format!("not established: {answer}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The path of an object, in the namespace that it names, else in none. Plurals follow the rule by which Kubernetes guesses them.
pub fn place(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let api_version = text(&object["apiVersion"]);
    let kind = text(&object["kind"]).to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let root = if api_version.contains('/') {
        "apis"
    } else {
        "api"
    };
    let name = text(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("/{root}/{api_version}/{plural}/{name}"),
    }
}

/// The binary that `scripts/kubernetes` built, if it did.
fn kube_apiserver() -> Result<PathBuf, KubernetesError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kubernetes");
    let output = Command::new(&script)
        .args(["path", "kube-apiserver"])
        .output()
        .map_err(|e| failed("scripts/kubernetes", e))?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    match path.is_file() {
        true => Ok(path),
        false => Err(KubernetesError::Missing("kube-apiserver".into())),
    }
}

fn missing(program: &str, error: &std::io::Error) -> KubernetesError {
    match error.kind() {
        std::io::ErrorKind::NotFound => KubernetesError::Missing(program.into()),
        _ => failed(program, error),
    }
}

fn spawn(command: &mut Command, name: &str, log: &Path) -> Result<Process, KubernetesError> {
    let out = std::fs::File::create(log).map_err(|e| failed("log file", e))?;
    let err = out.try_clone().map_err(|e| failed("log file", e))?;
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map(Process)
        .map_err(|error| missing(name, &error))
}

/// A key for service account tokens; nothing here asks for one, but the server does not start without.
fn service_account_key(path: &Path) -> Result<(), KubernetesError> {
    let output = Command::new("openssl")
        .args([
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
        ])
        .arg(path)
        .output()
        .map_err(|error| missing("openssl", &error))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed("openssl", String::from_utf8_lossy(&output.stderr))),
    }
}

fn free_ports() -> Result<[u16; 3], KubernetesError> {
    let port = || crate::free_port().map_err(|e| failed("free port", e));
    Ok([port()?, port()?, port()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_their_kind_is() {
        let object = |api_version: &str, kind: &str, namespace: Option<&str>| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "namespace": namespace}});
        for (object, path) in [
            (object("v1", "Namespace", None), "/api/v1/namespaces/a"),
            (
                object("networking.k8s.io/v1", "Ingress", Some("n")),
                "/apis/networking.k8s.io/v1/namespaces/n/ingresses/a",
            ),
            (
                object("networking.k8s.io/v1", "NetworkPolicy", Some("n")),
                "/apis/networking.k8s.io/v1/namespaces/n/networkpolicies/a",
            ),
        ] {
            assert_eq!(place(&object), path);
        }
    }
}
