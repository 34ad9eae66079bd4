//! The kinds of objects that the operator reads and writes, and where the API server keeps them.

use kube::core::ApiResource;
use vumi_api::Kind;
use vumi_api::crds::{GROUP, VERSION};
use vumi_plan::{CHILDREN, ChildKind};

/// How much of the objects of a kind is watched (K23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Their metadata.
    Metadata,
    /// All of them, of which what nobody needs is thrown away at once.
    Pruned,
}

/// What an object is to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The resource itself.
    Resource(Kind),
    /// One of the objects that the operator applies.
    Child,
    /// Made by Kubernetes for one of these: only read.
    Follower,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKind {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// `kind`, as objects write it.
    pub kind: &'static str,
    /// As paths write it.
    pub plural: &'static str,
    /// What it is to a resource.
    pub part: Part,
    /// How much is watched.
    pub depth: Depth,
    /// Whether there are clusters without it.
    pub optional: bool,
}

/// A kind whose metadata alone is read: a child, or what is only read or written by name.
pub const fn plain(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> ObjectKind {
    let (part, depth, optional) = (Part::Child, Depth::Metadata, false);
    ObjectKind {
        group,
        version,
        kind,
        plural,
        part,
        depth,
        optional,
    }
}

const fn pruned(part: Part, kind: ObjectKind) -> ObjectKind {
    ObjectKind {
        part,
        depth: Depth::Pruned,
        ..kind
    }
}

const fn ours(of: Kind, kind: &'static str, plural: &'static str) -> ObjectKind {
    pruned(Part::Resource(of), plain(GROUP, VERSION, kind, plural))
}

const fn child(of: ChildKind) -> ObjectKind {
    let kind = ObjectKind {
        optional: of.optional,
        ..plain(of.group, of.version, of.kind, of.plural)
    };
    match of.workload {
        true => pruned(Part::Child, kind),
        false => kind,
    }
}

const OURS: [ObjectKind; 4] = [
    ours(Kind::Transport, "Transport", "transports"),
    ours(Kind::Application, "Application", "applications"),
    ours(Kind::Dispatcher, "Dispatcher", "dispatchers"),
    ours(
        Kind::MetricAggregator,
        "MetricAggregator",
        "metricaggregators",
    ),
];

const FOLLOWERS: [ObjectKind; 2] = [
    // Of these nothing is kept but the ConfigMaps that they name.
    pruned(
        Part::Follower,
        plain("apps", "v1", "ReplicaSet", "replicasets"),
    ),
    pruned(Part::Follower, plain("", "v1", "Pod", "pods")),
];

const ALL: usize = OURS.len() + CHILDREN.len() + FOLLOWERS.len();

/// All kinds. The first ones are ours.
pub static KINDS: [ObjectKind; ALL] = all();

const fn all() -> [ObjectKind; ALL] {
    let mut all = [OURS[0]; ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < OURS.len() {
            OURS[at]
        } else if at < OURS.len() + CHILDREN.len() {
            child(CHILDREN[at - OURS.len()])
        } else {
            FOLLOWERS[at - OURS.len() - CHILDREN.len()]
        };
        at += 1;
    }
    all
}

impl ObjectKind {
    /// The kind with this `kind` among all.
    pub fn named(kind: &str) -> Option<&'static ObjectKind> {
        KINDS.iter().find(|known| known.kind == kind)
    }

    /// One of ours.
    pub fn of(kind: Kind) -> &'static ObjectKind {
        let ours = KINDS
            .iter()
            .find(|known| known.part == Part::Resource(kind));
        // Each of the four stands above; a test looks.
        ours.unwrap_or(&KINDS[0])
    }

    /// `apiVersion`, as objects write it.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Where an object is kept; with an empty name, all of a namespace.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let root = match self.group {
            "" => "api".to_owned(),
            group => format!("apis/{group}"),
        };
        let path = format!(
            "/{root}/{}/namespaces/{namespace}/{}",
            self.version, self.plural
        );
        match name {
            "" => path,
            name => format!("{path}/{name}"),
        }
    }

    /// Whether it runs pods.
    pub fn is_workload(&self) -> bool {
        self.part == Part::Child && self.depth == Depth::Pruned
    }

    /// As watches need it.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn our_kinds_are_all_there() {
        for kind in Kind::ALL {
            let known = ObjectKind::of(kind);
            assert_eq!(
                (known.kind, known.plural),
                (kind.as_str(), kind.plural().as_str())
            );
        }
        assert_eq!(KINDS.iter().filter(|k| k.is_workload()).count(), 2);
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.kind).collect();
        assert_eq!(names.len(), KINDS.len());
        for child in CHILDREN {
            let known = ObjectKind::named(child.kind).unwrap();
            assert_eq!((known.part, known.optional), (Part::Child, child.optional));
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |kind: &str| ObjectKind::named(kind).unwrap().path("n", "a");
        assert_eq!(path("Service"), "/api/v1/namespaces/n/services/a");
        assert_eq!(
            path("Deployment"),
            "/apis/apps/v1/namespaces/n/deployments/a"
        );
        let all = ObjectKind::of(Kind::Transport).path("n", "");
        assert_eq!(all, "/apis/vumi.dev/v1alpha1/namespaces/n/transports");
    }
}
