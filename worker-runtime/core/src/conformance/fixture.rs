//! The resource of a worker type's fixture, made fit for a bench.

use super::{Fixture, provider};
use serde_json::Value;
use std::collections::BTreeSet;
use vumi_api::Resource;
use vumi_api::manifest::{self, Target};

/// The resource of a fixture, with quick retries so that cases about errors take no time, and with names that end in
/// `suffix`, so that several benches can share a broker.
pub(super) fn load(
    fixture: &Fixture,
    port: u16,
    suffix: &str,
) -> Result<(Resource, Value), String> {
    let provider = provider::port().to_string();
    let text = fixture.manifest.replace("{port}", &port.to_string());
    let text = text.replace("{provider}", &provider);
    let mut first = manifest::load(&[("fixture.yaml", text.as_str())], Target::Local);
    if first.has_errors() {
        return Err(format!(
            "its fixture manifest is wrong: {:?}",
            first.findings
        ));
    }
    if first.resources.is_empty() {
        return Err("its fixture manifest holds no resource".into());
    }
    let loaded = first.resources.remove(0);
    let mut document = loaded.document();
    document["metadata"]["name"] = format!("{}{suffix}", loaded.resource.name).into();
    let names = connectors(&loaded.resource);
    for (_, setting) in document["spec"].as_object_mut().into_iter().flatten() {
        rename(setting, &names, suffix);
    }
    let quick =
        serde_json::json!({"maxAttempts": 6, "backoff": {"initial": "40ms", "max": "200ms"}});
    if let Some(spec) = document
        .pointer_mut("/spec")
        .and_then(|s| s.as_object_mut())
    {
        spec.entry("retry").or_insert(quick);
        // The bench's store ends with the case, whatever the broker keeps.
        spec.insert("allowVolatileState".into(), true.into());
    }
    let text = document.to_string();
    let mut loaded = manifest::load(&[("fixture.json", text.as_str())], Target::Local);
    let Some(loaded) = loaded.resources.pop() else {
        let findings = loaded.findings;
        return Err(format!(
            "it cannot be given names and a retry setting: {findings:?}"
        ));
    };
    match connectors(&loaded.resource)
        .iter()
        .find(|name| !name.ends_with(suffix))
    {
        None => Ok((loaded.resource, document)),
        Some(name) => Err(format!("its connector {name} cannot be given another name")),
    }
}

/// The same resource with its queues divided into so many partitions; an error if its type refuses that.
pub(super) fn divided(document: &Value, partitions: u16) -> Result<Resource, String> {
    let mut document = document.clone();
    document["spec"]["ordering"] = serde_json::json!({"mode": "perUser", "partitions": partitions});
    let text = document.to_string();
    let mut loaded = manifest::load(&[("fixture.json", text.as_str())], Target::Local);
    match (loaded.has_errors(), loaded.resources.pop()) {
        (false, Some(loaded)) => Ok(loaded.resource),
        _ => Err(format!(
            "its queues cannot be divided: {:?}",
            loaded.findings
        )),
    }
}

fn connectors(resource: &Resource) -> BTreeSet<String> {
    let topology = resource.topology();
    let ports = topology.intake.iter().chain(&topology.replies);
    let ports = ports.chain(&topology.publishes);
    ports.map(|port| port.connector.clone()).collect()
}

/// Appends `suffix` to these names wherever they stand alone, as a value or as a key.
fn rename(value: &mut Value, names: &BTreeSet<String>, suffix: &str) {
    match value {
        Value::String(text) if names.contains(text) => text.push_str(suffix),
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, names, suffix)),
        Value::Object(map) => {
            for (mut key, mut value) in std::mem::take(map) {
                rename(&mut value, names, suffix);
                if names.contains(&key) {
                    key.push_str(suffix);
                }
                map.insert(key, value);
            }
        }
        _ => {}
    }
}
