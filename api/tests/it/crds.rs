//! The generated CRDs: up to date in `deploy/crds`, small enough for client-side apply, and free of what Kubernetes
//! refuses or stores by surprise.

use serde_json::Value;
use std::path::Path;
use vumi_api::crds::{crd_files, root_schema};
use vumi_api::{Kind, WorkerType};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds")
}

/// Calls `check` on a schema and every schema below it, with its path.
fn each(schema: &Value, path: &str, check: &mut dyn FnMut(&Value, &str)) {
    check(schema, path);
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        each(below, &format!("{path}.{name}"), check);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            each(&schema[key], &format!("{path}{mark}"), check);
        }
    }
}

fn each_of_all_kinds(check: &mut dyn FnMut(&Value, &str)) {
    for kind in Kind::ALL {
        each(root_schema(kind), kind.as_str(), check);
    }
}

#[test]
fn deploy_crds_are_up_to_date() {
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    if update {
        std::fs::create_dir_all(folder()).unwrap();
    }
    let mut expected: Vec<String> = Vec::new();
    for (name, text) in crd_files() {
        let path = folder().join(&name);
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let held = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            held == text,
            "deploy/crds/{name} is stale: run `make crds` (or UPDATE_CRDS=1 cargo test -p vumi-api --test it crds)"
        );
        assert!(text.len() < 200 * 1024, "{name} has {} bytes", text.len());
        expected.push(name);
    }
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            expected.contains(&name),
            "deploy/crds/{name} belongs to no kind: delete it"
        );
    }
}

#[test]
fn files_hold_the_whole_definition() {
    for ((_, text), crd) in crd_files().iter().zip(vumi_api::crds::crds()) {
        let read: Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(read.to_string(), crd.to_string());
    }
}

/// Calls `check` on every schema of `status`.
fn each_of_status(check: &mut dyn FnMut(&Value, &str)) {
    for crd in vumi_api::crds::crds() {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        each(&schema["properties"]["status"], "status", check);
    }
}

#[test]
fn everything_is_bounded() {
    let mut bounded = |schema: &Value, path: &str| {
        let has = |key: &str| schema[key].is_u64();
        match schema["type"].as_str() {
            Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
            Some("string") => {
                assert!(
                    has("maxLength") || schema["enum"].is_array(),
                    "{path} has no maxLength"
                );
            }
            Some("integer") => {
                let bounded = schema["minimum"].is_i64() && schema["maximum"].is_i64();
                assert!(bounded, "{path} has no range");
            }
            Some("object") if schema["additionalProperties"].is_object() => {
                assert!(has("maxProperties"), "{path} has no maxProperties");
            }
            Some("object" | "boolean") => {}
            other => panic!("{path} has type {other:?}"),
        }
    };
    each_of_all_kinds(&mut bounded);
    each_of_status(&mut bounded);
}

/// Middleware, rules that the first match decides, backends: what a list says depends on its order, so that two writers must not have
/// their items merged. Kubernetes takes a list as a whole unless its schema says otherwise.
#[test]
fn lists_are_taken_as_a_whole_but_for_conditions() {
    let (mut whole, mut merged) = (0, Vec::new());
    let mut list = |schema: &Value, path: &str| {
        if schema["type"] == "array" {
            match schema["x-kubernetes-list-type"].as_str() {
                None | Some("atomic") => whole += 1,
                Some(other) => merged.push(format!("{path}: {other}")),
            }
        }
    };
    each_of_all_kinds(&mut list);
    each_of_status(&mut list);
    merged.dedup();
    assert_eq!(merged, ["status.conditions: map"]);
    assert!(whole > 20, "{whole}");
    // None of the lists that people order is lost.
    for (kind, pointer) in [
        (Kind::Transport, "/middleware"),
        (Kind::Dispatcher, "/middleware"),
        (Kind::Dispatcher, "/simple/properties/transports"),
    ] {
        let spec = &vumi_api::crds::spec_schema(kind)["properties"];
        let list = spec.pointer(pointer).unwrap();
        assert_eq!(list["type"], "array", "{kind} {pointer}");
    }
}

#[test]
fn status_is_read_as_kubernetes_reads_it() {
    each_of_status(&mut |schema, path| {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let text = field["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{path}.{name} has no description");
            assert_eq!(field["nullable"], Value::Null, "{path}.{name}");
        }
        // A default would be stored for good, but for the one that says that nobody has looked.
        assert_eq!(schema["default"].is_null(), path != "status", "{path}");
    });
    for (kind, crd) in Kind::ALL.into_iter().zip(vumi_api::crds::crds()) {
        let version = &crd["spec"]["versions"][0];
        let root = &version["schema"]["openAPIV3Schema"]["properties"];
        let status = &root["status"];
        assert_eq!(status["default"]["observedGeneration"], -1);
        let conditions = &status["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
        let scale = &version["subresources"]["scale"];
        let scales = !root["spec"]["properties"]["replicas"].is_null();
        assert_eq!(scale.is_object(), scales, "{kind}");
        assert_eq!(
            root["spec"]["properties"]["replicas"]["default"] == 1,
            scales,
            "{kind}"
        );
        // Every path leads to a field of the schema.
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let paths = columns.iter().map(|column| &column["jsonPath"]);
        let paths = paths.chain(
            scale
                .as_object()
                .into_iter()
                .flat_map(|paths| paths.values()),
        );
        for path in paths.map(|path| path.as_str().unwrap()) {
            let path = path.replace("conditions[?(@.type==\"Ready\")]", "conditions[]");
            let mut schema = &version["schema"]["openAPIV3Schema"];
            for part in path.trim_start_matches('.').split('.') {
                let name = part.trim_end_matches("[]");
                if name == "creationTimestamp" {
                    continue;
                }
                schema = &schema["properties"][name];
                assert!(!schema.is_null(), "{kind} {path}");
                if part != name {
                    schema = &schema["items"];
                }
            }
        }
        assert_eq!(crd["spec"]["names"]["categories"][0], "vumi");
    }
    let names: std::collections::BTreeSet<String> = vumi_api::crds::crds()
        .iter()
        .map(|crd| crd["spec"]["names"]["shortNames"][0].to_string())
        .collect();
    assert_eq!(names.len(), Kind::ALL.len());
}

#[test]
fn nothing_is_stored_or_refused_by_surprise() {
    let known = [
        "type",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "x-kubernetes-preserve-unknown-fields",
    ];
    each_of_all_kinds(&mut |schema, path| {
        for key in schema.as_object().unwrap().keys() {
            let stored = key == "default" && path.ends_with(".spec.replicas");
            assert!(stored || known.contains(&key.as_str()), "{path} has {key}");
        }
        // Unknown fields are kept only in objects of others, and where none may stand, so that they can be counted and
        // refused.
        let of_others = [".spec.overrides.spec", ".spec.custom.config"]
            .iter()
            .any(|object| path.ends_with(object));
        if schema["x-kubernetes-preserve-unknown-fields"] == true && !of_others {
            assert_eq!(schema["maxProperties"], 0, "{path}");
        }
    });
}

#[test]
fn every_field_says_what_it_is_and_its_default() {
    each_of_all_kinds(&mut |schema, path| {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let rules = schema["x-kubernetes-validations"].to_string();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if path.split('.').count() == 1 {
                continue;
            }
            let text = field["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{path}.{name} has no description");
            // Exactly one of these is given, so none has a default.
            let member = rules.contains(&format!("has(self.{name})"));
            let leaf = field["properties"].is_null();
            if leaf && !member && !required.contains(&name.as_str()) {
                assert!(
                    text.contains("Default"),
                    "{path}.{name} does not say its default: {text}"
                );
            }
        }
    });
}

#[test]
fn registered_types_are_what_they_say() {
    for worker in WorkerType::all() {
        let schema = &vumi_api::crds::spec_schema(worker.kind)["properties"][worker.key];
        assert_eq!(schema["type"], "object", "{}", worker.key);
        assert!(
            worker.source.starts_with("//! What it is:"),
            "{} lacks its header",
            worker.key
        );
    }
}

/// Field names that other fields of this API have another name for, and what that is.
const SYNONYMS: &[(&str, &str)] = &[
    ("user", "username"),
    ("login", "username"),
    ("pass", "password"),
    ("secret", "password"),
    ("uri", "url"),
    ("address", "host or url"),
    ("hostname", "host"),
    ("listen", "host and port"),
    ("timeout", "what times out, as in idleTimeout"),
];

#[test]
fn one_thing_has_one_name() {
    each_of_all_kinds(&mut |schema, path| {
        for name in schema["properties"].as_object().into_iter().flatten() {
            let name = name.0.as_str();
            for (wrong, right) in SYNONYMS {
                assert_ne!(&name, wrong, "{path}.{name}: the name is {right}");
            }
            for unit in ["Seconds", "Millis", "Ms", "Minutes", "Bytes", "Kb", "Mb"] {
                let unitless = !name.ends_with(unit);
                assert!(
                    unitless,
                    "{path}.{name}: durations and sizes carry their unit in the value"
                );
            }
            let camel =
                name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains(['_', '-']);
            assert!(camel, "{path}.{name} is not camelCase");
        }
    });
}

/// Numbers of our own design rules, such as (R7), say nothing to a reader.
#[test]
fn no_text_names_a_private_rule() {
    let number = regex::Regex::new(r"\b[EKRS][0-9]{1,2}\b").unwrap();
    for (name, text) in crd_files() {
        let found = number.find(&text).map(|m| m.as_str());
        assert_eq!(found, None, "{name}");
    }
    for (code, meaning) in vumi_api::manifest::CODES {
        assert!(!number.is_match(meaning), "{code}: {meaning}");
    }
}

/// `serde(flatten)` and untagged enums let mistyped keys through.
#[test]
fn nothing_lets_unknown_keys_through() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text
                .lines()
                .filter(|line| line.trim_start().starts_with("#[serde("))
            {
                for word in ["flatten", "untagged", "alias"] {
                    assert!(!line.contains(word), "{}: {line}", path.display());
                }
            }
        }
    }
    assert!(read > 20, "{read} files");
}
