//! Manifests: YAML files in, typed resources and findings out. All findings at once, each with its place.
//!
//! The phases of one document: parse with places, compare with the schema, evaluate the CEL rules, the worker type's
//! own validation. Read are the four kinds of `vumi.dev/v1alpha1`, `v1` Secret, and `v1` List of these.
//! Other kinds may stand in the same files, as they do beside `kubectl apply`: each gets a warning and is left alone.

mod brokers;
mod campaign;
mod document;
mod finding;
mod objects;
mod report;
mod rules;
mod scalar;
mod secrets;
pub(crate) mod times;
mod tree;
mod walk;
mod write;

pub use campaign::campaign_findings;
pub use finding::{CODES, Finding, Severity};
pub use scalar::other_reading;
pub use secrets::{broker_findings, state_findings};
pub use write::to_yaml;

use crate::resource::Resource;
use std::collections::BTreeMap;
use std::fmt;

/// Where the manifests are meant to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Target {
    /// One process, `vumi run`: plain secret values are allowed, and all listeners share one machine.
    #[default]
    Local,
    /// A cluster: plain secret values are refused (K11).
    Cluster,
}

/// Keys and values by name of the Secret.
pub type Texts = BTreeMap<String, BTreeMap<String, String>>;

/// A valid resource and where it was read.
#[derive(Clone, PartialEq)]
pub struct LoadedResource {
    /// The resource.
    pub resource: Resource,
    /// File as it was named to [`load`].
    pub file: String,
    /// Line in which its document begins, from 1.
    pub line: usize,
    /// Places of its fields, for findings about the campaign.
    root: tree::Node,
}

impl LoadedResource {
    /// The document as JSON, as it was written.
    pub fn document(&self) -> serde_json::Value {
        self.root.json()
    }

    /// A finding at `path` below `spec`, or at the nearest field around it.
    fn finding(
        &self,
        severity: Severity,
        code: &'static str,
        path: &str,
        message: String,
    ) -> Finding {
        let place = document::locate(&self.root, path);
        Finding {
            severity,
            code,
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            path: match path {
                "" => "spec".into(),
                path => format!("spec.{path}"),
            },
            message: format!("{}: {message}", self.resource.key()),
            help: None,
        }
    }
}

// The document may hold a plain secret value, which the typed resource hides by itself.
impl fmt::Debug for LoadedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedResource")
            .field("resource", &self.resource)
            .field("file", &self.file)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What a set of files holds.
#[derive(Clone, Default)]
pub struct Manifests {
    /// Valid resources, in the order of files and documents. A resource with an error is not among them.
    pub resources: Vec<LoadedResource>,
    /// Secrets by name: decoded keys and values. Callers that have more (files of `--secrets DIR`) may add them
    /// before asking for [`campaign_findings`], [`broker_findings`] or [`state_findings`].
    pub secrets: Texts,
    /// Everything found, by file and line.
    pub findings: Vec<Finding>,
    /// What the manifests were loaded for.
    pub target: Target,
    /// Whether all workers use one broker whatever their manifests say, because the command line names it. Callers set it
    /// before asking for [`campaign_findings`].
    pub one_broker: bool,
}

impl Manifests {
    /// Whether any finding is an error.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }
}

impl fmt::Debug for Manifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifests")
            .field("resources", &self.resources.len())
            .field("secrets", &self.secrets.keys())
            .field("findings", &self.findings)
            .field("target", &self.target)
            .finish()
    }
}

/// Reads `files`, given as `(name, text)`, for `target`. Never fails: what is wrong is among the findings.
pub fn load<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)], target: Target) -> Manifests {
    let mut reader = document::Reader::new(target);
    for (name, text) in files {
        reader.file(name.as_ref(), text.as_ref());
    }
    reader.finish()
}
