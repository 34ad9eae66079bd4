//! The Deployment of a worker; a StatefulSet where its state store is a volume of its own (K1). Its pod template is kept as
//! it runs while nothing that concerns the worker has changed, whatever a newer operator would build (K12).

use super::{Cx, pods};
use crate::context::Live;
use crate::desired::Child;
use crate::hash::{self, hash};
use crate::merge;
use crate::names::{INPUT_HASH, RESTARTED, TEMPLATE_HASH, TYPE};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vumi_api::Resource;
use vumi_api::shared::UpdatePolicy;

/// A workload and what there is to know about its template.
pub struct Workload {
    /// The object.
    pub child: Child,
    /// Image of its pods.
    pub image: String,
    /// Whether another version of the runtime waits.
    pub update_available: bool,
}

/// Whether the state store is a volume of the worker's own.
pub fn has_volume(resource: &Resource) -> bool {
    resource
        .settings()
        .state
        .is_some_and(|state| state.volume.is_some())
}

/// A pod template that is settled.
struct Settled {
    template: Value,
    hash: String,
    image: String,
    update_available: bool,
}

/// The Deployment or StatefulSet.
pub fn workload(cx: &Cx<'_>, view_hash: &str, input_hash: &str) -> Workload {
    let settled = settle(cx, view_hash, input_hash);
    let mut object = match has_volume(cx.resource) {
        true => stateful_set(cx),
        false => deployment(cx),
    };
    object["metadata"]["annotations"] = json!({
        INPUT_HASH: input_hash,
        TEMPLATE_HASH: settled.hash,
    });
    // A template that is kept comes back with the defaults of the API server, and so do the claims, which never change: by
    // these alone the object must not look like another one.
    let mut told = object.clone();
    told["spec"]["template"] = Value::Null;
    told["spec"]["volumeClaimTemplates"] = Value::Null;
    let told = hash::without_owner(&told);
    object["spec"]["template"] = settled.template;
    Workload {
        child: Child::with_hash(object, told),
        image: settled.image,
        update_available: settled.update_available,
    }
}

/// Which template the pods get: the one they have, or a fresh one.
fn settle(cx: &Cx<'_>, view_hash: &str, input_hash: &str) -> Settled {
    let deployment = cx.resource.deployment();
    let fresh = |image: &str, restarted: Option<&str>| {
        let template = pods::template(cx, view_hash, image);
        let mut template = serde_json::to_value(template).unwrap_or_default();
        if let Some(changes) = &deployment.overrides {
            merge::overrides(&mut template, changes);
        }
        restart(&mut template, restarted);
        let hash = hash(&template);
        Settled {
            image: image_of(&template).unwrap_or_else(|| image.to_owned()),
            template,
            hash,
            update_available: false,
        }
    };
    let restarted = cx.context.restarted();
    let newest = fresh(&cx.settings.image, restarted);
    let Some(live) = &cx.context.live else {
        return newest;
    };
    let running = image_of(&live.template);
    match (deployment.update_policy, live.input_hash == input_hash) {
        (UpdatePolicy::Immediate, _) | (UpdatePolicy::OnChange, false) => newest,
        (UpdatePolicy::OnChange | UpdatePolicy::Manual, true) => {
            let asked = live.restarted.as_deref() != restarted;
            let as_it_runs = match asked {
                true => fresh(&cx.settings.image, live.restarted.as_deref()).hash,
                false => newest.hash.clone(),
            };
            let update_available = as_it_runs != live.template_hash;
            let mut template = live.template.clone();
            let hash = match (asked, update_available) {
                (true, false) => return newest,
                (false, _) => live.template_hash.clone(),
                // Who asks for new pods does not ask for another runtime.
                (true, true) => {
                    restart(&mut template, restarted);
                    hash(&json!([live.template_hash, restarted]))
                }
            };
            Settled {
                image: running.unwrap_or_default(),
                template,
                hash,
                update_available,
            }
        }
        (UpdatePolicy::Manual, false) => match running {
            Some(image) => Settled {
                update_available: image != newest.image,
                ..fresh(&image, restarted)
            },
            None => newest,
        },
    }
}

/// Pods of a template that says another time are other pods.
fn restart(template: &mut Value, at: Option<&str>) {
    if let Some(at) = at {
        template["metadata"]["annotations"][RESTARTED] = at.into();
    }
}

/// Image of the worker's container.
fn image_of(template: &Value) -> Option<String> {
    let containers = template["spec"]["containers"].as_array()?;
    let worker = containers.iter().find(|c| c["name"] == pods::CONTAINER)?;
    worker["image"].as_str().map(str::to_owned)
}

fn replicas(cx: &Cx<'_>) -> i32 {
    let settings = cx.resource.deployment();
    if settings.suspend {
        return 0;
    }
    let written = settings.replicas.unwrap_or(1);
    // Until the scaler has decided.
    let begins = match &settings.autoscaling {
        Some(bounds) => written.clamp(bounds.least(), bounds.most()),
        None => written,
    };
    cx.context.replicas.unwrap_or(begins).into()
}

fn deployment(cx: &Cx<'_>) -> Value {
    let deployment = Deployment {
        metadata: cx.names.metadata(cx.names.child()),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(cx)),
            selector: cx.names.selector(),
            strategy: Some(strategy(cx)),
            revision_history_limit: Some(3),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    serde_json::to_value(deployment).unwrap_or_default()
}

/// The new pod first, as a standby, then the old one goes (K4). Another worker type is another worker: the old one stops
/// before the new one starts, and this holds until that roll has finished (K25).
fn strategy(cx: &Cx<'_>) -> DeploymentStrategy {
    let own_type = cx.names.labels().remove(TYPE).unwrap_or_default();
    let other_type = |live: &Live| live.worker_type != own_type || live.recreating;
    if cx.context.live.as_ref().is_some_and(other_type) {
        return DeploymentStrategy {
            type_: Some("Recreate".into()),
            rolling_update: None,
        };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn stateful_set(cx: &Cx<'_>) -> Value {
    let set = StatefulSet {
        metadata: cx.names.metadata(cx.names.child()),
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas(cx).min(1)),
            selector: cx.names.selector(),
            service_name: Some(cx.names.child()),
            // By order, a pod that is not ready would never be replaced by the edit that mends it.
            pod_management_policy: Some("Parallel".into()),
            revision_history_limit: Some(3),
            volume_claim_templates: Some(vec![claim(cx)]),
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".into()),
                    when_scaled: Some("Retain".into()),
                },
            ),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    };
    let mut set = serde_json::to_value(set).unwrap_or_default();
    // They cannot be changed once they are there.
    let live = cx.context.live.as_ref().map(|live| &live.claims);
    if let Some(claims) = live.filter(|claims| claims.is_array()) {
        set["spec"]["volumeClaimTemplates"] = claims.clone();
    }
    set
}

fn claim(cx: &Cx<'_>) -> PersistentVolumeClaim {
    let volume = cx.resource.settings().state.and_then(|state| state.volume);
    let volume = volume.unwrap_or_default();
    let size = volume
        .size
        .map_or_else(|| "1Gi".to_owned(), |size| size.to_string());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(pods::STATE_VOLUME.into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: volume.storage_class_name,
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
