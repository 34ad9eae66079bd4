//! The pods of a resource.

use crate::cluster::{Cluster, objects};
use crate::named::Named;
use serde_json::Value;
use vumi_cli::error::CliError;

/// Name of the worker's container.
pub const CONTAINER: &str = "worker";

/// A pod that has not ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// `metadata.uid`: the next one of a StatefulSet has the same name.
    pub uid: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being stopped.
    pub leaving: bool,
    /// Whether its worker runs now.
    pub running: bool,
    /// Whether its worker runs, or has run.
    pub begun: bool,
    /// Whether there is a log of the run before: its worker ended, and was or will be started again.
    pub previous: bool,
    /// How often its worker was started again.
    pub restarts: u64,
}

impl Pod {
    /// What a Pod says of itself; none of one that has ended for good.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let seen = vumi_plan::Pod::of(object)?;
        let states = object["status"]["containerStatuses"].as_array();
        let mut states = states.into_iter().flatten();
        let worker = states.find(|state| state["name"] == CONTAINER);
        let worker = worker.unwrap_or(&Value::Null);
        let state = |name: &str| worker["state"][name].is_object();
        let restarts = worker["restartCount"].as_u64().unwrap_or(0);
        // What the kubelet goes by.
        let previous = worker["lastState"]["terminated"].is_object();
        Some(Self {
            name: seen.name,
            uid: object["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            ready: seen.ready,
            leaving: seen.ending,
            running: state("running"),
            begun: state("running") || state("terminated") || previous || restarts > 0,
            previous,
            restarts,
        })
    }
}

/// The pods of a resource, sorted by name.
///
/// # Errors
/// They cannot be listed.
pub async fn of(cluster: &Cluster, named: &Named) -> Result<Vec<Pod>, CliError> {
    let path = objects("v1", "Pod", &cluster.namespace);
    let found = cluster.list(&path, &named.selector()).await?;
    let mut pods: Vec<Pod> = found.iter().filter_map(Pod::of).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(pods)
}

/// One that works, to ask it something.
///
/// # Errors
/// There is none, and why that may be.
pub async fn one(cluster: &Cluster, named: &Named) -> Result<Pod, CliError> {
    let pods = of(cluster, named).await?;
    let mut there = pods.iter().filter(|pod| pod.running && !pod.leaving);
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
        let pod = |phase: &str, container: Value| {
            Pod::of(&json!({
                "metadata": {"name": "p", "uid": "u"},
                "status": {"phase": phase, "containerStatuses": [container]},
            }))
        };
        let runs = pod(
            "Running",
            json!({
                "name": "worker", "restartCount": 2,
                "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}},
            }),
        );
        let runs = runs.unwrap();
        assert!(runs.running && runs.begun && runs.previous && runs.restarts == 2);
        let first =
            json!({"name": "worker", "restartCount": 0, "state": {"running": {}}, "lastState": {}});
        assert!(!pod("Running", first).unwrap().previous);
        // Between two starts there is a log of the last one, and nothing can be run in it.
        let waits = pod(
            "Running",
            json!({"name": "worker", "restartCount": 2, "state": {"waiting": {}}}),
        );
        let waits = waits.unwrap();
        assert!(!waits.running && waits.begun);
        // Nor is it counted as started again before it is.
        let ended = json!({"name": "worker", "restartCount": 0, "state": {"waiting": {}}, "lastState": {"terminated": {}}});
        let ended = pod("Running", ended).unwrap();
        assert!(ended.begun && ended.previous);
        let other = json!({"name": "sidecar", "state": {"running": {}}});
        assert!(!pod("Running", other).unwrap().begun);
        // One that was evicted stands there and is none.
        let evicted = json!({"name": "worker", "state": {"terminated": {}}});
        assert_eq!(pod("Failed", evicted), None);
    }
}
