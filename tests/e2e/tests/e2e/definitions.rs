//! The custom resource definitions as users get them.

use std::path::{Path, PathBuf};
use vumi_e2e::{Namespace, beside_others, definitions, kubectl, root, succeed};

#[test]
fn definitions_apply_and_explain_themselves() {
    let _turn = beside_others();
    definitions();
    let said = succeed(&["explain", "transport.spec.telnet.port"], "");
    let (_, description) = said.split_once("DESCRIPTION:").unwrap();
    assert!(description.trim().len() > 10, "{said}");
    assert!(said.contains("FIELD: port <integer>"), "{said}");
}

/// Every shipped example is taken as it is by both ways to apply it, and comparing it afterwards shows no difference.
#[test]
fn examples_are_taken_and_compare_as_equal() {
    let client = Namespace::create("example");
    let server = Namespace::create("example");
    definitions();
    let examples = root().join("examples");
    let mut folders: Vec<PathBuf> = Vec::new();
    for group in ["", "transports", "applications", "dispatchers"] {
        let entries = std::fs::read_dir(examples.join(group)).unwrap();
        folders.extend(entries.map(|entry| entry.unwrap().path()));
    }
    folders.retain(|folder| holds_manifests(folder));
    assert!(folders.len() > 20, "{folders:?}");
    for folder in &folders {
        let path = folder.to_string_lossy();
        for (here, way) in [(&client, "--server-side=false"), (&server, "--server-side")] {
            here.succeed(&["apply", way, "--validate=strict", "-f", &path], "");
            let difference = here.kubectl(&["diff", way, "-f", &path], "");
            let told = String::from_utf8_lossy(&difference.stdout);
            assert!(difference.status.success(), "{way} {path}: {told}");
            // The next one may have the same names.
            here.succeed(&["delete", "--ignore-not-found", "-f", &path], "");
        }
    }
}

fn holds_manifests(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.any(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    })
}

/// What is wrong never gets into the cluster, and who sent it is told what and where.
#[test]
fn a_wrong_manifest_is_refused_with_the_reason() {
    let _turn = beside_others();
    definitions();
    let cases = [
        (
            "Transport",
            "{telnet: {port: 9010}, devNull: {}}",
            "exactly one worker type",
        ),
        ("Transport", "{telnet: {port: 80}}", "spec.telnet.port"),
        ("Transport", "{telnet: {port: 9464}}", "choose another"),
        ("Transport", "{telnet: {port: many}}", "spec.telnet.port"),
        (
            "Transport",
            "{httpApi: {}}",
            "httpApi needs http: add `http: {port: …}` beside it",
        ),
        ("Transport", "{telnet: {prot: 9010}}", "prot"),
        (
            "Transport",
            "{telnet: {port: 9010}, replicas: 2}",
            "ordering.standby: true",
        ),
        (
            "Application",
            "{echo: {}, transportName: t, replicas: 3}",
            "ordering.partitions",
        ),
        ("Application", "{echo: {}}", "transportName"),
        (
            "Application",
            "{echo: {}, transportName: t, autoscaling: {minReplicas: 3, maxReplicas: 2}}",
            "minReplicas must not be more than maxReplicas",
        ),
    ];
    for (kind, spec, reason) in cases {
        let manifest = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: wrong}}\nspec: {spec}\n"
        );
        for way in ["--server-side=false", "--server-side"] {
            let output = kubectl(&["apply", way, "--dry-run=server", "-f", "-"], &manifest);
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{way} took {spec}");
            assert!(told.contains(reason), "{way} {spec}: {told}");
        }
    }
}
