//! The custom resource definitions, made from the Rust types: schema, finishing pass, CEL rules, YAML.
//! `deploy/crds` holds the result.

mod pods;
mod rules;
mod schema;
mod served;
mod shown;
mod whole;

pub use rules::{CEL_WORDS, RESERVED_SETTINGS, one_of};
pub(crate) use rules::{of_our_own, only_for};
pub use served::{lacking, openapi};

use crate::kinds::{ApplicationSpec, DispatcherSpec, MetricAggregatorSpec, TransportSpec};
use crate::manifest::to_yaml;
use crate::resource::Kind;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Group of all kinds.
pub const GROUP: &str = "vumi.dev";
/// The only version.
pub const VERSION: &str = "v1alpha1";
/// What a manifest writes in `apiVersion`.
pub const API_VERSION: &str = "vumi.dev/v1alpha1";

/// Schema of a whole resource of `kind`, as in the CRD's `openAPIV3Schema`.
pub fn root_schema(kind: Kind) -> &'static Value {
    static SCHEMAS: LazyLock<Vec<Value>> =
        LazyLock::new(|| Kind::ALL.iter().map(|kind| build_root(*kind)).collect());
    &SCHEMAS[kind as usize]
}

/// Schema of `spec` of `kind`.
pub fn spec_schema(kind: Kind) -> &'static Value {
    &root_schema(kind)["properties"]["spec"]
}

fn build_root(kind: Kind) -> Value {
    let mut spec = match kind {
        Kind::Transport => schema::of::<TransportSpec>(),
        Kind::Application => schema::of::<ApplicationSpec>(),
        Kind::Dispatcher => schema::of::<DispatcherSpec>(),
        Kind::MetricAggregator => schema::of::<MetricAggregatorSpec>(),
    };
    rules::finish_spec(kind, &mut spec);
    whole::mark(&mut spec);
    let mut root = json!({
        "description": spec["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {
                "description": format!("`{API_VERSION}`."),
                "type": "string",
                "maxLength": 63,
            },
            "kind": {"description": format!("`{kind}`."), "type": "string", "maxLength": 63},
            "metadata": {"type": "object"},
            "spec": spec,
        },
    });
    rules::finish_root(kind, &mut root);
    root
}

/// The custom resource definitions of all kinds, as JSON objects of `apiextensions.k8s.io/v1`.
pub fn crds() -> Vec<Value> {
    Kind::ALL.iter().map(|kind| crd(*kind)).collect()
}

fn crd(kind: Kind) -> Value {
    let singular = kind.as_str().to_lowercase();
    let plural = kind.plural();
    let mut root = root_schema(kind).clone();
    root["properties"]["status"] = shown::status_schema();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": {
                "categories": ["vumi"],
                "kind": kind.as_str(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "shortNames": [shown::short_name(kind)],
                "singular": singular,
            },
            "scope": "Namespaced",
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": root},
                "subresources": shown::subresources(kind),
                "additionalPrinterColumns": shown::columns(),
            }],
        },
    })
}

/// One YAML file per CRD, as `(file name, text)`: what `vumi crds` prints and `deploy/crds` holds.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| {
            let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
            let text = to_yaml(crd);
            (
                format!("{GROUP}_{plural}.yaml"),
                format!("# Generated from the types in `api`; do not edit. Regenerate: make crds\n{text}"),
            )
        })
        .collect()
}
