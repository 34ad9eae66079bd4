//! What is built of resources: every example, the rules that keep pods running, and resources of any kind.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod any_resource;
mod clashes;
mod demand;
mod golden;
mod rolls;
mod scalers;
mod scaling;
mod status;
mod surroundings;

use std::path::{Path, PathBuf};
use vumi_api::manifest::load;
use vumi_api::{Resource, Target};
use vumi_plan::{Context, Desired, Platform, SecretFacts, Settings, build, validate};

/// Every resource of the examples, with the path of its file below `examples`.
fn examples() -> Vec<(String, Resource)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                // Campaign tests are no manifests.
                true if path.ends_with("tests") => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "yaml") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        for loaded in load(&[(&name, text)], Target::Cluster).resources {
            all.push((name.clone(), loaded.resource));
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// The resource of one manifest, of which kind and spec are given.
fn resource(kind: &str, spec: &str) -> Resource {
    let text = format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: one}}\nspec: {{{spec}}}\n"
    );
    let read = load(&[("one.yaml", &text)], Target::Cluster);
    assert_eq!(read.findings, [], "{text}");
    read.resources[0].resource.clone()
}

/// Surroundings in which everything that a resource names is there.
fn context(resource: &Resource) -> Context {
    let secrets = resource.secrets().into_iter();
    Context {
        namespace: "campaign".into(),
        uid: Some("0d3f".into()),
        secrets: secrets
            .map(|(name, used)| {
                let facts = SecretFacts {
                    keys: used.keys,
                    revision: "1".into(),
                };
                (name, facts)
            })
            .collect(),
        platform: Platform {
            pod_monitor: true,
            http_route: true,
        },
        ..Context::default()
    }
}

/// What is built of a resource in its surroundings, with the usual settings.
fn built(resource: &Resource, context: &Context) -> Desired {
    let settings = Settings::default();
    let validated = validate(resource, context, &settings).unwrap();
    build(&validated, context, &settings)
}
