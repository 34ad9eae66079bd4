//! The manifests of a campaign as they run in a test: on free ports of this machine. Whom they call is not written anew: that
//! is decided when they do ([`super::way`]).

use super::cast::Cast;
use crate::error::CliError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::TcpListener;
use vumi_api::manifest::load;
use vumi_api::{Resource, Target};

/// The workers as they run in the test, on free ports, and the ports by name.
pub(super) fn adapted(cast: &Cast) -> Result<(Vec<Resource>, BTreeMap<String, u16>), CliError> {
    let failed = |error: std::io::Error| CliError::environment(format!("no free port: {error}"));
    let mut free: BTreeMap<u16, u16> = BTreeMap::new();
    // Held until all are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    let mut ports = BTreeMap::new();
    for resource in &cast.resources {
        for (_, port) in resource.topology().listens {
            let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
            let chosen = listener.local_addr().map_err(failed)?.port();
            held.push(listener);
            let chosen = *free.entry(port).or_insert(chosen);
            ports.entry(resource.name.clone()).or_insert(chosen);
        }
    }
    let mut texts = Vec::new();
    for (name, text) in &cast.texts {
        for document in serde_yaml::Deserializer::from_str(text) {
            let mut document = serde_yaml::Value::deserialize(document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            if !runs(cast, &document) {
                continue;
            }
            rewrite(&mut document, &free);
            let text = serde_yaml::to_string(&document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            texts.push((name.clone(), text));
        }
    }
    let loaded = load(&texts, Target::Local);
    if loaded.has_errors() {
        let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        return Err(CliError::validation(format!(
            "the manifests are not valid once ports are those of the test:\n{}",
            findings.join("\n")
        )));
    }
    let resources = loaded.resources.into_iter().map(|loaded| loaded.resource);
    Ok((resources.collect(), ports))
}

/// Whether a document is a worker that runs.
fn runs(cast: &Cast, document: &serde_yaml::Value) -> bool {
    let text = |value: Option<&serde_yaml::Value>| {
        value
            .and_then(serde_yaml::Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let kind = text(document.get("kind"));
    let name = text(
        document
            .get("metadata")
            .and_then(|metadata| metadata.get("name")),
    );
    cast.resources
        .iter()
        .any(|resource| resource.kind().as_str() == kind && resource.name == name)
}

/// Puts free ports of this machine in place: of the sections of `spec` that listen.
fn rewrite(document: &mut serde_yaml::Value, ports: &BTreeMap<u16, u16>) {
    let spec = document.get_mut("spec");
    let Some(spec) = spec.and_then(serde_yaml::Value::as_mapping_mut) else {
        return;
    };
    let sections = spec.values_mut();
    for section in sections.filter_map(serde_yaml::Value::as_mapping_mut) {
        let port = section.get("port").and_then(serde_yaml::Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok());
        if let Some(free) = port.and_then(|port| ports.get(&port)) {
            section.insert("port".into(), u64::from(*free).into());
            // An address of the cluster is none of this machine, and nobody else is to be served.
            section.insert("host".into(), "127.0.0.1".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_manifests_become_those_of_the_test() {
        let rewritten = |text: &str| {
            let mut document: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
            rewrite(&mut document, &BTreeMap::from([(8080, 1234)]));
            document
        };
        let plain = |text: &str| -> serde_yaml::Value { serde_yaml::from_str(text).unwrap() };
        assert_eq!(
            rewritten("spec: {http: {port: 8080}, other: {port: 9}, say: at https://d.org}"),
            plain(
                "spec: {http: {port: 1234, host: 127.0.0.1}, other: {port: 9}, say: at https://d.org}"
            )
        );
        assert_eq!(
            rewritten("spec: {telnet: {host: 10.1.2.3, port: 8080}}"),
            plain("spec: {telnet: {host: 127.0.0.1, port: 1234}}")
        );
        let elsewhere = "spec: {genericHttp: {settings: {port: 8080}}}";
        assert_eq!(rewritten(elsewhere), plain(elsewhere));
    }
}
