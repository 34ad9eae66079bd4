//! Which Secrets a worker reads, and which of their keys: a pure fact drawn from its manifest. The operator mounts no others.

use crate::resource::Resource;
use crate::shared::BrokerRef;
use crate::shared::state::DEFAULT_STATE_SECRET;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of a broker's Secret that workers read.
pub const BROKER_KEYS: &[&str] = &[
    "connection_string",
    "host",
    "port",
    "username",
    "password",
    "vhost",
];

/// Keys of a Redis's Secret that workers read.
pub const REDIS_KEYS: &[&str] = &[
    "connection_string",
    "host",
    "port",
    "username",
    "password",
    "db",
    "sentinels",
    "masterName",
    "sentinelUsername",
    "sentinelPassword",
];

/// One Secret that a worker reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretUse {
    /// Keys that are read; others are none of its business.
    pub keys: BTreeSet<String>,
    /// Those of them without which the worker cannot start.
    pub needed: BTreeSet<String>,
    /// Whether it holds the address of the broker.
    pub broker: bool,
    /// Whether it holds the address of the state store, as the manifest says.
    pub redis: bool,
}

impl Resource {
    /// The broker that it uses on a cluster.
    pub fn broker(&self) -> BrokerRef {
        self.settings().broker.unwrap_or_else(BrokerRef::usual)
    }

    /// The Secrets that it reads on a cluster, by name. The Secret of the default state store is among them where the
    /// manifest names none: it is used if it is there.
    pub fn secrets(&self) -> BTreeMap<String, SecretUse> {
        let mut uses = Uses::default();
        uses.of(&self.spec.to_json());
        let broker = uses.add(&self.broker().secret_ref.name, BROKER_KEYS, false);
        broker.broker = true;
        match self.settings().state {
            None if self.in_container() => {}
            None => {
                uses.add(DEFAULT_STATE_SECRET, REDIS_KEYS, false);
            }
            Some(state) => {
                if let Some(redis) = state.redis {
                    uses.add(&redis.secret_ref.name, REDIS_KEYS, false).redis = true;
                }
            }
        }
        uses.0
    }
}

#[derive(Default)]
struct Uses(BTreeMap<String, SecretUse>);

impl Uses {
    fn add(&mut self, name: &str, keys: &[&str], needed: bool) -> &mut SecretUse {
        let used = self.0.entry(name.to_owned()).or_default();
        for key in keys {
            used.keys.insert((*key).to_owned());
            if needed {
                used.needed.insert((*key).to_owned());
            }
        }
        used
    }

    /// References at any depth. What `overrides` names is mounted by whoever wrote it.
    fn of(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (field, below) in fields.iter().filter(|(field, _)| *field != "overrides") {
                    let name = below["name"].as_str();
                    match (field.as_str(), name, below["key"].as_str()) {
                        ("secretKeyRef", Some(name), Some(key)) => {
                            self.add(name, &[key], true);
                        }
                        ("caSecretRef", Some(name), _) => {
                            self.add(name, &["ca.crt"], true);
                        }
                        ("certificateSecretRef", Some(name), _) => {
                            self.add(name, &["tls.crt", "tls.key"], true);
                        }
                        _ => self.of(below),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.of(item)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Target;
    use crate::manifest::load;

    #[test]
    fn every_reference_is_found_with_its_keys() {
        let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  httpApi: {}\n  http: {port: 8080, auth: {username: u, password: {secretKeyRef: {name: partner, key: password}}}}\n  broker: {secretRef: {name: rabbit}, tls: {caSecretRef: {name: rabbit}}}\n  overrides: {spec: {containers: [{name: worker, env: [{name: A, valueFrom: {secretKeyRef: {name: other, key: k}}}]}]}}\n";
        let read = load(&[("t.yaml", text)], Target::Cluster);
        assert_eq!(read.findings, []);
        let secrets = read.resources[0].resource.secrets();
        let names: Vec<&String> = secrets.keys().collect();
        assert_eq!(names, ["partner", "rabbit", "vumi-redis"]);
        assert_eq!(
            secrets["partner"].needed,
            ["password".to_owned()].into_iter().collect()
        );
        assert!(secrets["rabbit"].broker && secrets["rabbit"].needed.contains("ca.crt"));
        assert!(secrets["rabbit"].keys.contains("connection_string"));
        assert!(!secrets["vumi-redis"].redis && secrets["vumi-redis"].needed.is_empty());
    }
}
