//! Which broker a worker uses, as far as manifests say: two workers with one queue between them must use the same, or
//! neither ever hears the other.

use super::finding::{BROKER_SPLIT, Finding, Severity};
use super::{LoadedResource, Manifests, Target};
use crate::shared::{BrokerProfile, BrokerRef};
use crate::topology::Port;
use std::collections::BTreeSet;

/// Which broker it is, profile included: queues of two profiles cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The address in the Secret, if it is at hand; else the Secret's name. Empty for the broker inside the process.
    place: String,
    vhost: String,
    profile: &'static str,
}

/// A broker as a worker names it.
pub(super) struct Named {
    pub(super) key: Key,
    /// As it is written, for people.
    shown: String,
}

impl Named {
    /// The broker of a worker. Whatever manifests say, they all use the same if the command line names one.
    pub(super) fn of(worker: &LoadedResource, manifests: &Manifests) -> Self {
        let inside = Self {
            key: Key {
                place: String::new(),
                vhost: String::new(),
                profile: BrokerProfile::default().as_str(),
            },
            shown: "the default broker".into(),
        };
        if manifests.one_broker {
            return inside;
        }
        let settings = worker.resource.settings();
        let (broker, shown) = match (settings.broker, manifests.target) {
            (Some(broker), _) => {
                let shown = shown(&broker);
                (broker, shown)
            }
            (None, Target::Local) => return inside,
            (None, Target::Cluster) => (BrokerRef::usual(), inside.shown),
        };
        let secret = &broker.secret_ref.name;
        let (place, vhost) = address(manifests, secret);
        Self {
            key: Key {
                place,
                vhost: broker.vhost.clone().unwrap_or(vhost),
                profile: broker.profile.unwrap_or_default().as_str(),
            },
            shown,
        }
    }

    /// What differs, in words.
    fn differs_from(&self, other: &Self) -> String {
        let (mine, theirs) = (&self.key, &other.key);
        match mine.profile == theirs.profile {
            false if mine.place == theirs.place && mine.vhost == theirs.vhost => {
                format!("in profile {} and not {}", theirs.profile, mine.profile)
            }
            _ => format!("on {} and not on {}", other.shown, self.shown),
        }
    }
}

fn shown(broker: &BrokerRef) -> String {
    let vhost = broker.vhost.as_deref().map(|v| format!(", vhost {v}"));
    let profile = broker
        .profile
        .map(|profile| format!(", profile {}", profile.as_str()));
    format!(
        "the broker of Secret {}{}{}",
        broker.secret_ref.name,
        vhost.unwrap_or_default(),
        profile.unwrap_or_default()
    )
}

/// Host, port and virtual host in a Secret that is at hand, without who we are there; else its name.
fn address(manifests: &Manifests, secret: &str) -> (String, String) {
    let unknown = (format!("Secret {secret}"), "/".to_owned());
    let Some(keys) = manifests.secrets.get(secret) else {
        return unknown;
    };
    let key = |name: &str| keys.get(name).map(String::as_str).unwrap_or_default();
    if let Some((_, rest)) = key("connection_string").split_once("://") {
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let vhost = if path.is_empty() { "/" } else { path };
        return (host.to_owned(), vhost.to_owned());
    }
    match key("host") {
        "" => unknown,
        host => {
            let vhost = if key("vhost").is_empty() {
                "/"
            } else {
                key("vhost")
            };
            let port = if key("port").is_empty() {
                "5672"
            } else {
                key("port")
            };
            (format!("{host}:{port}"), vhost.to_owned())
        }
    }
}

/// A worker, its broker, and what it does with queues.
pub(super) struct Hearing<'m> {
    pub(super) loaded: &'m LoadedResource,
    pub(super) broker: &'m Named,
    pub(super) publishes: &'m [Port],
    pub(super) consumes: Vec<&'m Port>,
}

/// Workers that publish to a queue which another one consumes on another broker; each pair once.
pub(super) fn split(workers: &[Hearing<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for (index, speaker) in workers.iter().enumerate() {
        for port in speaker.publishes {
            let hears = |other: &&(usize, &Hearing<'_>)| other.1.consumes.contains(&port);
            let others: Vec<_> = workers.iter().enumerate().collect();
            let listeners: Vec<_> = others.iter().filter(hears).collect();
            if listeners
                .iter()
                .any(|(_, l)| l.broker.key == speaker.broker.key)
            {
                continue;
            }
            for (other, listener) in listeners {
                if !told.insert((index.min(*other), index.max(*other))) {
                    continue;
                }
                let message = format!(
                    "{} consumes {port}, but {}: they never hear each other",
                    listener.loaded.resource.key(),
                    speaker.broker.differs_from(listener.broker)
                );
                let mut finding =
                    speaker
                        .loaded
                        .finding(Severity::Warning, BROKER_SPLIT, "broker", message);
                finding.help = Some(format!(
                    "give both the same `broker`; {} is at {}:{}",
                    listener.loaded.resource.key(),
                    listener.loaded.file,
                    listener.loaded.line
                ));
                findings.push(finding);
            }
        }
    }
    findings
}
