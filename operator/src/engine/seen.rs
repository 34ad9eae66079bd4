//! What a watch gives, and what is kept of it: metadata by hand, the rest packed, so that thousands of objects fit into little
//! memory.

use super::kinds::{ObjectKind, Part};
use super::ownership;
use super::packed::{Packed, Packer, Sort};
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
#[derive(Debug)]
pub struct Held {
    /// Its kind.
    pub kind: &'static ObjectKind,
    /// Its name.
    pub name: Box<str>,
    /// Its uid.
    pub uid: Box<str>,
    /// Its resourceVersion, which counts upwards.
    pub version: u64,
    /// Its generation.
    pub generation: i64,
    /// When a resource was made: its `creationTimestamp`. None of other objects.
    pub created: Option<Timestamp>,
    /// Its end, if it is being deleted.
    pub end: Option<Box<End>>,
    /// The pod template that a pod was made from: the label of its controller, and what that says.
    pub template: Option<Box<(&'static str, String)>>,
    /// Uid of the object that controls it.
    pub owner: Option<Box<str>>,
    /// ConfigMaps that its pods mount.
    pub config_maps: Box<[String]>,
    /// Its annotations that begin with `vumi.dev/`.
    annotations: Annotations,
    /// `spec` and `status` as JSON, as far as somebody needs them.
    body: Option<Packed>,
    ownership: Mutex<Ownership>,
}

/// How an object ends.
#[derive(Debug)]
pub struct End {
    /// When it is to be gone.
    pub at: Timestamp,
    /// What holds it until it may go.
    pub finalizers: Vec<String>,
}

/// Names and values, by name. Most objects have one or none, for which a map is far too large.
type Annotations = Box<[(Box<str>, Box<str>)]>;

/// What is known of who holds our fields.
#[derive(Debug)]
enum Ownership {
    /// Nothing of it is ours.
    None,
    /// Not looked at yet: our fields, as JSON.
    Fields(Packed),
    /// All fields of the wanted object are ours, whose hash the object has in its annotations.
    Complete,
}

impl Held {
    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.end.is_some()
    }

    /// What an annotation says.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let mut known = self.annotations.iter();
        known.find_map(|(of, value)| (**of == *name).then_some(&**value))
    }

    /// Whether it has the same annotations as another one.
    pub fn is_annotated_like(&self, other: &Self) -> bool {
        self.annotations == other.annotations
    }

    /// What is kept of `spec` and `status`, as an object.
    pub fn body(&self) -> Value {
        let body = self.body.as_ref().map(Packed::text);
        serde_json::from_str(body.as_deref().unwrap_or("{}")).unwrap_or_default()
    }

    /// A workload or a pod as `vumi_plan` reads it.
    pub fn object(&self) -> Value {
        let annotations = self.annotations.iter();
        let annotations: BTreeMap<&str, &str> = annotations.map(|(k, v)| (&**k, &**v)).collect();
        let mut object = self.body();
        object["metadata"] = json!({
            "name": self.name,
            "annotations": annotations,
            "generation": self.generation,
            "deletionTimestamp": self.end.as_ref().map(|end| end.at.to_string()),
        });
        if let Some((label, template)) = self.template.as_deref() {
            object["metadata"]["labels"] = json!({*label: template});
        }
        object
    }

    /// The first field of the wanted object, whose hash its annotations have, that somebody else holds. The answer is remembered,
    /// and what it was read from is thrown away.
    pub fn lost(&self, wanted: impl FnOnce() -> Value) -> Option<String> {
        let mut ownership = self
            .ownership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let lost = match &*ownership {
            Ownership::None => Some("metadata".to_owned()),
            Ownership::Complete => None,
            Ownership::Fields(fields) => ownership::lost(&wanted(), &fields.text()),
        };
        if lost.is_none() {
            *ownership = Ownership::Complete;
        }
        lost
    }
}

/// To which resource an object belongs. None if it belongs to none.
pub fn belongs(kind: &ObjectKind, meta: &ObjectMeta) -> Option<Key> {
    let labels = meta.labels.as_ref();
    let (of, name) = match kind.part {
        Part::Resource(of) => (of, meta.name.clone()?),
        Part::Child | Part::Follower => {
            let of = labels?.get(KIND)?;
            let of = vumi_api::Kind::ALL.into_iter().find(|k| k.as_str() == of)?;
            (of, labels?.get(NAME)?.clone())
        }
    };
    Some(Key {
        kind: of,
        namespace: meta.namespace.clone()?,
        name,
    })
}

/// To which resource an object belongs, and what is kept of it. None if it belongs to none.
pub fn hold<const META: bool>(
    kind: &'static ObjectKind,
    object: Seen<META>,
    packer: &Packer,
) -> Option<(Key, Held)> {
    let meta = object.metadata;
    let key = belongs(kind, &meta)?;
    let name = meta.name?;
    let labels = meta.labels.unwrap_or_default();
    let annotations = meta.annotations.unwrap_or_default().into_iter();
    let annotations = annotations.filter(|(name, _)| name.starts_with("vumi.dev/"));
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
        kind,
        name: name.into(),
        uid: meta.uid.unwrap_or_default().into(),
        version: meta
            .resource_version
            .and_then(|v| v.parse().ok())
            .unwrap_or(0),
        generation: meta.generation.unwrap_or(0),
        created: match kind.part {
            Part::Resource(_) => meta.creation_timestamp.map(|time| time.0),
            _ => None,
        },
        end: meta.deletion_timestamp.map(|time| {
            Box::new(End {
                at: time.0,
                finalizers: meta.finalizers.unwrap_or_default(),
            })
        }),
        template: TEMPLATE_LABELS
            .into_iter()
            .filter(|_| kind.kind == "Pod")
            .find_map(|label| Some(Box::new((label, labels.get(label)?.clone())))),
        owner: controller.map(|owner| owner.uid.into()),
        annotations: annotations
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        config_maps: config_maps.into(),
        body: body.map(|body| packer.pack(Sort::Body(kind.kind), &body.to_string())),
        ownership: Mutex::new(fields.map_or(Ownership::None, |fields| {
            Ownership::Fields(packer.pack(Sort::Fields(kind.kind), &fields))
        })),
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
