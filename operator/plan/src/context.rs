//! What was read about a resource's surroundings before anything is decided: the result of *dereference*. Plain facts, no
//! secret values.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
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
    /// What the cluster can do.
    pub platform: Platform,
}

/// What is known of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Its keys, those with an empty value excepted.
    pub keys: BTreeSet<String>,
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
    /// Its pod template.
    pub template: PodTemplateSpec,
    /// Its volume claim templates, which cannot be changed. Empty for a Deployment.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Whether old pods are still being stopped before new ones start: its strategy is `Recreate`, and its roll has not
    /// finished.
    pub recreating: bool,
}

/// What the cluster can do beside what every cluster can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// It knows PodMonitors (`monitoring.coreos.com/v1`).
    pub pod_monitor: bool,
    /// It knows HTTPRoutes (`gateway.networking.k8s.io/v1`).
    pub http_route: bool,
}
