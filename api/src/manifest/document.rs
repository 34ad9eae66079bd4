//! One document: which kind it is, its checks, and the typed resource that comes out of them.

use super::finding::{
    DOCUMENT, DUPLICATE_NAME, IGNORED, INVALID, RULE, UNKNOWN_FIELD, UNSUPPORTED, WRONG_VALUE,
};
use super::report::Report;
use super::tree::{self, Data, Node, Place, below};
use super::walk::Walk;
use super::{LoadedResource, Manifests, Target, objects, rules};
use crate::crds::{API_VERSION, GROUP, root_schema};
use crate::names::nearest;
use crate::resource::{Kind, Resource, Spec};
use std::collections::HashMap;

/// Reserved for workers that share pods.
const WORKER_POOL: &str = "WorkerPool";

/// Fields of `metadata` that people and tools write.
const METADATA: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Reads files one after the other.
pub(super) struct Reader {
    manifests: Manifests,
    /// Kind, namespace and name → file and line of the first.
    seen: HashMap<(String, String, String), (String, usize)>,
}

impl Reader {
    pub fn new(target: Target) -> Self {
        Self {
            manifests: Manifests {
                target,
                ..Manifests::default()
            },
            seen: HashMap::new(),
        }
    }

    pub fn finish(self) -> Manifests {
        self.manifests
    }

    pub fn file(&mut self, name: &str, text: &str) {
        let mut report = Report::new(name);
        if text.trim().is_empty() {
            // Perhaps somebody is writing it. Of a process that runs, what it held before goes on.
            let help = "write a manifest into it, or remove the file: then its workers stop";
            let place = Place::default();
            report.error(DOCUMENT, place, "", "the file is empty", Some(help.into()));
        }
        for document in tree::read(text, &mut report) {
            self.document(&document, &mut report);
        }
        report.findings.sort_by_key(|f| (f.line, f.column));
        self.manifests.findings.append(&mut report.findings);
    }

    fn document(&mut self, node: &Node, report: &mut Report<'_>) {
        match &node.data {
            Data::Null => return,
            Data::Map(_) => {}
            _ => {
                let message = "a document must be an object with apiVersion, kind and metadata";
                return report.error(DOCUMENT, node.place, "", message, None);
            }
        }
        let field = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
        let (version, kind) = (field("apiVersion"), field("kind"));
        for (key, example) in [("apiVersion", API_VERSION), ("kind", "Transport")] {
            if field(key).is_empty() {
                let help = format!("write for example `{key}: {example}`");
                report.error(
                    DOCUMENT,
                    node.place,
                    key,
                    "required, but missing",
                    Some(help),
                );
            }
        }
        if version.is_empty() || kind.is_empty() {
            return;
        }
        let ours = Kind::ALL.into_iter().find(|ours| ours.as_str() == kind);
        match (version, kind, ours) {
            ("v1", "Secret", _) => {
                self.walk(objects::secret_schema(), node, None, report);
                if let Some(name) = self.name(node, "Secret", report) {
                    let keys = objects::secret(node, report);
                    self.manifests.secrets.insert(name, keys);
                }
            }
            ("v1", "List", _) => match node.get("items").map(|items| &items.data) {
                Some(Data::List(items)) => {
                    items.iter().for_each(|item| self.document(item, report))
                }
                _ => report.error(
                    DOCUMENT,
                    node.place,
                    "items",
                    "a List needs a list of items",
                    None,
                ),
            },
            (_, "Secret" | "List", _) if version.starts_with(&format!("{GROUP}/")) => {
                let place = node
                    .entry("apiVersion")
                    .map_or(node.place, |entry| entry.value.place);
                let message = format!("a {kind} is one of Kubernetes itself, not of {GROUP}");
                let help = Some("write `apiVersion: v1`".to_owned());
                report.error(DOCUMENT, place, "apiVersion", message, help);
            }
            (API_VERSION, _, Some(kind)) => self.resource(kind, node, report),
            (API_VERSION, _, None) => {
                let place = node
                    .entry("kind")
                    .map_or(node.place, |entry| entry.value.place);
                if kind == WORKER_POOL {
                    let message = format!("kind {WORKER_POOL} is not supported yet");
                    let help = Some("each worker has a pod of its own".to_owned());
                    report.error(UNSUPPORTED, place, "kind", message, help);
                    return;
                }
                let help = match nearest(kind, Kind::ALL.map(Kind::as_str)) {
                    Some(name) => format!("did you mean {name}?"),
                    None => "the kinds are Transport, Application, Dispatcher and MetricAggregator"
                        .into(),
                };
                report.error(
                    DOCUMENT,
                    place,
                    "kind",
                    format!("unknown kind {kind:?}"),
                    Some(help),
                );
            }
            (_, _, ours) => {
                let place = node
                    .entry("apiVersion")
                    .map_or(node.place, |entry| entry.value.place);
                if ours.is_some() || version.starts_with(&format!("{GROUP}/")) {
                    let message = format!("unknown apiVersion {version:?}");
                    let help = Some(format!("did you mean {API_VERSION}?"));
                    report.error(DOCUMENT, place, "apiVersion", message, help);
                } else {
                    let message = format!("{version} {kind} is left alone: no worker reads it");
                    report.warning(IGNORED, place, "", message, None);
                }
            }
        }
    }

    fn walk(
        &mut self,
        schema: &serde_json::Value,
        node: &Node,
        kind: Option<Kind>,
        report: &mut Report<'_>,
    ) {
        let mut walk = Walk {
            report,
            kind,
            confidential: kind.is_none(),
            for_cluster: self.manifests.target == Target::Cluster,
        };
        walk.document(schema, node);
    }

    /// Checks `metadata` and returns its name, if it is usable and new.
    fn name(&mut self, node: &Node, kind: &str, report: &mut Report<'_>) -> Option<String> {
        let Some(metadata) = node.get("metadata") else {
            let help = Some("write `metadata: {name: my-name}`".into());
            report.error(
                DOCUMENT,
                node.place,
                "metadata",
                "required, but missing",
                help,
            );
            return None;
        };
        for entry in metadata.entries() {
            if !METADATA.contains(&entry.key.as_str()) {
                let help = nearest(&entry.key, METADATA.iter().copied())
                    .map(|name| format!("did you mean {name}?"));
                let path = below("metadata", &entry.key);
                report.error(UNKNOWN_FIELD, entry.place, path, "unknown field", help);
            }
        }
        let Some(name) = metadata.get("name") else {
            let help = Some("write `metadata: {name: my-name}`".into());
            report.error(
                DOCUMENT,
                metadata.place,
                "metadata.name",
                "required, but missing",
                help,
            );
            return None;
        };
        let Some(text) = name.text() else {
            let help = Some("a name of digits needs quotes".into());
            report.error(DOCUMENT, name.place, "metadata.name", "expected text", help);
            return None;
        };
        if !is_dns_subdomain(text) {
            let message = format!("{text:?} is not a name that Kubernetes accepts");
            let help = Some(
                "use lower-case letters, digits and -, beginning and ending with a letter or digit"
                    .into(),
            );
            report.error(WRONG_VALUE, name.place, "metadata.name", message, help);
        }
        let namespace = metadata
            .get("namespace")
            .and_then(Node::text)
            .unwrap_or_default();
        let key = (kind.to_owned(), namespace.to_owned(), text.to_owned());
        let here = (report.file.to_owned(), name.place.line);
        if let Some((file, line)) = self.seen.get(&key) {
            let message = format!("{kind} {text:?} exists already");
            let help = Some(format!("the first one is at {file}:{line}"));
            report.error(DUPLICATE_NAME, name.place, "metadata.name", message, help);
            return None;
        }
        self.seen.insert(key, here);
        Some(text.to_owned())
    }

    fn resource(&mut self, kind: Kind, node: &Node, report: &mut Report<'_>) {
        let before = report.errors();
        let first = report.findings.len();
        let schema = root_schema(kind);
        let name = self.name(node, kind.as_str(), report);
        if !kind.worker_types().is_empty() {
            self.walk(schema, node, Some(kind), report);
        }
        rules::evaluate(schema, node, self.manifests.target, report);
        silence_echoes(&mut report.findings, first);
        let Some(name) = name else { return };
        let spec = node.get("spec").map(Node::json).unwrap_or_default();
        let resource = Spec::from_json(kind, spec).map(|spec| Resource {
            name,
            namespace: node
                .get("metadata")
                .and_then(|m| m.get("namespace"))
                .and_then(Node::text)
                .map(str::to_owned),
            spec,
        });
        match resource {
            Ok(resource) => {
                for (path, message) in resource.validate() {
                    let place = locate(node, &path);
                    report.error(INVALID, place, format!("spec.{path}"), message, None);
                }
                if report.errors() == before {
                    self.manifests.resources.push(LoadedResource {
                        resource,
                        file: report.file.to_owned(),
                        line: node.place.line,
                        root: node.clone(),
                    });
                }
            }
            // The walk has found the reason; if it has not, the type's own words are better than silence.
            Err(error) if report.errors() == before => {
                report.error(INVALID, locate(node, ""), "spec", error.to_string(), None);
            }
            Err(_) => {}
        }
    }
}

/// "Exactly one worker type; found none" only echoes a mistyped or misplaced key in the same object.
fn silence_echoes(findings: &mut Vec<super::Finding>, first: usize) {
    let parent = |path: &str| {
        path.rsplit_once('.')
            .map_or(String::new(), |(parent, _)| parent.to_owned())
    };
    let slips: Vec<String> = findings[first..]
        .iter()
        .filter(|f| {
            f.code == UNKNOWN_FIELD
                && f.help
                    .as_deref()
                    .is_some_and(|h| h.starts_with("did you mean") || h.starts_with("write `kind:"))
        })
        .map(|f| parent(&f.path))
        .collect();
    let mut index = 0;
    findings.retain(|f| {
        index += 1;
        let echo = index > first
            && f.code == RULE
            && f.message.ends_with("found: none")
            && slips.contains(&f.path);
        !echo
    });
}

/// The place of the field that `path` (below `spec`) names, or of the nearest object around it.
pub(super) fn locate(document: &Node, path: &str) -> Place {
    let Some(spec) = document.entry("spec") else {
        return document.place;
    };
    let (mut place, mut node, mut rest) = (spec.place, &spec.value, path);
    loop {
        // Keys may hold dots themselves: the longest key that fits is meant.
        let fitting = node
            .entries()
            .iter()
            .filter(|e| {
                rest.strip_prefix(e.key.as_str())
                    .is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']))
            })
            .max_by_key(|e| e.key.len());
        if let Some(entry) = fitting {
            (place, node) = (entry.place, &entry.value);
            rest = rest[entry.key.len()..].trim_start_matches('.');
            continue;
        }
        let index = rest.strip_prefix('[').and_then(|r| r.split_once(']'));
        match (index, &node.data) {
            (Some((index, after)), Data::List(items)) => {
                let Some(item) = index.parse::<usize>().ok().and_then(|i| items.get(i)) else {
                    return place;
                };
                (place, node, rest) = (item.place, item, after.trim_start_matches('.'));
            }
            _ => return place,
        }
    }
}

fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
