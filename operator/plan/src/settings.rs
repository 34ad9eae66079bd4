//! How the operator is set up: what it gives to every worker. The chart's values, or a file.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vumi_api::Size;
use vumi_api::shared::{ResourceAmounts, ResourceSettings};

/// Settings of the operator that shape what it builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Image of the runtime, with its tag.
    pub image: String,
    /// When it is fetched: `Always`, `IfNotPresent` or `Never`. Without it Kubernetes decides by the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Names of the Secrets with which it is fetched.
    pub image_pull_secrets: Vec<String>,
    /// What workers log: `VUMI_LOG`, as in `info`. Without it the runtime's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// What a pod asks for and may use where its resource does not say.
    pub resources: ResourceSettings,
    /// Whether workers get a PodMonitor of the Prometheus operator, and how it looks. None without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<PodMonitorSettings>,
    /// Whether resources may have `overrides`. Who may write these decides what runs in the namespace.
    pub allow_overrides: bool,
    /// Whether resources may be of type `custom`: a program of somebody else, in an image of their choice.
    pub allow_custom: bool,
}

/// How PodMonitors look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodMonitorSettings {
    /// Labels by which a Prometheus finds them.
    pub labels: BTreeMap<String, String>,
    /// How often metrics are read, as in `30s`. Without it Prometheus decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let memory = |mebibytes: u64| Some(Size(mebibytes << 20));
        Self {
            image: concat!("vumi:", env!("CARGO_PKG_VERSION")).into(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            log_level: None,
            resources: ResourceSettings {
                requests: Some(ResourceAmounts {
                    cpu: Some("20m".into()),
                    memory: memory(32),
                }),
                limits: Some(ResourceAmounts {
                    cpu: None,
                    memory: memory(256),
                }),
            },
            pod_monitor: None,
            allow_overrides: true,
            allow_custom: true,
        }
    }
}
