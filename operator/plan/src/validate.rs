//! Whether there is anything to build. What the schema and the manifest reader cannot see is seen here: the Secrets that are
//! there, the state store that is needed, what this operator allows.

use crate::context::{Context, SecretFacts};
use crate::reasons::Reason;
use crate::settings::Settings;
use std::net::IpAddr;
use vumi_api::shared::StateNeed;
use vumi_api::shared::state::DEFAULT_STATE_SECRET;
use vumi_api::{Resource, SecretUse};

/// A resource that can be built.
#[derive(Clone, Debug)]
pub struct Validated {
    resource: Resource,
}

impl Validated {
    /// The resource.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }
}

/// Why nothing is applied and nothing is pruned (K3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What has to happen.
    pub outcome: Outcome,
    /// A word for conditions and events.
    pub reason: Reason,
    /// A sentence: what is wrong, where, and what to do.
    pub message: String,
}

/// What has to happen before a refused resource can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody has to edit it: condition `Stalled`.
    Stalled,
    /// Something has to come into being: condition `Reconciling`.
    Waiting,
}

/// Why a resource is not touched at all, not even its status: the CRD that is installed does not know its worker type, so that
/// none is left of it, and a write would make that last (K2). None of any other.
pub fn pruned(resource: &Resource) -> Option<Refusal> {
    let message =
        "no worker type is set: the CRD that is installed does not know it; upgrade the CRDs";
    resource.worker_type().is_none().then(|| Refusal {
        outcome: Outcome::Stalled,
        reason: Reason::Pruned,
        message: message.to_owned(),
    })
}

/// Why a resource of a kind that has no worker yet is not built. None of any other kind. Definitions of this version take none of
/// them: one that is there was stored under others.
pub fn reserved(resource: &Resource) -> Option<Refusal> {
    let kind = resource.kind();
    kind.worker_types().is_empty().then(|| Refusal {
        outcome: Outcome::Stalled,
        reason: Reason::KindReserved,
        message: format!(
            "no worker of this version ({}) runs a {kind}: delete it, or upgrade the CRDs and the operator to a version that has one",
            env!("CARGO_PKG_VERSION")
        ),
    })
}

/// Judges a resource in its surroundings.
///
/// # Errors
/// Why it is not built. Then its last good children run on: nothing is applied, nothing is pruned.
pub fn validate(
    resource: &Resource,
    context: &Context,
    settings: &Settings,
) -> Result<Validated, Refusal> {
    use Outcome::{Stalled, Waiting};
    let refuse = |outcome, reason, message: String| {
        Err(Refusal {
            outcome,
            reason,
            message,
        })
    };
    if let Some(refusal) = reserved(resource).or_else(|| pruned(resource)) {
        return Err(refusal);
    }
    let findings = resource.validate();
    if !findings.is_empty() {
        let sentences: Vec<String> = findings
            .iter()
            .map(|(path, sentence)| format!("spec.{path}: {sentence}"))
            .collect();
        return refuse(Stalled, Reason::Invalid, sentences.join("; "));
    }
    for (host, port) in resource.topology().listens {
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if loopback {
            let message = format!(
                "it listens on {host}:{port}, where nothing outside of its pod reaches it: leave host out"
            );
            return refuse(Stalled, Reason::Invalid, message);
        }
    }
    if resource.deployment().overrides.is_some() && !settings.allow_overrides {
        let message =
            "spec.overrides: this operator does not allow overrides (allowOverrides)".to_owned();
        return refuse(Stalled, Reason::OverridesNotAllowed, message);
    }
    if resource.in_container() && !settings.allow_custom {
        let message =
            "spec.custom: this operator runs no programs but its own (allowCustom)".to_owned();
        return refuse(Stalled, Reason::CustomNotAllowed, message);
    }
    let (need, field) = resource.state_need();
    let default_store = context.secrets.contains_key(DEFAULT_STATE_SECRET);
    if need != StateNeed::None && resource.settings().state.is_none() && !default_store {
        let message = format!(
            "spec.{field} needs a state store: write spec.state, or make the Secret {DEFAULT_STATE_SECRET} in this namespace"
        );
        return refuse(Stalled, Reason::NoStateStore, message);
    }
    for (name, used) in resource.secrets() {
        let needed = used.broker || used.redis || !used.needed.is_empty();
        match context.secrets.get(&name) {
            None if needed => {
                let message = format!("waiting for the Secret {name}");
                return refuse(Waiting, Reason::SecretMissing, message);
            }
            None => {}
            Some(facts) => {
                if let Some(missing) = missing_key(&used, facts) {
                    let message = format!("the Secret {name} has no {missing}");
                    let address = used.broker && used.needed.is_subset(&facts.keys);
                    return match resource.in_container() && address {
                        true => refuse(Stalled, Reason::BrokerKeys, message),
                        false => refuse(Waiting, Reason::SecretKeyMissing, message),
                    };
                }
                let vhost = resource.broker().vhost.is_some();
                if used.broker && resource.in_container() && vhost && !facts.is_split() {
                    let message = format!(
                        "the Secret {name} has no host, username and password, and its connection_string names a virtual host of its own beside spec.broker.vhost"
                    );
                    return refuse(Stalled, Reason::BrokerKeys, message);
                }
            }
        }
    }
    Ok(Validated {
        resource: resource.clone(),
    })
}

/// What a Secret lacks, in words.
fn missing_key(used: &SecretUse, facts: &SecretFacts) -> Option<String> {
    let has = |key: &str| facts.keys.contains(key);
    if let Some(key) = used.needed.iter().find(|key| !has(key)) {
        return Some(format!("value in its key {key}"));
    }
    if used.broker && !has("connection_string") && !facts.is_split() {
        return Some("connection_string, nor host, username and password".into());
    }
    let sentinels = has("sentinels") && has("masterName");
    if used.redis && !has("connection_string") && !has("host") && !sentinels {
        return Some("connection_string, nor host, nor sentinels and masterName".into());
    }
    None
}
