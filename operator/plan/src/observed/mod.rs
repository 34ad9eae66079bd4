//! What the operator saw of a resource, as plain facts: its workload and pods, what its worker says of itself, what the broker
//! says. Read from JSON as it comes, pruned or not.

mod broker;
mod pods;
mod reports;

pub use broker::{Broker, Queue, Totals, Unread};
pub use pods::{Pod, Problem, TEMPLATE_LABELS};
pub use reports::{Identity, Level, Report};

use crate::names::TEMPLATE_HASH;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use vumi_api::Resource;

/// A resource and what goes on around it, before anything is made of that.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// Its pods.
    pub pods: &'a [Pod],
    /// The last reports of workers; those of others are passed over.
    pub reports: &'a [Report],
    /// Readings of its broker.
    pub broker: &'a Broker,
    /// The time.
    pub now: Timestamp,
}

/// A Deployment or StatefulSet as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Pods that there are to be.
    pub wanted: u32,
    /// Pods that there are, old ones included.
    pub total: u32,
    /// Pods of the newest template.
    pub updated: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Whether its controller has seen its newest generation.
    pub current: bool,
    /// Hash of its pod template: annotation [`TEMPLATE_HASH`].
    pub template_hash: String,
    /// Why the API server makes no pods, in its words.
    pub refused: Option<String>,
    /// Whether a roll has made no progress for as long as its deadline says.
    pub late: bool,
}

impl Workload {
    /// What a Deployment or StatefulSet says, as the API server gives it.
    pub fn of(object: &Value) -> Self {
        let status = &object["status"];
        let number = |field: &str| {
            let number = status[field].as_u64().unwrap_or(0);
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        let condition = |kind: &str| {
            let mut all = status["conditions"].as_array().into_iter().flatten();
            all.find(|condition| condition["type"] == kind)
        };
        let refused = condition("ReplicaFailure").filter(|c| c["status"] == "True");
        let progressing = condition("Progressing");
        let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
        let hash = object["metadata"]["annotations"][TEMPLATE_HASH].as_str();
        Self {
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            total: number("replicas"),
            updated: number("updatedReplicas"),
            ready: number("readyReplicas"),
            current: status["observedGeneration"] == object["metadata"]["generation"],
            template_hash: hash.unwrap_or_default().to_owned(),
            refused: refused.map(|c| c["message"].as_str().unwrap_or_default().to_owned()),
            late: progressing.is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded"),
        }
    }
}
