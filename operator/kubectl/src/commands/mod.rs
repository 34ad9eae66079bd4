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
use crate::named::Named;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use vumi_api::manifest::{Manifests, load};
use vumi_api::{Kind, Severity, Target};
use vumi_cli::error::CliError;
use vumi_cli::files;

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// These resources, or all of the namespace, of all kinds; as the cluster has them.
async fn chosen(cluster: &Cluster, named: &[Named]) -> Result<Vec<(Kind, Value)>, CliError> {
    let mut found = Vec::new();
    if named.is_empty() {
        for kind in Kind::ALL {
            let path = resources(kind, Some(&cluster.namespace));
            let all = cluster.list(&path, "").await?;
            found.extend(all.into_iter().map(|object| (kind, object)));
        }
        return Ok(found);
    }
    for one in named {
        found.push((one.kind, one.get(cluster).await?));
    }
    Ok(found)
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

/// Looks again and again until something holds; `look` says what is still missing.
async fn until(
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<String>, CliError>,
) -> Result<(), CliError> {
    let deadline = tokio::time::Instant::now() + timeout;
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
        tokio::time::sleep(LOOK).await;
    }
}
