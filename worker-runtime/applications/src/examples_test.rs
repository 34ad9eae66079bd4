//! The examples of this family's types: they parse, build, and the full ones set every field.

use serde::Deserialize;
use std::path::Path;
use vumi_core::conformance::stand_in::{build_example, resource, unset_fields};

/// The worker of a file, and the Secrets beside it.
fn documents(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde_json::Value::deserialize(document).unwrap())
        .collect()
}

#[tokio::test]
async fn examples_build_and_full_ones_are_full() {
    let schema = schemars::schema_for!(vumi_api::ApplicationSpec).to_value();
    for type_name in ["echo", "staticReply"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../examples/applications")
            .join(type_name);
        for file in ["minimal.yaml", "full.yaml"] {
            let manifest = documents(&folder.join(file)).remove(0);
            let built = match type_name {
                "echo" => build_example::<crate::echo::Def>(&manifest).await,
                "staticReply" => build_example::<crate::static_reply::Def>(&manifest).await,
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

#[test]
fn whole_campaigns_parse() {
    for (folder, workers) in [("telnet-echo", 2), ("two-transports-one-app", 4)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let names: std::collections::BTreeSet<String> = std::fs::read_dir(path.join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
            .flat_map(|path| documents(&path))
            .map(|manifest| resource(&manifest).unwrap().key())
            .collect();
        assert_eq!(names.len(), workers, "{folder}: {names:?}");
    }
}

/// The other types of the union.
fn may_be_unset(path: &str, _: &str) -> bool {
    matches!(path, "echo" | "staticReply")
}
