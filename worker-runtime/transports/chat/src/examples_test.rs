//! The examples of this family's types: they parse, build, and the full ones set every field.

use serde::Deserialize;
use std::path::Path;
use vumi_core::conformance::stand_in::{build_example, unset_fields};

/// The worker of a file, and the Secrets beside it.
fn documents(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde_json::Value::deserialize(document).unwrap())
        .collect()
}

#[tokio::test]
async fn examples_build_and_full_ones_are_full() {
    let schema = schemars::schema_for!(vumi_api::TransportSpec).to_value();
    for type_name in ["telnet"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../examples/transports")
            .join(type_name);
        for file in ["minimal.yaml", "full.yaml"] {
            let manifest = documents(&folder.join(file)).remove(0);
            let built = match type_name {
                "telnet" => build_example::<crate::telnet::Def>(&manifest).await,
                other => panic!("no worker type {other}"),
            };
            assert_eq!(built, Ok(()), "{type_name}/{file}");
            if file == "full.yaml" {
                let unset: Vec<String> = unset_fields(&schema, &manifest["spec"])
                    .into_iter()
                    .filter(|path| !may_be_unset(path, type_name))
                    .collect();
                assert!(
                    unset.is_empty(),
                    "{type_name}/{file} does not set {unset:?}"
                );
            }
        }
    }
}

/// The other types of the union, and the HTTP settings, which this family does not use.
fn may_be_unset(path: &str, own: &str) -> bool {
    let other_type = vumi_api::kinds::TRANSPORT_TYPES
        .iter()
        .any(|t| t.key == path)
        && path != own;
    other_type || path == "http"
}
