//! What differs for a program of somebody else in a container (K22): its own image and arguments, the broker in the
//! environment, a configuration file.

use super::Cx;
use super::pods::{self, CONTAINER};
use crate::context::Live;
use crate::hash::hash;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, Probe, SecretKeySelector,
    TCPSocketAction, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use vumi_api::applications::{Custom, Probe as Asked, Reload};

/// File with its configuration.
pub const FILE: &str = "config.yaml";

/// Its configuration: what its resource says, and the connector.
pub fn document(cx: &Cx<'_>, custom: &Custom) -> Value {
    let mut config = custom.config.clone().unwrap_or_default();
    let connector = cx.resource.transport_name();
    let named = config.entry("transport_name");
    named.or_insert_with(|| connector.into());
    Value::Object(config)
}

/// What its Secrets hold, as a hash, where it must be started anew when that changes; nothing for one that reads its files
/// again, and for our own workers. Where that is not known, as offline, what running pods have of them stays.
pub fn secret_revisions(cx: &Cx<'_>) -> Option<String> {
    let custom = cx.custom()?;
    if custom.reload.unwrap_or_default() == Reload::Files {
        return None;
    }
    let live = cx.context.live.as_ref();
    let kept = live.and_then(Live::secrets_hash);
    if !cx.context.knows_revisions() && kept.is_some() {
        return kept.map(str::to_owned);
    }
    let names = cx.resource.secrets();
    let revisions = names.keys().map(|name| {
        let facts = cx.context.secrets.get(name);
        (name.clone(), facts.map(|facts| facts.revision.clone()))
    });
    let revisions: Vec<_> = revisions.collect();
    Some(hash(&json!(revisions)))
}

/// The container.
pub fn container(cx: &Cx<'_>, custom: &Custom) -> Container {
    let ports = cx.ports();
    let port = |(name, port): (String, u16)| ContainerPort {
        name: Some(name),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let probes = custom.probes.clone().unwrap_or_default();
    Container {
        name: CONTAINER.into(),
        image: Some(custom.image.clone()),
        command: custom.command.clone(),
        args: custom.args.clone(),
        env: Some(environment(cx, custom)),
        ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
        readiness_probe: probes.readiness.map(|asked| probe(&asked, 5, 2)),
        liveness_probe: probes.liveness.map(|asked| probe(&asked, 10, 6)),
        volume_mounts: Some(vec![
            // One file of an immutable ConfigMap: it never has to follow a change.
            VolumeMount {
                name: pods::WORKERS_VOLUME.into(),
                mount_path: format!("/etc/vumi/{FILE}"),
                sub_path: Some(FILE.into()),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            pods::mount(pods::SECRETS_VOLUME, "/etc/vumi/secrets", true),
            pods::mount(pods::TMP_VOLUME, "/tmp", false),
        ]),
        ..pods::hardened(cx)
    }
}

fn probe(asked: &Asked, period: i32, failures: i32) -> Probe {
    let port = IntOrString::Int(asked.port.into());
    let probe = Probe {
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    match &asked.path {
        Some(path) => Probe {
            http_get: Some(HTTPGetAction {
                path: Some(path.clone()),
                port,
                ..HTTPGetAction::default()
            }),
            ..probe
        },
        None => Probe {
            tcp_socket: Some(TCPSocketAction { port, host: None }),
            ..probe
        },
    }
}

/// The broker first, so that later variables and arguments may refer to it as `$(VUMI_BROKER_HOST)`.
fn environment(cx: &Cx<'_>, custom: &Custom) -> Vec<EnvVar> {
    let broker = cx.resource.broker();
    let secret = broker.secret_ref.name.as_str();
    let facts = cx.context.secrets.get(secret).cloned().unwrap_or_default();
    let has = |key: &str| facts.keys.contains(key);
    let or_else = |name: &str, key: &str, otherwise: &str| match has(key) {
        true => of_secret(name, secret, key),
        false => plain(name, otherwise),
    };
    let mut env = Vec::new();
    if facts.is_split() {
        let port = if broker.tls.is_some() { "5671" } else { "5672" };
        env.push(of_secret("VUMI_BROKER_HOST", secret, "host"));
        env.push(or_else("VUMI_BROKER_PORT", "port", port));
        env.push(of_secret("VUMI_BROKER_USERNAME", secret, "username"));
        env.push(of_secret("VUMI_BROKER_PASSWORD", secret, "password"));
        env.push(match &broker.vhost {
            Some(vhost) => plain("VUMI_BROKER_VHOST", vhost),
            None => or_else("VUMI_BROKER_VHOST", "vhost", "/"),
        });
    }
    // One that leads to the virtual host of the Secret, and not to that of the resource, is not given.
    if has("connection_string") && broker.vhost.is_none() {
        env.push(of_secret("VUMI_BROKER_URL", secret, "connection_string"));
    }
    env.push(plain("VUMI_TRANSPORT_NAME", cx.resource.transport_name()));
    // One name stands once: what the resource says wins.
    let own = custom.env.as_deref().unwrap_or_default();
    env.retain(|given| own.iter().all(|variable| variable.name != given.name));
    env.extend(own.iter().map(|variable| match &variable.secret_key_ref {
        Some(at) => of_secret(&variable.name, &at.name, &at.key),
        None => plain(
            &variable.name,
            variable.value.as_deref().unwrap_or_default(),
        ),
    }));
    env
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        value_from: None,
    }
}

fn of_secret(name: &str, secret: &str, key: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.into(),
                key: key.into(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}
