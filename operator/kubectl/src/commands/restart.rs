//! `kubectl vumi restart`: new pods for a worker, by an annotation of its resource that the operator passes on to its pods. What
//! is written into a Deployment by hand is taken back or forgotten; this is not.

use crate::cluster::{Cluster, Connection, objects};
use crate::named::{Named, read};
use crate::pods::{self, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vumi_api::{Duration, Status};
use vumi_cli::error::CliError;
use vumi_cli::output;
use vumi_plan::Names;
use vumi_plan::names::RESTARTED;

/// Arguments of `kubectl vumi restart`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi restart transport/sms
  kubectl vumi restart application/echo application/menu --wait

Writes the annotation vumi.dev/restarted-at of the resource (right: patch; to wait, list pods as well). The operator replaces its pods
as after an edit: the new pod first, as a standby, then the old one goes; with state.volume the old one goes first, since both cannot
have the volume. Pods keep the version of the runtime that they have.
Exit codes: 0 asked for, or done with --wait · 1 not done within --timeout · 2 it must not be written now · 3 there is no such resource, or it cannot be written.")]
pub struct Arguments {
    /// The workers: transport/NAME, application/NAME, …
    #[arg(value_name = "KIND/NAME", required = true)]
    pub workers: Vec<Named>,
    /// Wait until the new pods are ready and the old ones gone
    #[arg(long)]
    pub wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub timeout: Duration,
}

/// Asks for new pods, and waits for them.
///
/// # Errors
/// A resource cannot be written, or the pods do not come.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    super::writable(&cluster, &arguments.workers).await?;
    let now = Timestamp::now();
    let now = format!("{now:.0}");
    let change = json!({"metadata": {"annotations": {RESTARTED: now}}});
    for worker in &arguments.workers {
        let path = worker.path(&cluster.namespace);
        let object = cluster.merge(&path, &change).await?;
        let suspended = read(worker.kind, &object)?.deployment().suspend;
        let note = match (suspended, Status::of(&object).replicas) {
            (true, _) => " has no pods: it is suspended",
            (false, 0) => " has no pods now",
            (false, _) => ": its pods are being replaced",
        };
        output::print(&format!("{worker}{note}\n"))?;
    }
    if !arguments.wait {
        return Ok(());
    }
    for worker in &arguments.workers {
        super::until(arguments.timeout.0, async || {
            rolled(&cluster, worker, &now).await
        })
        .await?;
        output::print(&format!("{worker}: done\n"))?;
    }
    Ok(())
}

/// What is still missing until the pods are those that were asked for.
async fn rolled(cluster: &Cluster, worker: &Named, at: &str) -> Result<Option<String>, CliError> {
    let resource = read(worker.kind, &worker.get(cluster).await?)?;
    let child = Names::new(&resource, &cluster.namespace, None).child();
    for kind in ["Deployment", "StatefulSet"] {
        let path = objects("apps/v1", kind, &cluster.namespace);
        if let Some(workload) = cluster.get(&format!("{path}/{child}")).await? {
            let pods = pods::of(cluster, worker).await?;
            return Ok(missing(&workload, &pods, at).map(|what| format!("{worker}: {what}")));
        }
    }
    Ok(Some(format!("{worker} has no Deployment or StatefulSet")))
}

/// What is still missing of a workload with these pods.
fn missing(workload: &Value, pods: &[Pod], at: &str) -> Option<String> {
    let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
    if annotations[RESTARTED] != at {
        return Some(
            "the operator has not passed it on yet; `kubectl vumi doctor` says whether it runs"
                .into(),
        );
    }
    let status = &workload["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or(0);
    let wanted = workload["spec"]["replicas"].as_u64().unwrap_or(1);
    if status["observedGeneration"] != workload["metadata"]["generation"] {
        return Some("Kubernetes has not taken it up yet".into());
    }
    let (new, ready) = (number("updatedReplicas"), number("readyReplicas"));
    // A Deployment counts no pod that is on its way out: that one still has messages in hand.
    let all = number("replicas").max(pods.len() as u64);
    let done = new >= wanted && ready >= wanted && all <= wanted;
    (!done).then(|| format!("{new} of {wanted} pods are new, {ready} are ready, {all} are there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_all_pods_are_new_and_ready_and_the_old_ones_gone() {
        let mut workload = json!({
            "metadata": {"generation": 3},
            "spec": {"replicas": 2, "template": {"metadata": {"annotations": {RESTARTED: "old"}}}},
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2},
        });
        let pod = |leaving| {
            let end = if leaving {
                json!("2026-11-26T12:00:00Z")
            } else {
                Value::Null
            };
            Pod::of(&json!({"metadata": {"name": "p", "deletionTimestamp": end}})).unwrap()
        };
        let mut pods = vec![pod(false), pod(false)];
        assert!(missing(&workload, &pods, "noon").is_some());
        workload["spec"]["template"]["metadata"]["annotations"][RESTARTED] = "noon".into();
        assert_eq!(missing(&workload, &pods, "noon"), None);
        // The Deployment does not count it any more, and it works on.
        pods.push(pod(true));
        let said = missing(&workload, &pods, "noon").unwrap();
        assert_eq!(said, "2 of 2 pods are new, 2 are ready, 3 are there");
        pods.pop();
        workload["status"]["replicas"] = 3.into();
        let said = missing(&workload, &pods, "noon").unwrap();
        assert!(said.contains("3 are there"), "{said}");
        workload["status"]["observedGeneration"] = 2.into();
        let said = missing(&workload, &pods, "noon").unwrap();
        assert!(said.contains("not taken it up"), "{said}");
    }
}
