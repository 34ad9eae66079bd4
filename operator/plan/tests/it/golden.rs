//! Objects as they are, kept in `snapshots`. After a change on purpose: `INSTA_UPDATE=always cargo test -p vumi-plan`.

use crate::{context, examples};
use serde_json::Value;
use std::fmt::Write;
use vumi_api::manifest::{load, to_yaml};
use vumi_api::{Resource, Target};
use vumi_plan::{Desired, Settings, build, validate};

fn desired(resource: &Resource) -> Desired {
    let context = context(resource);
    let settings: Settings = serde_json::from_value(serde_json::json!({
        "image": "registry.example.net/vumi:1",
        "podMonitor": {"labels": {"release": "prometheus"}, "interval": "30s"},
    }))
    .unwrap();
    let validated = validate(resource, &context, &settings).unwrap();
    build(&validated, &context, &settings)
}

/// All objects of one example, word by word.
fn whole(name: &str) -> String {
    let found = examples().into_iter().find(|(file, _)| file == name);
    let desired = desired(&found.unwrap().1);
    let objects: Vec<String> = desired
        .children
        .iter()
        .map(|child| to_yaml(&child.object))
        .collect();
    objects.join("---\n")
}

#[test]
fn a_listener_with_every_setting() {
    insta::assert_snapshot!(whole("transports/telnet/full.yaml"));
}

#[test]
fn a_request_transport_behind_a_gateway() {
    insta::assert_snapshot!(whole("transports/httpApi/full.yaml"));
}

#[test]
fn a_request_transport_behind_an_ingress() {
    insta::assert_snapshot!(whole("transports/httpRpc/full.yaml"));
}

#[test]
fn an_application_with_defaults() {
    insta::assert_snapshot!(whole("applications/echo/minimal.yaml"));
}

#[test]
fn an_application_with_a_volume() {
    insta::assert_snapshot!(whole("applications/hangman/minimal.yaml"));
}

#[test]
fn a_dispatcher_with_every_setting() {
    insta::assert_snapshot!(whole("dispatchers/simple/full.yaml"));
}

#[test]
fn a_program_of_somebody_else() {
    insta::assert_snapshot!(whole("applications/custom/full.yaml"));
}

/// What differs between workers, for every resource of every example.
#[test]
fn all_examples_in_short() {
    let mut text = String::new();
    for (file, resource) in examples() {
        let desired = desired(&resource);
        let _ = writeln!(text, "{file}: {}", resource.key());
        let names = desired.children.iter();
        let names: Vec<String> = names.map(|c| format!("{}/{}", c.kind, c.name)).collect();
        let _ = writeln!(text, "  {}", names.join(" "));
        let workload = &desired.workload().unwrap().object["spec"];
        let pod = &workload["template"]["spec"];
        let container = &pod["containers"][0];
        let ports = container["ports"].as_array().cloned().unwrap_or_default();
        let ports: Vec<String> = ports
            .iter()
            .map(|port| format!("{}:{}", port["name"], port["containerPort"]))
            .collect();
        let secrets = pod["volumes"][1]["projected"]["sources"]
            .as_array()
            .unwrap();
        let secrets: Vec<&str> = secrets
            .iter()
            .filter_map(|source| source["secret"]["name"].as_str())
            .collect();
        let _ = writeln!(
            text,
            "  replicas {}, args {}, ready {}, preStop {}, grace {}, ports {}, secrets {}",
            workload["replicas"],
            container["args"],
            container["readinessProbe"]["httpGet"]["path"],
            container["lifecycle"]["preStop"]["sleep"]["seconds"],
            pod["terminationGracePeriodSeconds"],
            ports.join(" "),
            secrets.join(" "),
        );
        for told in desired.address.iter().chain(&desired.url) {
            let _ = writeln!(text, "  {told}");
        }
    }
    insta::assert_snapshot!(text.replace('"', ""));
}

/// The worker reads back from its ConfigMap exactly what it should: nothing is lost on the way through YAML.
#[test]
fn the_manifest_in_the_config_map_is_the_runtime_view() {
    let ours = examples().into_iter().filter(|(_, r)| !r.in_container());
    for (file, resource) in ours {
        let desired = desired(&resource);
        let map = desired.children.iter().find(|c| c.kind == "ConfigMap");
        let text = map.unwrap().object["data"]["worker.yaml"].as_str().unwrap();
        let read = load(&[("worker.yaml", text)], Target::Cluster);
        assert_eq!(read.findings, [], "{file}\n{text}");
        let view = resource.runtime_view();
        assert_eq!(read.resources[0].resource.spec, view.spec, "{file}");
        assert_eq!(read.resources[0].resource.name, view.name, "{file}");
        for setting in vumi_api::shared::deployment::DEPLOYMENT_SETTINGS {
            assert!(view.spec.to_json()[setting].is_null(), "{file} {setting}");
        }
    }
}

#[test]
fn every_object_has_its_owner_labels_and_hash() {
    for (file, resource) in examples() {
        for child in desired(&resource).children {
            let metadata = &child.object["metadata"];
            assert_eq!(metadata["ownerReferences"][0]["uid"], "0d3f", "{file}");
            assert_eq!(metadata["labels"]["vumi.dev/name"], resource.name.as_str());
            assert_eq!(
                metadata["annotations"]["vumi.dev/hash"],
                child.hash.as_str()
            );
            assert_eq!(metadata["namespace"], "campaign");
            assert_ne!(child.object["apiVersion"], Value::Null);
        }
    }
}
