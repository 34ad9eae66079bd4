//! The kinds of objects that a resource becomes: what the operator makes, watches and deletes when it is not wanted any more.

/// A kind of object that a resource may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildKind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// `kind`, as objects write it.
    pub kind: &'static str,
    /// As paths write it.
    pub plural: &'static str,
    /// Whether it runs pods.
    pub workload: bool,
    /// Whether there are clusters without it.
    pub optional: bool,
}

const fn child(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> ChildKind {
    ChildKind {
        group,
        version,
        kind,
        plural,
        workload: false,
        optional: false,
    }
}

const fn workload(kind: &'static str, plural: &'static str) -> ChildKind {
    ChildKind {
        workload: true,
        ..child("apps", "v1", kind, plural)
    }
}

const fn optional(kind: ChildKind) -> ChildKind {
    ChildKind {
        optional: true,
        ..kind
    }
}

/// All of them.
pub const CHILDREN: [ChildKind; 10] = [
    child("", "v1", "ServiceAccount", "serviceaccounts"),
    child("", "v1", "ConfigMap", "configmaps"),
    child("", "v1", "Service", "services"),
    child(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    child("networking.k8s.io", "v1", "Ingress", "ingresses"),
    child(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    workload("Deployment", "deployments"),
    workload("StatefulSet", "statefulsets"),
    optional(child(
        "gateway.networking.k8s.io",
        "v1",
        "HTTPRoute",
        "httproutes",
    )),
    optional(child(
        "monitoring.coreos.com",
        "v1",
        "PodMonitor",
        "podmonitors",
    )),
];

impl ChildKind {
    /// `apiVersion`, as objects write it.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}
