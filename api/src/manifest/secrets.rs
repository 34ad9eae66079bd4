//! Secrets that workers of one process need and that are not at hand.

use super::finding::{Finding, SECRET_MISSING, Severity};
use super::{LoadedResource, Manifests, Target};
use crate::names::nearest;
use serde_json::Value;

/// How a Secret comes into one process.
const WAYS: &str = "put a `kind: Secret` document beside the manifests, or give --secrets DIR";

/// Secret values that a worker needs in one process.
pub(super) fn missing_values(manifests: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for worker in &manifests.resources {
        let search = Search {
            manifests,
            worker,
            severity: Severity::Error,
            ways: WAYS.to_owned(),
        };
        let mut references = Vec::new();
        secret_references(&worker.document()["spec"], String::new(), &mut references);
        for (path, name, key) in references {
            let fields = [format!("{path}.name"), format!("{path}.key")];
            findings.extend(search.key(&name, &key, [&fields[0], &fields[1]]));
        }
    }
    findings
}

/// Secrets of brokers that manifests for one process name: missing, or without what makes an address. They count unless
/// the command line names another broker for all workers, which only the caller knows; so the severity is theirs.
pub fn broker_findings(manifests: &Manifests, severity: Severity) -> Vec<Finding> {
    let mut findings = Vec::new();
    if manifests.target == Target::Cluster {
        return findings;
    }
    for worker in &manifests.resources {
        let Some(broker) = worker.resource.settings().broker else {
            continue;
        };
        let search = Search {
            manifests,
            worker,
            severity,
            ways: format!("{WAYS}, or give --broker URL to `vumi run`"),
        };
        let path = "broker.secretRef.name";
        findings.extend(search.address(&broker.secret_ref.name, path));
        if let Some(ca) = broker.tls.and_then(|tls| tls.ca_secret_ref) {
            let path = "broker.tls.caSecretRef.name";
            findings.extend(search.key(&ca.name, "ca.crt", [path, path]));
        }
    }
    findings
}

/// Secrets of state stores that manifests for one process name, as [`broker_findings`].
pub fn state_findings(manifests: &Manifests, severity: Severity) -> Vec<Finding> {
    let mut findings = Vec::new();
    if manifests.target == Target::Cluster {
        return findings;
    }
    for worker in &manifests.resources {
        let Some(redis) = worker.resource.settings().state.and_then(|s| s.redis) else {
            continue;
        };
        let search = Search {
            manifests,
            worker,
            severity,
            ways: format!("{WAYS}, or give --redis URL to `vumi run`"),
        };
        let path = "state.redis.secretRef.name";
        findings.extend(search.redis(&redis.secret_ref.name, path));
        if let Some(ca) = redis.tls.and_then(|tls| tls.ca_secret_ref) {
            let path = "state.redis.tls.caSecretRef.name";
            findings.extend(search.key(&ca.name, "ca.crt", [path, path]));
        }
    }
    findings
}

/// A look for one worker's Secrets.
struct Search<'m> {
    manifests: &'m Manifests,
    worker: &'m LoadedResource,
    severity: Severity,
    ways: String,
}

impl Search<'_> {
    /// What is wrong if there is no such Secret or no such key in it; `paths` are the fields that name the two.
    fn key(&self, name: &str, key: &str, paths: [&str; 2]) -> Option<Finding> {
        let secrets = &self.manifests.secrets;
        let (path, message, near) = match secrets.get(name) {
            Some(keys) if keys.get(key).is_some_and(|value| value.trim().is_empty()) => {
                let message = format!("Secret {name:?} has nothing in its key {key:?}");
                let help = "write a value into it: what is empty protects nothing";
                return Some(self.finding(paths[1], message, Some(help.into())));
            }
            Some(keys) if keys.contains_key(key) => return None,
            Some(keys) => (
                paths[1],
                format!("Secret {name:?} has no key {key:?}"),
                nearest(key, keys.keys().map(String::as_str)),
            ),
            None => (
                paths[0],
                format!("there is no Secret {name:?}"),
                nearest(name, secrets.keys().map(String::as_str)),
            ),
        };
        let help = match near {
            Some(near) => format!("did you mean {near}?"),
            None => self.ways.clone(),
        };
        Some(self.finding(path, message, Some(help)))
    }

    fn value(&self, name: &str, key: &str) -> Option<&str> {
        let value = self.manifests.secrets.get(name)?.get(key)?;
        Some(value.trim())
    }

    /// What is wrong with a broker's Secret: it needs `connection_string`, or `host`, `username` and `password`.
    fn address(&self, name: &str, path: &str) -> Option<Finding> {
        if let Some(url) = self.value(name, "connection_string") {
            let form = "amqp://user:password@host:port/vhost";
            return self.url(name, path, url, ["amqp://", "amqps://"], form);
        }
        if self.manifests.secrets.contains_key(name) && self.value(name, "host").is_none() {
            let message = format!("Secret {name:?} has neither connection_string nor host");
            return Some(self.finding(path, message, None));
        }
        let missing = ["host", "username", "password"]
            .into_iter()
            .find_map(|key| self.key(name, key, [path, path]));
        missing.or_else(|| self.port(name, path))
    }

    /// What is wrong with a Redis's Secret: it needs `connection_string`, or `host`, or `sentinels` and `masterName`.
    fn redis(&self, name: &str, path: &str) -> Option<Finding> {
        if let Some(url) = self.value(name, "connection_string") {
            let form = "redis://user:password@host:port/db";
            return self.url(name, path, url, ["redis://", "rediss://"], form);
        }
        if self.value(name, "sentinels").is_some() {
            return self.key(name, "masterName", [path, path]);
        }
        if self.manifests.secrets.contains_key(name) && self.value(name, "host").is_none() {
            let message = format!("Secret {name:?} has none of connection_string, host, sentinels");
            return Some(self.finding(path, message, None));
        }
        let missing = self.key(name, "host", [path, path]);
        missing.or_else(|| self.port(name, path))
    }

    fn url(
        &self,
        name: &str,
        path: &str,
        url: &str,
        schemes: [&str; 2],
        form: &str,
    ) -> Option<Finding> {
        let known = schemes.iter().any(|scheme| url.starts_with(scheme));
        let message =
            format!("Secret {name:?}, key \"connection_string\" is not of the form {form}");
        (!known).then(|| self.finding(path, message, None))
    }

    fn port(&self, name: &str, path: &str) -> Option<Finding> {
        let bad = self.value(name, "port")?.parse::<u16>().is_err();
        let message = format!("Secret {name:?}, key \"port\" is not a port number");
        bad.then(|| self.finding(path, message, None))
    }

    fn finding(&self, path: &str, message: String, help: Option<String>) -> Finding {
        let finding = self
            .worker
            .finding(self.severity, SECRET_MISSING, path, message);
        Finding { help, ..finding }
    }
}

fn secret_references(value: &Value, path: String, into: &mut Vec<(String, String, String)>) {
    match value {
        Value::Object(fields) => {
            // What overrides name is of pods, and one process has none.
            for (field, below) in fields.iter().filter(|(field, _)| *field != "overrides") {
                let path = if path.is_empty() {
                    field.clone()
                } else {
                    format!("{path}.{field}")
                };
                if field == "secretKeyRef"
                    && let (Some(name), Some(key)) = (below["name"].as_str(), below["key"].as_str())
                {
                    into.push((path, name.to_owned(), key.to_owned()));
                } else {
                    secret_references(below, path, into);
                }
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                secret_references(below, format!("{path}[{index}]"), into);
            }
        }
        _ => {}
    }
}
