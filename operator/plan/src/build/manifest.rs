//! The ConfigMap with the worker's manifest: what the process reads and nothing else, immutable, named by its hash (K9).

use super::Cx;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vumi_api::Resource;
use vumi_api::crds::API_VERSION;
use vumi_api::manifest::to_yaml;

/// File of the manifest in its folder.
const FILE: &str = "worker.yaml";

/// The manifest as the worker reads it: only keys that somebody wrote, so that an older runtime knows them (K12).
pub fn document(resource: &Resource) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": resource.kind().as_str(),
        "metadata": {"name": resource.name},
        "spec": resource.runtime_view().spec.to_json(),
    })
}

/// The ConfigMap.
pub fn config_map(cx: &Cx<'_>, document: &Value, hash: &str) -> ConfigMap {
    ConfigMap {
        metadata: cx.names.metadata(cx.names.config_map(hash)),
        data: Some(BTreeMap::from([(FILE.to_owned(), to_yaml(document))])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}
