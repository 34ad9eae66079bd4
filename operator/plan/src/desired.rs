//! What is built: the objects, and what there is to say about them.

use crate::hash;
use crate::names::{HASH, SECRET_REVISION, SECRETS_HASH};
use serde::Serialize;
use serde_json::{Value, json};

/// One object as the operator applies it.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// `apiVersion`, as in `apps/v1`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// Hash of the object: equal means that nothing is to be done. It stands in its annotation [`HASH`] too.
    pub hash: String,
    /// The whole object as JSON.
    pub object: Value,
}

impl Child {
    /// An object that holds apiVersion and kind already.
    pub fn new(object: Value) -> Self {
        let hash = hash::without_owner(&object);
        Self::with_hash(object, hash)
    }

    /// An object of which only a part says whether it has changed.
    pub fn with_hash(mut object: Value, hash: String) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &mut object["metadata"];
        if metadata["annotations"].is_null() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][HASH] = hash.as_str().into();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            name: text(&object["metadata"]["name"]),
            hash,
            object,
        }
    }

    /// A typed object of Kubernetes.
    pub fn of<T: Serialize>(object: &T) -> Self {
        Self::new(serde_json::to_value(object).unwrap_or_default())
    }
}

/// All objects of one resource, in the order in which they are applied: what pods read before the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// The objects.
    pub children: Vec<Child>,
    /// Hash of everything that may replace the pods (K12).
    pub input_hash: String,
    /// Whether a fresh template would differ from the one that is kept: another version of the runtime waits.
    pub update_available: bool,
    /// Image of the pods.
    pub image: String,
    /// Where callers inside the cluster reach it: `transport-sms.default.svc:8080`.
    pub address: Option<String>,
    /// What callers outside of the cluster use.
    pub url: Option<String>,
    /// What cannot be had here, and what is left over and does not go.
    pub notes: Vec<Note>,
}

impl Desired {
    /// The Deployment or StatefulSet.
    pub fn workload(&self) -> Option<&Child> {
        let workloads = ["Deployment", "StatefulSet"];
        let mut children = self.children.iter();
        children.find(|child| workloads.contains(&child.kind.as_str()))
    }

    /// Of which revision of its Secrets its pods are to be told.
    pub fn secret_revision(&self) -> Option<&str> {
        let mut children = self.children.iter();
        children.find_map(|child| child.object["metadata"]["annotations"][SECRET_REVISION].as_str())
    }

    /// Whether its pods are replaced when a Secret changes, as they read it only when they start.
    pub fn starts_anew(&self) -> bool {
        self.workload().is_some_and(|child| {
            let template = &child.object["spec"]["template"];
            template["metadata"]["annotations"][SECRETS_HASH].is_string()
        })
    }

    /// Says it in these words instead: those of before, where not all pods could be told of the newest Secrets, or more than one word.
    pub fn keep_revision(&mut self, told: &str) {
        for child in &mut self.children {
            let revision = child.object.pointer_mut("/metadata/annotations");
            let revision = revision.and_then(|annotations| annotations.get_mut(SECRET_REVISION));
            if let Some(revision) = revision {
                *revision = told.into();
            }
        }
    }
}

/// Something that was asked for and that this cluster does not have, or that does not go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A word for conditions and events, such as `GatewayMissing`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}
