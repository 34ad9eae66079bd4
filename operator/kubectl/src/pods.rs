//! The pods of a resource.

use crate::cluster::{Cluster, objects};
use crate::named::Named;
use serde_json::Value;
use vumi_cli::error::CliError;

/// Name of the worker's container.
pub const CONTAINER: &str = "worker";

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Whether its containers run, or have run.
    pub begun: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being stopped.
    pub leaving: bool,
}

impl Pod {
    fn of(object: &Value) -> Self {
        let conditions = object["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let states = object["status"]["containerStatuses"].as_array();
        let begun = |state: &Value| state["state"].get("waiting").is_none();
        Self {
            name: object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            begun: states.into_iter().flatten().any(begun),
            ready: conditions.any(|c| c["type"] == "Ready" && c["status"] == "True"),
            leaving: object["metadata"]["deletionTimestamp"].is_string(),
        }
    }
}

/// The pods of a resource, sorted by name.
///
/// # Errors
/// They cannot be listed.
pub async fn of(cluster: &Cluster, named: &Named) -> Result<Vec<Pod>, CliError> {
    let path = objects("v1", "Pod", &cluster.namespace);
    let found = cluster.list(&path, &named.selector()).await?;
    let mut pods: Vec<Pod> = found.iter().map(Pod::of).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

/// One that works, to ask it something.
///
/// # Errors
/// There is none, and why that may be.
pub async fn one(cluster: &Cluster, named: &Named) -> Result<Pod, CliError> {
    let pods = of(cluster, named).await?;
    let mut there = pods.iter().filter(|pod| pod.begun && !pod.leaving);
    let ready = there.clone().find(|pod| pod.ready);
    if let Some(pod) = ready.or_else(|| there.next()) {
        return Ok(pod.clone());
    }
    // A name that is not there is another mistake than a worker without pods.
    named.get(cluster).await?;
    Err(CliError::environment(format!(
        "{named} has no pod that runs; `kubectl vumi status {named}` says why"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_pod_says_of_itself() {
        let pod = Pod::of(&json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-11-26T12:00:00Z"},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"state": {"running": {}}}],
            },
        }));
        assert!(pod.begun && pod.ready && pod.leaving);
        let waiting = json!({"status": {"containerStatuses": [{"state": {"waiting": {}}}]}});
        assert!(!Pod::of(&waiting).begun);
        assert!(!Pod::of(&json!({})).begun);
    }
}
