//! What a watch gives, and what is kept of it: metadata by hand, the rest as short JSON text, so that thousands of objects fit
//! into little memory.

use super::kinds::{ObjectKind, Part};
use super::ownership;
use super::store::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::core::ApiResource;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use vumi_plan::TEMPLATE_LABELS;
use vumi_plan::kept::config_maps;
use vumi_plan::names::{KIND, NAME};

/// An object as the API server gives it; of its metadata alone if `META`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Seen<const META: bool> {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl<const META: bool> kube::Resource for Seen<META> {
    type DynamicType = ApiResource;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn metadata_api() -> bool {
        META
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What is kept of an object.
#[derive(Debug, Default)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion, which counts upwards.
    pub version: u64,
    /// Its generation.
    pub generation: i64,
    /// When a resource was made: its `creationTimestamp`. None of other objects.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it is to be gone, if it is being deleted.
    pub ends: Option<Timestamp>,
    /// What holds it until it may go, if it is being deleted.
    pub finalizers: Vec<String>,
    /// The pod template that a pod was made from: the label of its controller, and what that says.
    pub template: Option<(&'static str, String)>,
    /// Uid of the object that controls it.
    pub owner: Option<String>,
    /// Its annotations that begin with `vumi.dev/`.
    pub annotations: BTreeMap<String, String>,
    /// ConfigMaps that its pods mount.
    pub config_maps: Vec<String>,
    /// `spec` and `status` as JSON, as far as somebody needs them.
    body: Option<Box<str>>,
    ownership: Mutex<Ownership>,
}

/// What is known of who holds our fields.
#[derive(Debug, Default)]
enum Ownership {
    /// Nothing of it is ours.
    #[default]
    None,
    /// Not looked at yet.
    Fields(Box<str>),
    /// All fields of the wanted object with this hash are ours.
    Complete(String),
}

impl Held {
    /// What an annotation says.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// What is kept of `spec` and `status`, as an object.
    pub fn body(&self) -> Value {
        let body = self.body.as_deref().unwrap_or("{}");
        serde_json::from_str(body).unwrap_or_default()
    }

    /// A workload or a pod as `vumi_plan` reads it.
    pub fn object(&self) -> Value {
        let mut object = self.body();
        object["metadata"] = json!({
            "name": self.name,
            "annotations": self.annotations,
            "generation": self.generation,
            "deletionTimestamp": self.ends.map(|at| at.to_string()),
        });
        if let Some((label, template)) = &self.template {
            object["metadata"]["labels"] = json!({*label: template});
        }
        object
    }

    /// The first field of the wanted object, whose hash that is, that somebody else holds. The answer is remembered, and what
    /// it was read from is thrown away.
    pub fn lost(&self, hash: &str, wanted: impl FnOnce() -> Value) -> Option<String> {
        let mut ownership = self
            .ownership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let lost = match &*ownership {
            Ownership::None => Some("metadata".to_owned()),
            Ownership::Complete(known) if known == hash => None,
            Ownership::Complete(_) => Some("all".to_owned()),
            Ownership::Fields(fields) => ownership::lost(&wanted(), fields),
        };
        if lost.is_none() {
            *ownership = Ownership::Complete(hash.to_owned());
        }
        lost
    }
}

/// To which resource an object belongs, and what is kept of it. None if it belongs to none.
pub fn hold<const META: bool>(kind: &ObjectKind, object: Seen<META>) -> Option<(Key, Held)> {
    let meta = object.metadata;
    let name = meta.name?;
    let labels = meta.labels.unwrap_or_default();
    let (of, owner_name) = match kind.part {
        Part::Resource(of) => (of, name.clone()),
        Part::Child | Part::Follower => {
            let of = labels.get(KIND)?;
            let of = vumi_api::Kind::ALL.into_iter().find(|k| k.as_str() == of)?;
            (of, labels.get(NAME)?.clone())
        }
    };
    let key = Key {
        kind: of,
        namespace: meta.namespace?,
        name: owner_name,
    };
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.retain(|name, _| name.starts_with("vumi.dev/"));
    let owners = meta.owner_references.unwrap_or_default();
    let controller = owners
        .into_iter()
        .find(|owner| owner.controller == Some(true));
    let raw = |raw: Option<Box<RawValue>>| {
        let text = raw.as_ref().map_or("null", |raw| raw.get());
        serde_json::from_str::<Value>(text).unwrap_or_default()
    };
    let (body, config_maps) = match kind.part {
        Part::Resource(_) => {
            let body = json!({"spec": raw(object.spec), "status": raw(object.status)});
            (Some(body), Vec::new())
        }
        Part::Child if kind.is_workload() => {
            let spec = raw(object.spec);
            let mounted = config_maps(&spec["template"]["spec"]);
            let body = json!({
                "spec": only(&spec, &["template", "replicas", "strategy", "volumeClaimTemplates"]),
                "status": raw(object.status),
            });
            (Some(body), mounted)
        }
        Part::Child => (None, Vec::new()),
        Part::Follower if kind.kind == "ReplicaSet" => {
            let spec = raw(object.spec);
            (None, config_maps(&spec["template"]["spec"]))
        }
        Part::Follower => {
            let body = json!({"status": pod_status(&raw(object.status))});
            (Some(body), config_maps(&raw(object.spec)))
        }
    };
    // Only children have fields that are ours.
    let fields = match kind.part {
        Part::Child => meta.managed_fields.as_deref().and_then(ownership::ours),
        _ => None,
    };
    let held = Held {
        name,
        uid: meta.uid.unwrap_or_default(),
        version: meta
            .resource_version
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
        generation: meta.generation.unwrap_or(0),
        created: match kind.part {
            Part::Resource(_) => meta.creation_timestamp.map(|time| time.0),
            _ => None,
        },
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: match meta.deletion_timestamp {
            Some(_) => meta.finalizers.unwrap_or_default(),
            None => Vec::new(),
        },
        ends: meta.deletion_timestamp.map(|time| time.0),
        template: TEMPLATE_LABELS
            .into_iter()
            .filter(|_| kind.kind == "Pod")
            .find_map(|label| Some((label, labels.get(label)?.clone()))),
        owner: controller.map(|owner| owner.uid),
        annotations,
        config_maps,
        body: body.map(|body| body.to_string().into_boxed_str()),
        ownership: Mutex::new(fields.map_or(Ownership::None, Ownership::Fields)),
    };
    Some((key, held))
}

/// Some fields of an object.
fn only(object: &Value, fields: &[&str]) -> Value {
    let mut kept = serde_json::Map::new();
    for field in fields {
        if let Some(value) = object.get(*field).filter(|value| !value.is_null()) {
            kept.insert((*field).to_owned(), value.clone());
        }
    }
    kept.into()
}

/// What says how a pod is.
fn pod_status(status: &Value) -> Value {
    let list = |value: &Value, fields: &[&str]| -> Value {
        let items = value.as_array().into_iter().flatten();
        items.map(|item| only(item, fields)).collect()
    };
    const CONTAINER: &[&str] = &["name", "image", "restartCount", "state", "lastState"];
    let mut kept = only(status, &["phase"]);
    let conditions = list(&status["conditions"], &["type", "status", "message"]);
    for (name, items) in [
        ("conditions", conditions),
        (
            "initContainerStatuses",
            list(&status["initContainerStatuses"], CONTAINER),
        ),
        (
            "containerStatuses",
            list(&status["containerStatuses"], CONTAINER),
        ),
    ] {
        if items.as_array().is_some_and(|items| !items.is_empty()) {
            kept[name] = items;
        }
    }
    kept
}
