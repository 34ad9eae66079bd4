//! Who may read a queue that several resources want (K18). Two that read one queue share its messages at random, which is a
//! misroute that nobody sees: the older one keeps running, the newer one gets no pods.

use crate::reasons::Reason;
use crate::validate::{Outcome, Refusal};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::{Kind, Resource};

/// Where a queue is: two Secrets may name the same broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerIdentity {
    /// Name of the cluster, as the broker itself says it.
    pub cluster: String,
    /// Virtual host.
    pub vhost: String,
}

/// One resource and the queues that it is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// `metadata.namespace`.
    pub namespace: String,
    /// Kind.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// Names of the queues, in order.
    pub queues: Vec<String>,
}

impl Claim {
    /// What a resource claims, whether or not it has pods now.
    pub fn of(resource: &Resource, namespace: &str, uid: &str, created: Timestamp) -> Self {
        Self {
            uid: uid.to_owned(),
            created,
            namespace: namespace.to_owned(),
            kind: resource.kind(),
            name: resource.name.clone(),
            queues: consumed(resource).into_iter().collect(),
        }
    }

    fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.uid)
    }
}

/// Names of the queues that a worker reads.
pub fn consumed(resource: &Resource) -> BTreeSet<String> {
    let topology = resource.topology();
    let ports = topology.intake.iter().chain(&topology.replies);
    ports.map(vumi_api::Port::queue).collect()
}

/// Why a resource gets no pods: an older one reads a queue that it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The first of these queues by name.
    pub queue: String,
    /// `metadata.uid` of the older one.
    pub winner: String,
    /// The older one for people, where the reader may know of it: `transport/sms` in the same namespace.
    pub named: Option<String>,
}

impl Clash {
    /// What a resource that has lost is told. It is built with no pods ([`crate::Context::replicas`] `Some(0)`), and the status
    /// is made of this.
    pub fn refusal(&self) -> Refusal {
        let queue = &self.queue;
        let other = self.named.as_deref();
        let other = other.unwrap_or("an older resource in another namespace");
        Refusal {
            outcome: Outcome::Stalled,
            reason: Reason::QueueClash,
            message: format!(
                "{other} reads the queue {queue} already, and two readers would share its messages at random: rename the connector of one of them, or delete one"
            ),
        }
    }
}

/// The resources that get no pods, by uid; a claim on a broker that has not said who it is clashes with nothing, and is left out.
/// The order of `claims` does not matter: older resources, by creation and then uid, take their queues first, and one that gets
/// none takes nothing away from those behind it.
pub fn clashes<'a>(
    claims: impl IntoIterator<Item = (&'a BrokerIdentity, &'a Claim)>,
) -> BTreeMap<String, Clash> {
    let mut by_age: Vec<(&BrokerIdentity, &Claim)> = claims.into_iter().collect();
    by_age.sort_by_key(|(_, claim)| claim.age());
    let mut taken: BTreeMap<(&BrokerIdentity, &str), &Claim> = BTreeMap::new();
    let mut lost = BTreeMap::new();
    for (broker, claim) in by_age {
        let mut queues = claim.queues.iter();
        let held = queues.find_map(|queue| {
            let holder = taken.get(&(broker, queue.as_str()))?;
            (holder.uid != claim.uid).then_some((queue, holder))
        });
        if let Some((queue, winner)) = held {
            let shared = winner.namespace == claim.namespace;
            let kind = winner.kind.as_str().to_lowercase();
            let clash = Clash {
                queue: queue.clone(),
                winner: winner.uid.clone(),
                named: shared.then(|| format!("{kind}/{}", winner.name)),
            };
            lost.insert(claim.uid.clone(), clash);
            continue;
        }
        for queue in &claim.queues {
            taken.insert((broker, queue), claim);
        }
    }
    lost
}
