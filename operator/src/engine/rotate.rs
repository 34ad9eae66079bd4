//! After a Secret has changed: touches the pods that read it, so that the kubelet brings their files up to date at once instead
//! of within a minute or two (K9). Nobody restarts. Of which revision they were told stands at the workload, so that one that
//! changes while no operator runs is noticed by the next one.

use super::Engine;
use super::kinds::ObjectKind;
use super::store::{Family, Key};
use crate::client::ApiError;
use crate::dereference::workload;
use serde_json::json;
use vumi_plan::Desired;
use vumi_plan::names::{INPUT_HASH, SECRET_REVISION};

/// Touches them, where that is still to be done; before the workload is written, which says then that it is. Returns how many.
///
/// # Errors
/// A call went wrong: it is done the next time.
pub async fn rotate(
    engine: &Engine,
    key: &Key,
    family: &Family,
    desired: &Desired,
) -> Result<usize, ApiError> {
    let Some(child) = desired.workload() else {
        return Ok(0);
    };
    let revision = &child.object["metadata"]["annotations"][SECRET_REVISION];
    let (Some(revision), Some(held)) = (revision.as_str(), workload(family, &child.name)) else {
        return Ok(0);
    };
    // Where nothing stands yet, pods have read what there is; where they are replaced now, the new ones will.
    let told = held.annotation(SECRET_REVISION);
    let stays = held.annotation(INPUT_HASH) == Some(desired.input_hash.as_str());
    if told.is_none_or(|told| told == revision) || !stays {
        return Ok(0);
    }
    let change = json!({"metadata": {"annotations": {SECRET_REVISION: revision}}});
    let mut touched = 0;
    let Some(pod_kind) = ObjectKind::named("Pod") else {
        return Ok(0);
    };
    for pod in family.all("Pod").filter(|pod| !pod.deleting) {
        if pod.annotation(SECRET_REVISION) == Some(revision) {
            continue;
        }
        let path = pod_kind.path(&key.namespace, &pod.name);
        match engine.api.merge(&path, &change).await {
            Ok(_) => {
                engine.metrics.wrote("touch");
                touched += 1;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(touched)
}
