//! The commands, one module each: `Arguments` are what the user writes, `run` does it.

pub mod diff;
pub mod doctor;
pub mod drain;
pub mod logs;
pub mod man;
pub mod purge;
pub mod restart;
pub mod status;
pub mod tap;

use crate::cluster::{Cluster, resources};
use crate::named::{Named, read};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use vumi_api::crds::lacking;
use vumi_api::manifest::{Manifests, load};
use vumi_api::{Kind, Severity, Target};
use vumi_cli::error::CliError;
use vumi_cli::files;
use vumi_cli::output;
use vumi_cli::table::ago;
use vumi_plan::names::PAUSED;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// Names that are shown of many.
const NAMED: usize = 5;

/// These resources, as the cluster has them; if none are named, all of a namespace or of every one, of all kinds.
async fn chosen(
    cluster: &Cluster,
    namespace: Option<&str>,
    named: &[Named],
) -> Result<Vec<(Kind, Value)>, CliError> {
    let mut found = Vec::new();
    if named.is_empty() {
        for kind in Kind::ALL {
            let all = cluster.list(&resources(kind, namespace), "").await?;
            found.extend(all.into_iter().map(|object| (kind, object)));
        }
        return Ok(found);
    }
    for one in named {
        found.push((one.kind, one.get(cluster).await?));
    }
    Ok(found)
}

/// Whether all of these may be written to; asked before any of them is. Definitions that are older than what somebody wrote make the API
/// server leave out what they do not know, and the least write makes that loss last.
async fn writable(cluster: &Cluster, workers: &[Named]) -> Result<(), CliError> {
    let document = cluster.definitions().await?;
    if let Some(what) = document.as_ref().and_then(lacking) {
        return Err(CliError::validation(format!(
            "the definitions (CRDs) are older than this program ({}): they lack {what}, and a write would destroy what they do not know; kubectl apply --server-side -f deploy/crds first",
            env!("CARGO_PKG_VERSION")
        )));
    }
    for worker in workers {
        untouched(worker, &worker.get(cluster).await?)?;
    }
    Ok(())
}

/// Refuses what must not be written to.
fn untouched(worker: &Named, object: &Value) -> Result<(), CliError> {
    if worker.kind.worker_types().is_empty() {
        let kind = worker.kind;
        return Err(CliError::validation(format!(
            "{worker}: no worker of this version runs a {kind}, so that there is nothing to restart or drain"
        )));
    }
    if read(worker.kind, object)?.worker_type().is_none() {
        return Err(CliError::validation(format!(
            "{worker} has no worker type: the definitions (CRDs) that are installed do not know the one it was given, and a write would destroy what is stored of it; upgrade the CRDs first"
        )));
    }
    if object["metadata"]["annotations"][PAUSED] == "true" {
        return Err(CliError::validation(format!(
            "the operator leaves {worker} alone while the annotation {PAUSED} says true; remove that first"
        )));
    }
    Ok(())
}

/// The manifests of files, if they are valid.
fn manifests(paths: &[PathBuf]) -> Result<Manifests, CliError> {
    let manifests = load(&files::read(paths)?, Target::Cluster);
    let errors = manifests.findings.iter();
    let errors: Vec<String> = errors
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("\n  {finding}"))
        .collect();
    match errors.is_empty() {
        true => Ok(manifests),
        false => Err(CliError::validation(format!(
            "the manifests are not valid:{}",
            errors.concat()
        ))),
    }
}

/// For how long something has been so, to be put behind it; nothing where nobody knows since when.
fn lasting(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or(String::new(), |since| {
        let seconds = now.as_second().saturating_sub(since.as_second());
        format!(" for {}", ago(u64::try_from(seconds).unwrap_or(0)))
    })
}

/// Of a resource that is being deleted, for how long it is, and what holds it. Nobody writes its status any more.
fn leaving(object: &Value, now: Timestamp) -> Option<(String, String)> {
    let metadata = &object["metadata"];
    let since = metadata["deletionTimestamp"].as_str()?;
    let held = metadata["finalizers"].as_array().into_iter().flatten();
    let held: Vec<&str> = held.filter_map(Value::as_str).collect();
    Some((lasting(since.parse().ok(), now), held.join(", ")))
}

/// Looks again and again until something holds; `look` says what is still missing, which is told when it changes.
async fn until(
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<String>, CliError>,
) -> Result<(), CliError> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut told = String::new();
    loop {
        let Some(missing) = look().await? else {
            return Ok(());
        };
        if tokio::time::Instant::now() >= deadline {
            return Err(CliError::runtime(format!(
                "not within {}: {missing}",
                vumi_api::Duration(timeout)
            )));
        }
        if told != missing {
            output::note(&format!("waiting: {missing}"));
            told = missing;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The first of many.
fn some(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_write_would_destroy_or_nobody_would_see_is_not_written() {
        let worker: Named = "transport/sms".parse().unwrap();
        let refused = |object: Value| {
            let refused = untouched(&worker, &object);
            refused.err().map(|error| error.text).unwrap_or_default()
        };
        let telnet = json!({"telnet": {"port": 2323}});
        let paused = json!({"annotations": {PAUSED: "true"}});
        assert_eq!(refused(json!({"metadata": {}, "spec": telnet})), "");
        assert!(refused(json!({"metadata": {}, "spec": {}})).contains("no worker type"));
        let said = refused(json!({"metadata": paused, "spec": telnet}));
        assert!(said.contains("leaves transport/sms alone"), "{said}");
        let reserved: Named = "metricaggregator/m".parse().unwrap();
        let said = untouched(&reserved, &json!({"spec": {}})).unwrap_err().text;
        assert!(said.contains("no worker of this version"), "{said}");
    }
}
