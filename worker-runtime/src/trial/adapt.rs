//! The manifests of a campaign as they run in a test: on free ports, and with fake servers in place of those that they call.

use super::cast::Cast;
use super::file::TestFile;
use super::peers::FakeServer;
use crate::error::CliError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::TcpListener;
use vumi_api::manifest::load;
use vumi_api::{Resource, Target};

/// The workers as they run in the test: on free ports, and with fake servers in place of those that they call.
pub(super) fn adapted(
    cast: &mut Cast,
    file: &TestFile,
    servers: &BTreeMap<String, FakeServer>,
) -> Result<(Vec<Resource>, BTreeMap<String, u16>), CliError> {
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
    let origins: Vec<(&str, &str)> = file
        .servers
        .iter()
        .filter_map(|(name, server)| Some((server.at.as_deref()?, &*servers.get(name)?.origin)))
        .collect();
    for value in cast.secrets.values_mut().flat_map(BTreeMap::values_mut) {
        if let Some(known) = redirected(value, &origins) {
            *value = known;
        }
    }
    let mut texts = Vec::new();
    let mut strangers = Vec::new();
    for (name, text) in &cast.texts {
        for document in serde_yaml::Deserializer::from_str(text) {
            let mut document = serde_yaml::Value::deserialize(document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            if !runs(cast, &document) {
                continue;
            }
            rewrite(&mut document, "", &free, &origins, &mut strangers);
            let text = serde_yaml::to_string(&document)
                .map_err(|error| CliError::validation(format!("{name}: {error}")))?;
            texts.push((name.clone(), text));
        }
    }
    if !strangers.is_empty() {
        return Err(CliError::validation(format!(
            "a test calls nobody outside of it: write a fake server with `at` for {}",
            strangers.join(", ")
        )));
    }
    let loaded = load(&texts, Target::Local);
    if loaded.has_errors() {
        let findings: Vec<String> = loaded.findings.iter().map(ToString::to_string).collect();
        return Err(CliError::validation(format!(
            "the manifests are not valid once ports and addresses are those of the test:\n{}",
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

/// Puts free ports and fake servers in place; collects addresses of others.
fn rewrite(
    value: &mut serde_yaml::Value,
    key: &str,
    ports: &BTreeMap<u16, u16>,
    origins: &[(&str, &str)],
    strangers: &mut Vec<String>,
) {
    use serde_yaml::Value;
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping.iter_mut() {
                let key = key.as_str().unwrap_or("").to_owned();
                rewrite(value, &key, ports, origins, strangers);
            }
        }
        Value::Sequence(values) => {
            for value in values {
                rewrite(value, key, ports, origins, strangers);
            }
        }
        Value::Number(number) if key == "port" => {
            let port = number.as_u64().and_then(|port| u16::try_from(port).ok());
            if let Some(free) = port.and_then(|port| ports.get(&port)) {
                *value = Value::from(u64::from(*free));
            }
        }
        Value::String(text) if text.starts_with("http://") || text.starts_with("https://") => {
            match redirected(text, origins) {
                Some(known) => *text = known,
                None => strangers.push(text.clone()),
            }
        }
        _ => {}
    }
}

/// An address with the fake server in place of the real one, if there is one.
fn redirected(address: &str, origins: &[(&str, &str)]) -> Option<String> {
    origins.iter().find_map(|(at, origin)| {
        let rest = address.strip_prefix(at)?;
        // `https://a.org` is not the beginning of `https://a.org.evil`.
        let whole = at.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']);
        let gap = if at.ends_with('/') { "/" } else { "" };
        whole.then(|| format!("{origin}{gap}{rest}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_fake_servers_take_the_place_of_real_ones() {
        let origins = [
            ("https://a.org", "http://127.0.0.1:1"),
            ("http://b.org/api/", "http://127.0.0.1:2"),
        ];
        for (address, known) in [
            ("https://a.org", Some("http://127.0.0.1:1")),
            ("https://a.org/x?y=1", Some("http://127.0.0.1:1/x?y=1")),
            ("https://a.org.evil/x", None),
            ("http://b.org/api/x", Some("http://127.0.0.1:2/x")),
            ("http://b.org/other", None),
        ] {
            assert_eq!(redirected(address, &origins).as_deref(), known, "{address}");
        }
    }

    #[test]
    fn ports_and_addresses_of_manifests_become_those_of_the_test() {
        let text = "spec: {http: {port: 8080}, other: {port: 9}, urls: [https://a.org/x, https://c.org/], say: at https://d.org}";
        let mut document: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
        let mut strangers = Vec::new();
        let origins = [("https://a.org", "http://127.0.0.1:1")];
        rewrite(
            &mut document,
            "",
            &BTreeMap::from([(8080, 1234)]),
            &origins,
            &mut strangers,
        );
        let expected: serde_yaml::Value = serde_yaml::from_str(
            "spec: {http: {port: 1234}, other: {port: 9}, urls: ['http://127.0.0.1:1/x', https://c.org/], say: at https://d.org}",
        )
        .unwrap();
        assert_eq!(document, expected);
        assert_eq!(strangers, ["https://c.org/"]);
    }
}
