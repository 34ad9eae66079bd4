//! Which workers of a campaign run in a test, and where the campaign meets what does not run.

use super::file::{Action, Test, TestFile};
use crate::error::CliError;
use crate::manifests;
use std::collections::{BTreeMap, BTreeSet};
use vumi_api::manifest::{Texts, campaign_findings, load};
use vumi_api::{Flow, Kind, Port, Resource, Severity, Target};

/// What of a campaign runs in one test, as a pure function of its files.
pub struct Cast {
    pub(super) texts: Vec<(String, String)>,
    pub(super) resources: Vec<Resource>,
    pub(super) secrets: Texts,
    /// Connectors of transports that run, by the names of the transports.
    pub real: BTreeMap<String, String>,
    /// Connectors that have a stand-in.
    pub stand_ins: Vec<String>,
}

impl Cast {
    /// Reads the manifests and decides which transports run: those that a step speaks to, and those that the file says.
    pub fn of(file: &TestFile, test: &Test) -> Result<Self, CliError> {
        let texts = manifests::read(&file.manifest_paths())?;
        let mut found = load(&texts, Target::Local);
        for (name, keys) in &file.secrets {
            let held = found.secrets.entry(name.clone()).or_default();
            held.extend(keys.clone());
        }
        let mut findings = std::mem::take(&mut found.findings);
        findings.extend(campaign_findings(&found));
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(ToString::to_string)
            .collect();
        if !errors.is_empty() {
            return Err(CliError::validation(errors.join("\n")));
        }
        // An application in a container is a program of its own: the test plays its part.
        let plays = |r: &Resource| r.in_container() && r.kind() != Kind::Transport;
        let resources = found.resources.into_iter().map(|r| r.resource);
        let resources: Vec<Resource> = resources.filter(|r| !plays(r)).collect();
        if resources.is_empty() {
            return Err(CliError::validation("there is no worker in the manifests"));
        }
        let transports: BTreeMap<String, String> = resources
            .iter()
            .filter_map(|resource| {
                let transport = (resource.kind() == Kind::Transport).then_some(resource)?;
                Some((resource.name.clone(), transport.transport_name().to_owned()))
            })
            .collect();
        let programs = resources.iter().filter(|r| r.in_container());
        let programs: BTreeSet<String> = programs.map(|r| r.name.clone()).collect();
        let named = spoken_to(file, test, &transports)?;
        let real: BTreeMap<String, String> = transports
            .into_iter()
            .filter(|(name, connector)| named.contains(name) || named.contains(connector))
            .filter(|(name, _)| !programs.contains(name))
            .collect();
        let runs = |resource: &Resource| {
            resource.kind() != Kind::Transport || real.contains_key(&resource.name)
        };
        let (running, replaced): (Vec<Resource>, Vec<Resource>) =
            resources.into_iter().partition(runs);
        let stand_ins = outside(&running, &replaced);
        let mut known = connectors(&running);
        known.extend(stand_ins.iter().cloned());
        let named = test.steps.iter().enumerate().flat_map(|(at, step)| {
            let names = step
                .action()
                .map_or(Vec::new(), |(_, action)| names(action));
            names
                .into_iter()
                .map(move |name| (format!("step {}", at + 1), name))
        });
        let head = file
            .transports
            .keys()
            .map(|name| ("transports".to_owned(), name));
        for (place, name) in head.chain(named) {
            if !known.contains(name) && !real.contains_key(name) {
                return Err(CliError::validation(format!(
                    "{place}: {name:?} is no connector of this campaign; there are: {}",
                    listed(&known)
                )));
            }
        }
        Ok(Self {
            texts,
            resources: running,
            secrets: found.secrets,
            real,
            stand_ins,
        })
    }
}

/// Names, for people.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: BTreeSet<&str> = names.into_iter().map(String::as_str).collect();
    match names.is_empty() {
        true => "none".into(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// Connectors of workers.
pub(super) fn connectors(resources: &[Resource]) -> BTreeSet<String> {
    let mut connectors = BTreeSet::new();
    for resource in resources {
        let topology = resource.topology();
        let ports = topology.intake.iter().chain(&topology.replies);
        let ports = ports.chain(&topology.publishes);
        connectors.extend(ports.map(|port| port.connector.clone()));
    }
    connectors
}

/// Connectors that a step names.
fn names(action: Action<'_>) -> Vec<&String> {
    match action {
        Action::Inbound(given) | Action::Outbound(given) => given.connector.iter().collect(),
        Action::Event(given) => given.connector.iter().collect(),
        Action::Transports(changed) => changed.keys().collect(),
        Action::Expect(expect) => {
            let messages = expect.outbound.iter().chain(&expect.inbound).flatten();
            let messages = messages.filter_map(|message| message.connector.as_ref());
            let events = expect.events.iter().flatten();
            messages
                .chain(events.filter_map(|event| event.connector.as_ref()))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Transports that run, by name or connector.
fn spoken_to(
    file: &TestFile,
    test: &Test,
    transports: &BTreeMap<String, String>,
) -> Result<BTreeSet<String>, CliError> {
    let mut named = BTreeSet::new();
    let is_transport = |name: &String| {
        transports.contains_key(name) || transports.values().any(|known| known == name)
    };
    for (at, step) in test.steps.iter().enumerate() {
        let name = match step.action() {
            // To a dispatcher, as an application behind it would that is none of the manifests.
            Some((_, Action::Outbound(given)))
                if given
                    .connector
                    .as_ref()
                    .is_some_and(|name| !is_transport(name)) =>
            {
                continue;
            }
            Some((_, Action::Request(request))) => Some(&request.to),
            Some((_, Action::Line(line))) => Some(&line.to),
            // Nobody but the transport itself takes it.
            Some((_, Action::Outbound(given))) => given.connector.as_ref().or({
                match transports.len() {
                    1 => transports.keys().next(),
                    _ => None,
                }
            }),
            _ => continue,
        };
        let Some(name) = name else {
            return Err(CliError::validation(format!(
                "step {}: name the connector; there are: {}",
                at + 1,
                listed(transports.values())
            )));
        };
        if !is_transport(name) {
            return Err(CliError::validation(format!(
                "step {}: there is no transport {name:?}; there are: {}",
                at + 1,
                listed(transports.keys())
            )));
        }
        named.insert(name.clone());
    }
    let said = file.transports.iter().filter(|(_, setting)| setting.real);
    named.extend(said.map(|(name, _)| name.clone()));
    Ok(named)
}

/// Connectors at which the campaign meets what does not run: those of replaced transports, and those to which workers
/// publish although none reads them.
fn outside(running: &[Resource], replaced: &[Resource]) -> Vec<String> {
    let topologies: Vec<_> = running.iter().map(Resource::topology).collect();
    let reads = |port: &Port| {
        topologies
            .iter()
            .any(|topology| topology.intake.contains(port) || topology.replies.contains(port))
    };
    let mut outside: BTreeSet<String> = replaced
        .iter()
        .map(|resource| resource.transport_name().to_owned())
        .collect();
    for port in topologies.iter().flat_map(|topology| &topology.publishes) {
        if port.flow == Flow::Outbound && !reads(port) {
            outside.insert(port.connector.clone());
        }
    }
    outside.into_iter().collect()
}
