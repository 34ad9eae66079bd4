//! What was read about a resource's surroundings before anything is decided: the result of *dereference*. Plain facts, no
//! secret values.

use crate::names::{INPUT_HASH, RESTARTED, SECRETS_HASH, TEMPLATE_HASH, TYPE};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The surroundings of one resource.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Its namespace.
    pub namespace: String,
    /// Its `metadata.uid`, by which its children are owned. None offline.
    pub uid: Option<String>,
    /// The Secrets that it names, those that exist.
    pub secrets: BTreeMap<String, SecretFacts>,
    /// Its Deployment or StatefulSet as it runs. None for a new resource, and offline.
    pub live: Option<Live>,
    /// Of which revision of its Secrets its pods were told last: annotation [`crate::names::SECRET_REVISION`] of its ServiceAccount.
    pub secret_revision: Option<String>,
    /// How many pods there are to be where something else than `spec.replicas` decides: the scaler
    /// ([`crate::scaling::Decision::replicas`]), as many as there were where it was just removed, or a clash that is lost (none). `spec.suspend` goes before it.
    pub replicas: Option<u16>,
    /// When somebody asked for new pods last: annotation [`RESTARTED`] of the resource.
    pub restarted: Option<String>,
    /// What the cluster can do.
    pub platform: Platform,
}

impl Context {
    /// When somebody asked for new pods last. Whoever takes the annotation away asks for nothing: pods have the one that they
    /// were made with.
    pub fn restarted(&self) -> Option<&str> {
        let running = self
            .live
            .as_ref()
            .and_then(|live| live.restarted.as_deref());
        self.restarted.as_deref().or(running)
    }

    /// Whether it is known which revision each of its Secrets is.
    pub fn knows_revisions(&self) -> bool {
        let mut secrets = self.secrets.values();
        secrets.all(|facts| !facts.revision.is_empty())
    }
}

/// What is known of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Its keys, those with an empty value excepted.
    pub keys: BTreeSet<String>,
    /// Which version of its content it is; what is not content, such as a label, does not change it. Empty if not known.
    pub revision: String,
}

impl SecretFacts {
    /// Whether it holds a broker's address in parts.
    pub fn is_split(&self) -> bool {
        let parts = ["host", "username", "password"];
        parts.into_iter().all(|key| self.keys.contains(key))
    }
}

/// A workload as it runs.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Its annotation [`crate::names::INPUT_HASH`].
    pub input_hash: String,
    /// Its annotation [`crate::names::TEMPLATE_HASH`].
    pub template_hash: String,
    /// Worker type of its pods: label [`crate::names::TYPE`] of the template.
    pub worker_type: String,
    /// Its pod template, as it is: a newer API server has fields that no type here knows.
    pub template: Value,
    /// Its volume claim templates, which cannot be changed. Null for a Deployment.
    pub claims: Value,
    /// Annotation [`RESTARTED`] of its pod template.
    pub restarted: Option<String>,
    /// Whether old pods are still being stopped before new ones start: its strategy is `Recreate`, and its roll has not
    /// finished.
    pub recreating: bool,
}

impl Live {
    /// What a Deployment or StatefulSet says, as the API server gives it. None if it is no such object.
    pub fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let template = spec.get("template")?;
        let annotation = |name: &str| {
            let value = object["metadata"]["annotations"][name].as_str();
            value.unwrap_or_default().to_owned()
        };
        let own_type = template["metadata"]["labels"][TYPE].as_str();
        let status = &object["status"];
        let wanted = spec["replicas"].as_i64().unwrap_or(1);
        let number = |field: &str| status[field].as_i64().unwrap_or(0);
        let rolled = status["observedGeneration"] == object["metadata"]["generation"]
            && number("updatedReplicas") == wanted
            && number("replicas") == wanted;
        Some(Self {
            input_hash: annotation(INPUT_HASH),
            template_hash: annotation(TEMPLATE_HASH),
            worker_type: own_type.unwrap_or_default().to_owned(),
            restarted: template["metadata"]["annotations"][RESTARTED]
                .as_str()
                .map(str::to_owned),
            template: template.clone(),
            claims: spec["volumeClaimTemplates"].clone(),
            recreating: spec["strategy"]["type"] == "Recreate" && !rolled,
        })
    }

    /// What its pods have of their Secrets, as a hash: annotation [`SECRETS_HASH`] of its pod template.
    pub fn secrets_hash(&self) -> Option<&str> {
        self.template["metadata"]["annotations"][SECRETS_HASH].as_str()
    }

    /// The keys of a Secret that variables of its containers take.
    pub fn keys_of(&self, secret: &str) -> BTreeSet<String> {
        let containers = self.template["spec"]["containers"].as_array();
        let containers = containers.into_iter().flatten();
        let variables = containers.filter_map(|container| container["env"].as_array());
        let taken = variables
            .flatten()
            .map(|one| &one["valueFrom"]["secretKeyRef"]);
        taken
            .filter(|at| at["name"] == secret)
            .filter_map(|at| at["key"].as_str().map(str::to_owned))
            .collect()
    }
}

/// What the cluster can do beside what every cluster can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// It knows PodMonitors (`monitoring.coreos.com/v1`).
    pub pod_monitor: bool,
    /// It knows HTTPRoutes (`gateway.networking.k8s.io/v1`).
    pub http_route: bool,
}

impl Platform {
    /// Whether it has objects of this `kind`; of those that every cluster has, yes.
    pub fn has(self, kind: &str) -> bool {
        match kind {
            "HTTPRoute" => self.http_route,
            "PodMonitor" => self.pod_monitor,
            _ => true,
        }
    }

    /// It has objects of this `kind`, or not.
    pub fn set(&mut self, kind: &str, there: bool) {
        match kind {
            "HTTPRoute" => self.http_route = there,
            "PodMonitor" => self.pod_monitor = there,
            _ => debug_assert!(false, "every cluster has {kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::CHILDREN;

    #[test]
    fn what_a_cluster_may_lack_is_what_is_optional() {
        for child in CHILDREN {
            let mut platform = Platform::default();
            assert_eq!(platform.has(child.kind), !child.optional, "{child:?}");
            if child.optional {
                platform.set(child.kind, true);
                assert!(platform.has(child.kind), "{child:?}");
            }
        }
    }
}
