//! What is changed in the pod template after everything else (K21).

use super::shapes::{Annotations, FreeObject};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Beginning of the labels and annotations that belong to the operator.
pub const OWN_PREFIX: &str = "vumi.dev/";

/// Changes of the pod template, merged into it last: lists with a key (containers, volumes, env, …) item by item, `null` removes.
/// The container of the worker is called `worker`. The API server checks the result before anything is applied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overrides {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<OverridesMetadata>,
    /// The `spec` of the pods: whatever a pod may have. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FreeObject>")]
    pub spec: Option<Map<String, Value>>,
}

/// Labels and annotations of pods. Those that begin with `vumi.dev/` belong to the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverridesMetadata {
    /// Labels. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Annotations>")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Overrides {
    /// What the schema cannot say, as `(path below spec, sentence)` pairs.
    pub(crate) fn validate(&self) -> Vec<(String, String)> {
        let Some(metadata) = &self.metadata else {
            return Vec::new();
        };
        let of = |what: &'static str, names: &Option<BTreeMap<String, String>>| {
            let names = names.iter().flatten();
            let own = names.filter(|(name, _)| name.starts_with(OWN_PREFIX));
            own.map(move |(name, _)| {
                (
                    format!("overrides.metadata.{what}.{name}"),
                    format!("what begins with {OWN_PREFIX} belongs to the operator"),
                )
            })
            .collect::<Vec<_>>()
        };
        let mut findings = of("labels", &metadata.labels);
        findings.extend(of("annotations", &metadata.annotations));
        findings
    }
}
