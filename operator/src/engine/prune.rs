//! Deletes children that are not wanted any more: known by label and owner, found in the stores. A ConfigMap stays while pods,
//! or a ReplicaSet that may be rolled back to, name it.

use super::Engine;
use super::apply::Leaving;
use super::kinds::{ObjectKind, Part};
use super::seen::Held;
use super::store::{Family, Key};
use crate::client::ApiError;
use std::collections::HashSet;
use vumi_plan::Desired;

/// Deletes them. Returns what was deleted, as `Kind name`.
///
/// # Errors
/// A call went wrong; the rest is left for the next time.
pub async fn prune(
    engine: &Engine,
    key: &Key,
    family: &Family,
    desired: &Desired,
) -> Result<Vec<String>, ApiError> {
    let mut pruned = Vec::new();
    for Unwanted { kind, name, held } in unwanted(family, desired) {
        if held.deleting {
            continue;
        }
        match engine
            .api
            .delete(&kind.path(&key.namespace, name), &held.uid)
            .await
        {
            Ok(()) => {
                engine.metrics.wrote("prune");
                pruned.push(format!("{} {name}", kind.kind));
            }
            // Gone already, or another one by now.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(error),
        }
        engine.stores.remove(kind, key, name, &held.uid);
    }
    Ok(pruned)
}

/// Those that are being deleted and not gone.
pub fn leaving(family: &Family, desired: &Desired) -> Vec<Leaving> {
    let unwanted = unwanted(family, desired).into_iter();
    let leaving = unwanted.filter(|one| one.held.deleting);
    leaving
        .map(|one| Leaving {
            object: format!("{} {}", one.kind.kind, one.name),
            since: one.held.ends,
            finalizers: one.held.finalizers.clone(),
        })
        .collect()
}

/// A child that is not wanted any more.
struct Unwanted<'a> {
    kind: &'static ObjectKind,
    name: &'a str,
    held: &'a Held,
}

fn unwanted<'a>(family: &'a Family, desired: &Desired) -> Vec<Unwanted<'a>> {
    let Some(resource) = &family.resource else {
        return Vec::new();
    };
    let wanted: HashSet<(&str, &str)> = desired
        .children
        .iter()
        .map(|child| (child.kind.as_str(), child.name.as_str()))
        .collect();
    let named: HashSet<&str> = family
        .others
        .values()
        .flat_map(|held| held.config_maps.iter().map(String::as_str))
        .collect();
    let mut unwanted = Vec::new();
    for ((kind, name), held) in &family.others {
        let Some(kind) = ObjectKind::named(kind).filter(|kind| kind.part == Part::Child) else {
            continue;
        };
        let ours = held.owner.as_deref() == Some(resource.uid.as_str());
        let in_use = kind.kind == "ConfigMap" && named.contains(name.as_str());
        if ours && !in_use && !wanted.contains(&(kind.kind, name.as_str())) {
            unwanted.push(Unwanted { kind, name, held });
        }
    }
    unwanted
}
