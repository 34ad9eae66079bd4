//! Which queues other resources are to read: a worker that is suspended or scaled to zero reads none now, and needs its messages.

use super::{Place, queues};
use crate::broker::{self, Way};
use crate::cluster::{self, Cluster};
use crate::named::{of, read};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use vumi_api::{Kind, Resource};
use vumi_cli::error::CliError;
use vumi_cli::output;
use vumi_core::broker::amqp::cluster_name;

/// What one resource is to read.
struct Claim {
    /// For people.
    named: String,
    place: Place,
    queues: BTreeSet<String>,
}

/// Whether two brokers are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Same {
    Yes,
    No,
    Perhaps,
}

/// What other resources are to read.
pub(super) struct Claims {
    all: Vec<Claim>,
    /// What is known already: of the broker of a claim, and one that is purged.
    same: HashMap<(Place, Place), Same>,
}

impl Claims {
    /// The claims of all resources but those that are meant: of all namespaces if they may be listed, otherwise of theirs.
    ///
    /// # Errors
    /// They cannot be listed, or it is not known what one of them reads.
    pub(super) async fn of_others(cluster: &Cluster, meant: &[Resource]) -> Result<Self, CliError> {
        let own = |resource: &Resource| match &resource.namespace {
            Some(namespace) => namespace.clone(),
            None => cluster.namespace.clone(),
        };
        let mut all = Vec::new();
        for (kind, object) in listed(cluster, &meant.iter().map(own).collect()).await? {
            let namespace = object["metadata"]["namespace"].as_str();
            let namespace = namespace.unwrap_or_default().to_owned();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let is_meant = meant
                .iter()
                .any(|one| one.kind() == kind && one.name == name && own(one) == namespace);
            if !is_meant {
                all.push(claim(kind, &object, namespace)?);
            }
        }
        Ok(Self {
            all,
            same: HashMap::new(),
        })
    }

    /// Who is to read this queue of the broker of `place`, to which there is a way: a part of a sentence.
    pub(super) async fn holder(
        &mut self,
        cluster: &Cluster,
        place: &Place,
        way: &Way,
        queue: &str,
    ) -> Option<String> {
        for claim in self.all.iter().filter(|one| one.queues.contains(queue)) {
            let key = (claim.place.clone(), place.clone());
            let same = match self.same.get(&key) {
                Some(same) => *same,
                None => {
                    let same = same(cluster, &claim.place, place, way).await;
                    self.same.insert(key, same);
                    same
                }
            };
            match same {
                Same::Yes => return Some(format!("{} is to read it", claim.named)),
                Same::No => {}
                Same::Perhaps => {
                    return Some(format!(
                        "{} is to read a queue of this name, and its broker may be this one",
                        claim.named
                    ));
                }
            }
        }
        None
    }
}

fn claim(kind: Kind, object: &Value, namespace: String) -> Result<Claim, CliError> {
    let named = format!("{} in {namespace}", of(kind, object));
    let unknown = |why: &str| {
        CliError::validation(format!(
            "nothing is deleted, since what {named} reads is not known: {why}"
        ))
    };
    let resource = read(kind, object).map_err(|error| unknown(&error.to_string()))?;
    if resource.worker_type().is_none() {
        return Err(unknown(
            "it has no worker type, as after a roll back of the CRDs",
        ));
    }
    Ok(Claim {
        named,
        queues: queues(&resource),
        place: (namespace, resource.broker()),
    })
}

/// All resources that may be listed. It may not be less than the resources of these namespaces.
async fn listed(
    cluster: &Cluster,
    namespaces: &BTreeSet<String>,
) -> Result<Vec<(Kind, Value)>, CliError> {
    let mut found = Vec::new();
    let mut narrow = false;
    for kind in Kind::ALL {
        let mut paths = vec![cluster::resources(kind, None)];
        let mut next = 0;
        while let Some(path) = paths.get(next) {
            next += 1;
            match cluster.list(path, "").await {
                Ok(all) => found.extend(all.into_iter().map(|object| (kind, object))),
                // There is no such kind, and nobody of it.
                Err(failed) if failed.code == Some(404) => {}
                Err(failed) if failed.is_forbidden() && next == 1 => {
                    narrow = true;
                    let each = namespaces.iter();
                    paths.extend(each.map(|one| cluster::resources(kind, Some(one))));
                }
                Err(failed) => return Err(failed.into()),
            }
        }
    }
    if narrow {
        let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        output::note(&format!(
            "note: the resources of all namespaces may not be listed; what is read from elsewhere than {} is not known",
            namespaces.join(", ")
        ));
    }
    Ok(found)
}

/// Whether the broker of a claim is the one to which there is a way.
async fn same(cluster: &Cluster, theirs: &Place, ours: &Place, way: &Way) -> Same {
    if theirs == ours {
        return Same::Yes;
    }
    let Ok(ours) = way.config.identity() else {
        return Same::Perhaps;
    };
    let Ok(config) = broker::config(cluster, &theirs.0, &theirs.1).await else {
        return Same::Perhaps;
    };
    match config.identity() {
        Ok(identity) if identity.vhost != ours.vhost => return Same::No,
        Ok(_) => {}
        Err(_) => return Same::Perhaps,
    }
    // A broker has many addresses and one name, and only different names say for sure.
    let Ok(there) = broker::of(cluster, &theirs.0, &theirs.1).await else {
        return Same::Perhaps;
    };
    let names = (
        cluster_name(&way.config).await,
        cluster_name(&there.config).await,
    );
    match names {
        (Some(here), Some(there)) if here != there => Same::No,
        _ => Same::Perhaps,
    }
}
