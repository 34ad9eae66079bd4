//! The first step of looking at a resource: everything around it that decides what becomes of it, from the stores and from the
//! Secrets that it names. No list, and no secret value.

use crate::engine::Engine;
use crate::engine::seen::Held;
use crate::engine::store::{Family, Key};
use crate::engine::trouble::Trouble;
use std::collections::BTreeMap;
use vumi_api::Resource;
use vumi_plan::names::{RESTARTED, SECRET_REVISION};
use vumi_plan::secret::Told;
use vumi_plan::{Context, Live, Names, secret};

/// The surroundings of a resource, and what its worker is told of its Secrets.
///
/// # Errors
/// A Secret cannot be read, though it may be there.
pub async fn dereference(
    engine: &Engine,
    key: &Key,
    resource: &Resource,
    family: &Family,
) -> Result<(Context, Told), Trouble> {
    let held = family.resource.as_ref();
    let uid = held.map(|held| held.uid.to_string());
    let restarted = held.and_then(|held| held.annotation(RESTARTED));
    let restarted = restarted.map(str::to_owned);
    let names = resource.secrets().into_keys().collect();
    engine.secrets.used_by(key, &names);
    let child = Names::new(resource, &key.namespace, None).child();
    let account = family.child("ServiceAccount", &child);
    let marked = account.and_then(|held| held.annotation(SECRET_REVISION));
    let before = marked.map(secret::told).unwrap_or_default();
    let (mut secrets, mut told) = (BTreeMap::new(), Told::new());
    for name in names {
        let known = before.get(&name);
        let facts = engine.secrets.facts(&key.namespace, &name, known).await;
        let unread = |error| Trouble::new(format!("the Secret {name} cannot be read"), error);
        if let Some((mark, facts)) = facts.map_err(unread)? {
            told.insert(name.clone(), mark);
            secrets.insert(name, facts);
        }
    }
    let live = workload(family, &child).and_then(|held| Live::of(&held.object()));
    let context = Context {
        namespace: key.namespace.clone(),
        uid,
        secrets,
        live,
        secret_revision: marked.map(str::to_owned),
        replicas: None,
        restarted,
        platform: engine.cluster.platform(),
    };
    Ok((context, told))
}

/// The workload that runs.
pub fn workload<'a>(family: &'a Family, name: &str) -> Option<&'a Held> {
    let found = ["Deployment", "StatefulSet"]
        .into_iter()
        .find_map(|kind| family.child(kind, name));
    found.filter(|held| !held.is_deleting())
}
