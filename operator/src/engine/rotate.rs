//! After a Secret has changed: touches the pods that read it, so that the kubelet brings their files up to date at once instead
//! of within a minute or two (K9). Nobody restarts. Of which revision they were told stands at the ServiceAccount, so that one that
//! changes while no operator runs is noticed by the next one.

use super::Engine;
use super::kinds::ObjectKind;
use super::store::{Family, Key};
use super::trouble::Trouble;
use crate::dereference::workload;
use serde_json::json;
use vumi_plan::Desired;
use vumi_plan::names::{INPUT_HASH, SECRET_REVISION};
use vumi_plan::secret::Told;

/// Touches them, where that is still to be done; before the ServiceAccount is written, which says then that it is. Returns how many,
/// and the first that could not be: then the ServiceAccount goes on to say what they were told before, and it is done the next time.
pub async fn rotate(
    engine: &Engine,
    key: &Key,
    family: &Family,
    desired: &mut Desired,
    secrets: &Told,
) -> (usize, Option<Trouble>) {
    // Its pods are replaced instead, and only for what a Secret holds: not because another operator leads, which does not know what
    // it held before. So the ServiceAccount says which revision was told of which resourceVersion.
    if desired.starts_anew() {
        desired.keep_revision(&json!(secrets).to_string());
        return (0, None);
    }
    let Some(child) = desired.workload() else {
        return (0, None);
    };
    let revision = desired.secret_revision().map(str::to_owned);
    let (Some(revision), Some(held)) = (revision, workload(family, &child.name)) else {
        return (0, None);
    };
    // Where nothing stands yet, pods have read what there is; where they are replaced now, the new ones will.
    let account = family.child("ServiceAccount", &child.name);
    let told = account.and_then(|held| held.annotation(SECRET_REVISION));
    let stays = held.annotation(INPUT_HASH) == Some(desired.input_hash.as_str());
    let Some(told) = told.filter(|told| *told != revision && stays) else {
        return (0, None);
    };
    let change = json!({"metadata": {"annotations": {SECRET_REVISION: revision}}});
    let (mut touched, mut trouble) = (0, None);
    let Some(pod_kind) = ObjectKind::named("Pod") else {
        return (0, None);
    };
    for pod in family.all("Pod").filter(|pod| !pod.is_deleting()) {
        if pod.annotation(SECRET_REVISION) == Some(revision.as_str()) {
            continue;
        }
        let path = pod_kind.path(&key.namespace, &pod.name);
        let answer = async { engine.writer().await?.merge(&path, &change).await }.await;
        match answer {
            Ok(_) => {
                engine.metrics.wrote("touch");
                touched += 1;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                let answered = error.code().is_some();
                let what = format!("Pod {} cannot be told that a Secret has changed", pod.name);
                trouble.get_or_insert(Trouble::new(what, error));
                // Where nobody answers, nobody would for the next one.
                if !answered {
                    break;
                }
            }
        }
    }
    if trouble.is_some() {
        desired.keep_revision(told);
    }
    (touched, trouble)
}
