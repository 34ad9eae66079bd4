//! The ConfigMap with the worker's manifest: what the process reads and nothing else, immutable, named by its hash (K9).

use super::{Cx, custom};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vumi_api::crds::API_VERSION;
use vumi_api::manifest::to_yaml;

/// File of the manifest in its folder.
const FILE: &str = "worker.yaml";

/// The file and what it says: the manifest as the worker reads it, only keys that somebody wrote, so that an older runtime knows
/// them (K12). A program that is not ours has a configuration of its own.
pub fn document(cx: &Cx<'_>) -> (&'static str, Value) {
    if let Some(custom) = cx.custom() {
        return (custom::FILE, custom::document(cx, custom));
    }
    let manifest = json!({
        "apiVersion": API_VERSION,
        "kind": cx.resource.kind().as_str(),
        "metadata": {"name": cx.resource.name},
        "spec": cx.resource.runtime_view().spec.to_json(),
    });
    (FILE, manifest)
}

/// The ConfigMap.
pub fn config_map(cx: &Cx<'_>, file: &str, document: &Value, hash: &str) -> ConfigMap {
    ConfigMap {
        metadata: cx.names.metadata(cx.names.config_map(hash)),
        data: Some(BTreeMap::from([(file.to_owned(), to_yaml(document))])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}
