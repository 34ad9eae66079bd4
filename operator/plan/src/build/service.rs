//! How callers reach a worker that listens: its Service, and an Ingress or HTTPRoute (K27, K28).

use super::Cx;
use crate::desired::{Child, Note};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::time::Duration;
use vumi_api::shared::{Expose, HttpRouteSettings, IngressSettings};

/// How much longer than the worker a gateway waits: the worker's own answer says more.
const PATIENCE: Duration = Duration::from_secs(5);

/// The port of the Service that leads to the worker's `port`.
fn outer_port(cx: &Cx<'_>, port: u16) -> u16 {
    let wanted = cx
        .resource
        .deployment()
        .service
        .and_then(|service| service.port);
    wanted.unwrap_or(port)
}

/// The Service, where the worker listens.
pub fn service(cx: &Cx<'_>) -> Option<Service> {
    let ports = cx.ports();
    if ports.is_empty() {
        return None;
    }
    let wanted = cx.resource.deployment().service.unwrap_or_default();
    let mut metadata = cx.names.metadata(cx.names.child());
    metadata.annotations = wanted.annotations.clone();
    let outer = |(name, port): &(String, u16)| ServicePort {
        name: Some(name.clone()),
        port: outer_port(cx, *port).into(),
        target_port: Some(IntOrString::String(name.clone())),
        protocol: Some("TCP".into()),
        app_protocol: (name == "http" || name.starts_with("http-")).then(|| "http".into()),
        ..ServicePort::default()
    };
    Some(Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.service_type.unwrap_or_default().as_str().into()),
            selector: Some(cx.names.selector_labels()),
            ports: Some(ports.iter().map(outer).collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}

/// Where callers inside the cluster reach the worker.
pub fn address(cx: &Cx<'_>) -> String {
    let port = cx
        .ports()
        .first()
        .map_or(0, |(_, port)| outer_port(cx, *port));
    format!("{}.{}.svc:{port}", cx.names.child(), cx.names.namespace())
}

/// What callers outside of the cluster use: the address to give to a provider.
pub fn url(cx: &Cx<'_>) -> Option<String> {
    let expose = cx.resource.deployment().service?.expose?;
    if expose.http_route.is_some() && !cx.context.platform.http_route {
        return None;
    }
    let scheme = expose.scheme.unwrap_or_default().as_str();
    let path = match (cx.resource.in_container(), &expose.path) {
        // Which paths a program answers, only whoever exposes it knows.
        (true, Some(path)) => path,
        _ => own_path(cx),
    };
    Some(format!("{scheme}://{}{path}", expose.host))
}

/// The path that the worker answers.
fn own_path<'a>(cx: &'a Cx<'_>) -> &'a str {
    let http = cx.resource.transport().and_then(|t| t.http.as_ref());
    http.and_then(|http| http.path.as_deref()).unwrap_or("/")
}

/// The Ingress or HTTPRoute, or why there is none.
pub fn exposed(cx: &Cx<'_>) -> (Option<Child>, Option<Note>) {
    let expose = cx
        .resource
        .deployment()
        .service
        .and_then(|service| service.expose);
    let (Some(expose), Some((name, port))) = (expose, cx.ports().first().cloned()) else {
        return (None, None);
    };
    if let Some(wanted) = &expose.ingress {
        return (Some(Child::of(&ingress(cx, &expose, wanted, &name))), None);
    }
    match &expose.http_route {
        Some(_) if !cx.context.platform.http_route => {
            let note = Note {
                reason: "GatewayMissing",
                message: "the cluster knows no HTTPRoute (gateway.networking.k8s.io/v1): install the Gateway API, or write service.expose.ingress".into(),
            };
            (None, Some(note))
        }
        Some(wanted) => {
            let route = http_route(cx, &expose, wanted, outer_port(cx, port));
            (Some(Child::new(route)), None)
        }
        None => (None, None),
    }
}

fn ingress(cx: &Cx<'_>, expose: &Expose, wanted: &IngressSettings, port: &str) -> Ingress {
    let mut metadata = cx.names.metadata(cx.names.child());
    metadata.annotations = wanted.annotations.clone();
    let path = HTTPIngressPath {
        path: Some(
            expose
                .path
                .clone()
                .unwrap_or_else(|| own_path(cx).to_owned()),
        ),
        path_type: "Prefix".into(),
        backend: IngressBackend {
            service: Some(IngressServiceBackend {
                name: cx.names.child(),
                port: Some(ServiceBackendPort {
                    name: Some(port.to_owned()),
                    number: None,
                }),
            }),
            resource: None,
        },
    };
    let tls = wanted.tls_secret_name.as_ref().map(|secret| {
        vec![IngressTLS {
            hosts: Some(vec![expose.host.clone()]),
            secret_name: Some(secret.clone()),
        }]
    });
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(expose.host.clone()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls,
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    }
}

fn http_route(cx: &Cx<'_>, expose: &Expose, wanted: &HttpRouteSettings, port: u16) -> Value {
    let mut parent = json!({"name": wanted.gateway});
    for (key, value) in [
        ("namespace", &wanted.gateway_namespace),
        ("sectionName", &wanted.listener),
    ] {
        if let Some(value) = value {
            parent[key] = value.as_str().into();
        }
    }
    let path = expose.path.as_deref().unwrap_or_else(|| own_path(cx));
    let timeout = super::pods::request_timeout(cx.resource) + PATIENCE;
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": cx.names.metadata(cx.names.child()),
        "spec": {
            "parentRefs": [parent],
            "hostnames": [expose.host],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": cx.names.child(), "port": port}],
                "timeouts": {"request": format!("{}s", timeout.as_secs())},
            }],
        },
    })
}
