//! Who the pods are, who reaches them, and when they may be taken away: ServiceAccount, NetworkPolicy,
//! PodDisruptionBudget.

use super::Cx;
use crate::desired::Child;
use crate::hash::hash;
use crate::names::SECRET_REVISION;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::BTreeMap;
use vumi_api::shared::EgressRule;
use vumi_api::shared::shapes::ADMIN_PORT;

/// An account of the worker's own, without a token (K37). It says of which Secrets the pods were told: an object that no controller
/// looks at and that has no generation, so that nothing waits for anybody to have seen that.
pub fn service_account(cx: &Cx<'_>) -> Child {
    let mut account = Child::of(&ServiceAccount {
        metadata: cx.names.metadata(cx.names.child()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    });
    if let Some(revision) = secret_revision(cx) {
        account.object["metadata"]["annotations"][SECRET_REVISION] = revision.into();
    }
    account
}

/// Which revisions its Secrets have, as one word. Where that is not known, as offline, what was told last stays.
fn secret_revision(cx: &Cx<'_>) -> Option<String> {
    let secrets = &cx.context.secrets;
    if secrets.is_empty() || !cx.context.knows_revisions() {
        return cx.context.secret_revision.clone();
    }
    let revisions = secrets.iter().map(|(name, facts)| (name, &facts.revision));
    Some(hash(&json!(revisions.collect::<Vec<_>>())))
}

/// One pod at a time, and a broken one never blocks a drain (K26).
pub fn disruption_budget(cx: &Cx<'_>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: cx.names.metadata(cx.names.child()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(cx.names.selector()),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// The NetworkPolicy, where one is asked for (K29).
pub fn network_policy(cx: &Cx<'_>) -> Option<NetworkPolicy> {
    let wanted = cx.resource.deployment().network_policy?;
    let mut ingress = Vec::new();
    let ports: Vec<NetworkPolicyPort> = cx.ports().iter().map(|(_, p)| port("TCP", *p)).collect();
    if !ports.is_empty() {
        ingress.push(NetworkPolicyIngressRule {
            from: wanted
                .callers
                .as_ref()
                .map(|labels| vec![namespaces(labels)]),
            ports: Some(ports),
        });
    }
    if let Some(labels) = wanted.metrics.as_ref().filter(|_| cx.custom().is_none()) {
        ingress.push(NetworkPolicyIngressRule {
            from: Some(vec![namespaces(labels)]),
            ports: Some(vec![port("TCP", ADMIN_PORT)]),
        });
    }
    let mut policy_types = vec!["Ingress".to_owned()];
    let egress = wanted.egress.map(|rules| {
        policy_types.push("Egress".into());
        let dns = NetworkPolicyEgressRule {
            to: None,
            ports: Some(vec![port("UDP", 53), port("TCP", 53)]),
        };
        [dns]
            .into_iter()
            .chain(rules.iter().map(egress_rule))
            .collect()
    });
    Some(NetworkPolicy {
        metadata: cx.names.metadata(cx.names.child()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(cx.names.selector()),
            ingress: Some(ingress),
            egress,
            policy_types: Some(policy_types),
        }),
    })
}

fn egress_rule(rule: &EgressRule) -> NetworkPolicyEgressRule {
    let block = rule.cidr.as_ref().map(|cidr| NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.clone(),
            except: None,
        }),
        ..NetworkPolicyPeer::default()
    });
    let peer = block.or_else(|| rule.namespace_labels.as_ref().map(namespaces));
    let ports = rule.ports.as_ref();
    NetworkPolicyEgressRule {
        to: peer.map(|peer| vec![peer]),
        ports: ports.map(|ports| ports.iter().map(|p| port("TCP", *p)).collect()),
    }
}

/// All pods of the namespaces with these labels.
fn namespaces(labels: &BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(labels.clone()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(protocol: &str, port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(port.into())),
        end_port: None,
    }
}
