//! Deletes children that are not wanted any more: known by label and owner, found in the stores. A ConfigMap stays while pods,
//! or a ReplicaSet that may be rolled back to, name it.

use super::Engine;
use super::apply::Leaving;
use super::kinds::Part;
use super::seen::Held;
use super::store::{Family, Key};
use super::trouble::Trouble;
use std::collections::HashSet;
use vumi_plan::{Desired, kept};

/// Deletes them. Returns what was deleted, as `Kind name`, and the first one that could not be.
pub async fn prune(
    engine: &Engine,
    key: &Key,
    family: &Family,
    desired: &Desired,
) -> (Vec<String>, Option<Trouble>) {
    let (mut pruned, mut trouble) = (Vec::new(), None);
    for held in unwanted(family, desired) {
        if held.is_deleting() {
            continue;
        }
        let (kind, name) = (held.kind, &held.name);
        let path = kind.path(&key.namespace, name);
        let answer = async { engine.writer().await?.delete(&path, &held.uid).await }.await;
        match answer {
            Ok(()) => {
                engine.metrics.wrote("prune");
                pruned.push(format!("{} {name}", kind.kind));
            }
            // Gone already, or another one by now.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                let answered = error.code().is_some();
                let what = format!(
                    "{} {name} is not wanted any more and cannot be deleted",
                    kind.kind
                );
                trouble.get_or_insert(Trouble::new(what, error));
                // Where nobody answers, nobody would for the next one.
                match answered {
                    true => continue,
                    false => break,
                }
            }
        }
        engine.stores.deleted(key, held);
    }
    (pruned, trouble)
}

/// Those that are being deleted and not gone.
pub fn leaving(family: &Family, desired: &Desired) -> Vec<Leaving> {
    let unwanted = unwanted(family, desired).into_iter();
    let leaving = unwanted.filter(|held| held.is_deleting());
    leaving.map(Leaving::of).collect()
}

/// Children that are not wanted any more.
fn unwanted<'a>(family: &'a Family, desired: &Desired) -> Vec<&'a Held> {
    let Some(resource) = &family.resource else {
        return Vec::new();
    };
    let named: HashSet<&str> = family
        .others()
        .flat_map(|held| held.config_maps.iter().map(String::as_str))
        .collect();
    let children = family.others().filter(|held| held.kind.part == Part::Child);
    let ours = children.filter(|held| held.owner.as_deref() == Some(&*resource.uid));
    let unwanted = ours.filter(|held| {
        !kept::stays(desired, held.kind.kind, &held.name, |name| {
            named.contains(name)
        })
    });
    unwanted.collect()
}
