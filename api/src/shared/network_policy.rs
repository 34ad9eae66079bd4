//! Who may reach the pods of a worker, and whom they may reach (K29).

use super::shapes::{Labels, Ports};
use crate::crds::one_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whom an egress rule names: the keys of [`EgressRule`] of which exactly one is given.
pub const PEERS: &[&str] = &["cidr", "namespaceLabels"];

/// A NetworkPolicy for the pods of a worker: nothing reaches them but what is named here. `{}` leaves open the ports on which the
/// worker listens and closes all others. It has an effect only where the network of the cluster enforces policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicySettings {
    /// Labels of the namespaces from which the worker may be called. Default: it may be called from everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Labels>")]
    pub callers: Option<BTreeMap<String, String>>,
    /// Labels of the namespaces from which metrics may be read, on port 9464. Default: none; the node's own probes pass
    /// without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Labels>")]
    pub metrics: Option<BTreeMap<String, String>>,
    /// What the worker may reach beside DNS: broker and state store must be among it. Default: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub egress: Option<Vec<EgressRule>>,
}

/// One thing that the worker may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [one_of("peer", PEERS)]))]
pub struct EgressRule {
    /// Addresses, as in `10.20.0.0/16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 64))]
    pub cidr: Option<String>,
    /// Labels of namespaces: all pods in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Labels>")]
    pub namespace_labels: Option<BTreeMap<String, String>>,
    /// TCP ports. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Ports>")]
    pub ports: Option<Vec<u16>>,
}
