//! Names, labels and annotations of children (K17). Labels that select pods never change: kind and name only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use vumi_api::crds::API_VERSION;
use vumi_api::{Kind, Resource};

/// Label: the kind of the resource. Selects pods.
pub const KIND: &str = "vumi.dev/kind";
/// Label: the name of the resource. Selects pods.
pub const NAME: &str = "vumi.dev/name";
/// Label: the worker type.
pub const TYPE: &str = "vumi.dev/type";
/// Annotation of every child: the hash of the object as it is wanted.
pub const HASH: &str = "vumi.dev/hash";
/// Annotation of a workload: the hash of everything that may replace its pods (K12).
pub const INPUT_HASH: &str = "vumi.dev/input-hash";
/// Annotation of a workload: the hash of its pod template.
pub const TEMPLATE_HASH: &str = "vumi.dev/template-hash";
/// Annotation of a ServiceAccount, and of pods: which revisions their Secrets had when pods were told of them last. Pods are touched
/// with it so that their files follow within a second (K9). Never part of a template, nor of a workload, whose generation would count it.
/// Where pods are replaced instead, the ServiceAccount has resourceVersion and revision of each Secret, for whoever leads next.
pub const SECRET_REVISION: &str = "vumi.dev/secret-revision";
/// Annotation of a template: the hash of the Secrets of a program that is started anew when one changes.
pub const SECRETS_HASH: &str = "vumi.dev/secrets-hash";
/// Annotation of a resource, and of the templates of its pods: when somebody asked for new pods last. Another value, other
/// pods.
pub const RESTARTED: &str = "vumi.dev/restarted-at";
/// Annotation of a resource: while it says `true`, nothing of the resource is touched.
pub const PAUSED: &str = "vumi.dev/pause-reconciliation";
/// What `app.kubernetes.io/managed-by` says.
pub const MANAGER: &str = "vumi-operator";

/// The names of one resource's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    kind: Kind,
    name: String,
    worker_type: &'static str,
    namespace: String,
    uid: Option<String>,
}

impl Names {
    /// The names of the children of `resource`.
    pub fn new(resource: &Resource, namespace: &str, uid: Option<&str>) -> Self {
        Self {
            kind: resource.kind(),
            name: resource.name.clone(),
            worker_type: resource.worker_type().map_or("", |worker| worker.key),
            namespace: namespace.to_owned(),
            uid: uid.map(str::to_owned),
        }
    }

    /// Name of every child of which there is one: `transport-smpp-za`. At most 52 characters, begins with a letter, no dots.
    pub fn child(&self) -> String {
        let prefix = match self.kind {
            Kind::Transport => "transport",
            Kind::Application => "application",
            Kind::Dispatcher => "dispatcher",
            Kind::MetricAggregator => "metrics",
        };
        format!("{prefix}-{}", self.name)
    }

    /// Name of a ConfigMap: at most 63 characters.
    pub fn config_map(&self, hash: &str) -> String {
        format!("{}-{hash}", self.child())
    }

    /// The labels by which pods are found.
    pub fn selector_labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (KIND.to_owned(), self.kind.as_str().to_owned()),
            (NAME.to_owned(), self.name.clone()),
        ])
    }

    /// The selector of pods.
    pub fn selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some(self.selector_labels()),
            ..LabelSelector::default()
        }
    }

    /// The labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector_labels();
        for (key, value) in [
            (TYPE, self.worker_type),
            ("app.kubernetes.io/name", "vumi"),
            ("app.kubernetes.io/instance", &self.child()),
            (
                "app.kubernetes.io/component",
                &self.kind.as_str().to_lowercase(),
            ),
            ("app.kubernetes.io/managed-by", MANAGER),
        ] {
            labels.insert(key.to_owned(), value.to_owned());
        }
        labels
    }

    /// Metadata of a child, with its owner where that is known.
    pub fn metadata(&self, name: String) -> ObjectMeta {
        let owner = |uid: &String| {
            vec![OwnerReference {
                api_version: API_VERSION.to_owned(),
                kind: self.kind.as_str().to_owned(),
                name: self.name.clone(),
                uid: uid.clone(),
                controller: Some(true),
                // True would need rights on finalizers, and nothing waits for children (K30).
                block_owner_deletion: Some(false),
            }]
        };
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: self.uid.as_ref().map(owner),
            ..ObjectMeta::default()
        }
    }

    /// Namespace of the resource and all its children.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}
