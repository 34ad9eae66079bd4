//! After a Secret has changed: touches the pods that read it, so that the kubelet brings their files up to date at once instead
//! of within a minute or two (K9). Nobody restarts.

use super::Engine;
use super::kinds::ObjectKind;
use super::store::{Family, Key};
use crate::client::ApiError;
use serde_json::json;
use vumi_plan::Context;
use vumi_plan::hash::hash;
use vumi_plan::names::SECRET_REVISION;

/// Touches them, where that is still to be done. Returns how many.
///
/// # Errors
/// A call went wrong: it is done the next time.
pub async fn rotate(
    engine: &Engine,
    key: &Key,
    family: &Family,
    context: &Context,
) -> Result<usize, ApiError> {
    if !engine.secrets.take_rotated(key) {
        return Ok(0);
    }
    let revisions = context
        .secrets
        .iter()
        .map(|(name, facts)| (name, &facts.revision));
    let revision = hash(&json!(revisions.collect::<Vec<_>>()));
    let change = json!({"metadata": {"annotations": {SECRET_REVISION: revision}}});
    let mut touched = 0;
    let Some(pod_kind) = ObjectKind::named("Pod") else {
        return Ok(0);
    };
    for pod in family.all("Pod").filter(|pod| !pod.deleting) {
        if pod.annotation(SECRET_REVISION) == Some(revision.as_str()) {
            continue;
        }
        let path = pod_kind.path(&key.namespace, &pod.name);
        match engine.api.merge(&path, &change).await {
            Ok(_) => {
                engine.metrics.wrote("touch");
                touched += 1;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                engine.secrets.put_back_rotated(key);
                return Err(error);
            }
        }
    }
    Ok(touched)
}
