//! What it is: a program of your own, in any language, in a container: an existing Vumi worker, or a new one that keeps to the
//! wire protocol (`docs/wire-protocol.md`). On a cluster the operator runs it as it runs ours.
//!
//! Statuses: those that the program reports itself.
//!
//! Limits: what our workers do by themselves (middleware, retries, order, the journal, the ledger) is the program's own affair, and
//! the settings for it are refused. `vumi run` starts no containers: start the program beside it.
//!
//! ## What the container is given
//!
//! | Where | What |
//! |---|---|
//! | `/etc/vumi/config.yaml` | `config`, and `transport_name` unless `config` has one |
//! | `VUMI_BROKER_HOST`, `_PORT`, `_USERNAME`, `_PASSWORD`, `_VHOST` | the broker, where its Secret has `host`, `username` and `password`. `$(VUMI_BROKER_HOST)` in `args` is replaced |
//! | `VUMI_BROKER_URL` | the broker, where its Secret has `connection_string` and `spec.broker.vhost` is not set: it would lead to the Secret's virtual host. Beside `spec.broker.vhost` the Secret must have the parts above |
//! | `VUMI_TRANSPORT_NAME` | the connector |
//! | `/etc/vumi/secrets/<secret>/<key>` | each Secret that the resource names |
//! | `/tmp` | the only folder to which it can write, at most 1 GiB: a pod that writes more is evicted |
//!
//! It runs as the user of its image, who must not be root and must be a number there.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::OrderingMode;
use crate::shared::secret::SecretKeyRef;
use crate::shared::shapes::{EnvName, FreeObject, ListenPort, PATH_PATTERN, PortName, Words};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A program of your own in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Custom {
    /// Image of the container.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Program and first arguments, in place of the image's own. Default: that of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Words>")]
    pub command: Option<Vec<String>>,
    /// Arguments. Default: those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Words>")]
    pub args: Option<Vec<String>>,
    /// Variables of the environment beside those that every container is given. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub env: Option<Vec<EnvVar>>,
    /// What is written into `/etc/vumi/config.yaml`. Default: the connector's name alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FreeObject>")]
    pub config: Option<Map<String, Value>>,
    /// Ports on which it listens: a Service leads to them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub ports: Option<Vec<CustomPort>>,
    /// How it is known whether it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<Probes>,
    /// What happens when a Secret that it reads changes. Default `restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Reload>,
}

/// A variable of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "has(self.value) != has(self.secretKeyRef)",
        "message": "give value or secretKeyRef",
    }),
    json!({
        "rule": "!self.name.startsWith('VUMI_BROKER_')",
        "message": "the broker is given by spec.broker",
        "fieldPath": ".name",
    }),
]))]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(with = "EnvName")]
    pub name: String,
    /// Its value, for what is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where its value is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// A port on which the program listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomPort {
    /// Name of the port: `http`, or one that begins with `http-`, for HTTP.
    #[schemars(with = "PortName")]
    pub name: String,
    /// The port; 1024 or higher, and not 9464.
    #[schemars(with = "ListenPort")]
    pub port: u16,
}

/// How it is known whether the program works. Without a readiness probe it counts as ready once the broker sees it consume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probes {
    /// Ready to work: until then no old pod is stopped and no caller is led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Alive: it is restarted after a minute without success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

/// A question to the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// Port that is asked; it need not be among `ports`.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path that answers 200 to a GET over HTTP. Default: none; a connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub path: Option<String>,
}

/// What happens when a Secret that the program reads changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reload {
    /// Its pods are replaced one after the other.
    #[default]
    Restart,
    /// It reads the files again by itself; no variable holds a secret.
    Files,
}

impl WorkerConfig for Custom {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "custom";
    const ORDERING: OrderingMode = OrderingMode::None;
    const HONOURS: &'static [&'static str] = &["service"];
    const CONTAINER: bool = true;

    fn pick(resource: &Resource) -> Option<&Self> {
        let of_transport = resource.transport().and_then(|t| t.custom.as_ref());
        of_transport.or_else(|| resource.application().and_then(|a| a.custom.as_ref()))
    }

    fn topology(&self, resource: &Resource) -> Topology {
        let name = resource.transport_name();
        let mut topology = match resource.kind() {
            Kind::Transport => Topology::transport(name),
            _ => Topology::application(name),
        };
        let ports = self.ports.iter().flatten();
        topology.listens = ports
            .map(|port| ("0.0.0.0".to_owned(), port.port))
            .collect();
        topology
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut refuse = |path: String, sentence: &str| findings.push((path, sentence.to_owned()));
        let env = self.env.as_deref().unwrap_or_default();
        for (n, variable) in env.iter().enumerate() {
            if env[..n].iter().any(|other| other.name == variable.name) {
                refuse(
                    format!("custom.env[{n}].name"),
                    "this variable stands here twice",
                );
            }
            if variable.secret_key_ref.is_some() && self.reload == Some(Reload::Files) {
                let sentence = "a variable keeps its value until the pod is replaced: leave reload out, or read the file";
                refuse(format!("custom.env[{n}].secretKeyRef"), sentence);
            }
        }
        let ports = self.ports.as_deref().unwrap_or_default();
        for (n, port) in ports.iter().enumerate() {
            let twice = |other: &CustomPort| other.name == port.name || other.port == port.port;
            if ports[..n].iter().any(twice) {
                refuse(
                    format!("custom.ports[{n}]"),
                    "this name or port stands here twice",
                );
            }
        }
        let service = resource.deployment().service.unwrap_or_default();
        if service.port.is_some() && ports.len() > 1 {
            refuse(
                "service.port".into(),
                "there are several ports, and one number for all of them",
            );
        }
        findings
    }
}
