//! How callers reach a worker that listens: its Service, and an Ingress or HTTPRoute for calls from outside (K27, K28).

use super::shapes::{Annotations, ListenHost, PATH_PATTERN};
use crate::crds::one_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ways by which calls come in from outside the cluster: the keys of [`Expose`] of which exactly one is given.
pub const EXPOSURES: &[&str] = &["ingress", "httpRoute"];

/// The Service of a worker that listens. There is one without this setting too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSettings {
    /// Type of the Service. Default `ClusterIP`.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub service_type: Option<ServiceType>,
    /// Port of the Service; it leads to the port on which the worker listens. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Annotations of the Service, for example for the load balancer of a cloud. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// How callers outside of the cluster reach it by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
}

/// Types of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// An address inside the cluster.
    #[default]
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// A load balancer outside of the cluster.
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceType::ClusterIP => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
        }
    }
}

/// How callers outside of the cluster reach a worker by HTTP: by an Ingress or by an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [one_of("exposure", EXPOSURES)]))]
pub struct Expose {
    /// An Ingress. Its controller must wait for answers longer than `http.requestTimeout`: set its annotation for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSettings>,
    /// An HTTPRoute of the Gateway API; its request timeout is `http.requestTimeout` and five seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteSettings>,
    /// Host name that callers use.
    #[schemars(with = "ListenHost")]
    pub host: String,
    /// Beginning of the paths that lead to this worker. Default `http.path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub path: Option<String>,
    /// What callers begin the address with; it is told in the status. Default `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
}

/// Schemes of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS, which ends at the Ingress controller, at the Gateway or before.
    #[default]
    Https,
}

impl Scheme {
    /// As it is written in an address.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// An Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressSettings {
    /// Class of the Ingress. Default: that of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Annotations of the Ingress, for example how long its controller waits for an answer. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Annotations>")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Name of the Secret with the certificate of the host. Default: that of the controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub tls_secret_name: Option<String>,
}

/// An HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSettings {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub gateway: String,
    /// Namespace of the Gateway. Default: that of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub gateway_namespace: Option<String>,
    /// Name of one of its listeners. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub listener: Option<String>,
}
