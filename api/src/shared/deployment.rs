//! Settings about the pods of a worker. Only the operator reads them: they never reach the worker, and changing them does not
//! change what it is (K9).

use super::autoscaling::Autoscaling;
use super::network_policy::NetworkPolicySettings;
use super::overrides::Overrides;
use super::quantity::Size;
use super::service::ServiceSettings;
use super::shapes::CpuQuantity;
use crate::resource::Resource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of these settings in `spec`.
pub const DEPLOYMENT_SETTINGS: &[&str] = &[
    "replicas",
    "autoscaling",
    "suspend",
    "updatePolicy",
    "readiness",
    "service",
    "resources",
    "networkPolicy",
    "overrides",
];

/// The settings about the pods of one worker, whatever its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// How many pods, when written.
    pub replicas: Option<u16>,
    /// By what the operator decides how many, when written; then `replicas` has no effect.
    pub autoscaling: Option<Autoscaling>,
    /// Whether there are none for now.
    pub suspend: bool,
    /// When a new version of the runtime is taken.
    pub update_policy: UpdatePolicy,
    /// Whether it is ready only while its peer can be reached.
    pub require_link: bool,
    /// How callers reach it, when written.
    pub service: Option<ServiceSettings>,
    /// What each pod may use, when written.
    pub resources: Option<ResourceSettings>,
    /// Who may reach it, when written.
    pub network_policy: Option<NetworkPolicySettings>,
    /// What is changed in the pod template, when written.
    pub overrides: Option<Overrides>,
}

/// When the pods of a worker are replaced because the operator brings a new version of the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum UpdatePolicy {
    /// With the next edit that replaces the pods anyway.
    #[default]
    OnChange,
    /// At once.
    Immediate,
    /// Never, until this says otherwise; edits keep the version that runs.
    Manual,
}

/// What it takes for a worker to be ready, beside its pods and the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadinessSettings {
    /// Whether the worker is not `Ready` while its peer, such as a provider, cannot be reached: whoever waits for the worker waits for
    /// the peer as well, and an outage of the peer holds up a rollout. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_link: Option<bool>,
}

/// What a pod may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceAmounts {
    /// Processor time: cores, or thousandths of one as in `250m`. Default: requested as the operator is set up; no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CpuQuantity>")]
    pub cpu: Option<String>,
    /// Memory. Default: as the operator is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
}

/// What each pod asks for and what it may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSettings {
    /// What is set aside for it on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// What the schema cannot say, as `(path below spec, sentence)` pairs.
pub(crate) fn validate(resource: &Resource) -> Vec<(String, String)> {
    let mut findings = Vec::new();
    let mut refuse = |path: &str, sentence: String| findings.push((path.to_owned(), sentence));
    let settings = resource.deployment();
    if let Some(service) = &settings.service {
        let may_listen = resource
            .worker_type()
            .is_some_and(|w| w.honours.contains(&"service"));
        if may_listen && resource.topology().listens.is_empty() {
            let sentence = "this worker listens nowhere, so nothing would reach it";
            refuse("service", sentence.into());
        }
        let http = resource.transport().and_then(|t| t.http.as_ref());
        if let (Some(expose), Some(http)) = (&service.expose, http) {
            let path = http.path.as_deref().unwrap_or("/");
            let exposed = expose.path.as_deref().unwrap_or(path);
            if !is_below(path, exposed) {
                let sentence = format!(
                    "requests come under this path, but the worker answers {path} (http.path): they would all get 404"
                );
                refuse("service.expose.path", sentence);
            }
        }
    }
    let amounts = settings.resources.unwrap_or_default();
    let (requests, limits) = (
        amounts.requests.unwrap_or_default(),
        amounts.limits.unwrap_or_default(),
    );
    if let (Some(requested), Some(limit)) = (requests.memory, limits.memory)
        && requested > limit
    {
        let sentence = format!("more than resources.limits.memory ({limit})");
        refuse("resources.requests.memory", sentence);
    }
    let cpu = |text: &Option<String>| text.as_deref().and_then(millicores);
    if let (Some(requested), Some(limit)) = (cpu(&requests.cpu), cpu(&limits.cpu))
        && requested > limit
    {
        let sentence = "more than resources.limits.cpu".into();
        refuse("resources.requests.cpu", sentence);
    }
    findings.extend(settings.overrides.iter().flat_map(Overrides::validate));
    findings
}

/// Whether `path` is `beginning` or below it, part by part.
fn is_below(path: &str, beginning: &str) -> bool {
    let beginning = beginning.trim_end_matches('/');
    path.strip_prefix(beginning)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Thousandths of a core.
fn millicores(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(number) => number.parse().ok(),
        None => {
            let (whole, part) = text.split_once('.').unwrap_or((text, ""));
            let part: u64 = format!("{part:0<3}").parse().ok()?;
            Some(
                whole
                    .parse::<u64>()
                    .ok()?
                    .saturating_mul(1000)
                    .saturating_add(part),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_compared_in_thousandths() {
        for (text, number) in [("250m", 250), ("1", 1000), ("0.5", 500), ("1.25", 1250)] {
            assert_eq!(millicores(text), Some(number), "{text}");
        }
    }

    #[test]
    fn a_path_is_below_another_part_by_part() {
        for (path, beginning, below) in [
            ("/", "/", true),
            ("/sms", "/", true),
            ("/sms", "/sms", true),
            ("/sms/in", "/sms/", true),
            ("/smsc", "/sms", false),
            ("/", "/sms", false),
        ] {
            assert_eq!(is_below(path, beginning), below, "{path} {beginning}");
        }
    }
}
