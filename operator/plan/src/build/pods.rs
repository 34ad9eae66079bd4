//! The pod template: one container that runs `vumi worker`, by the `restricted` Pod Security Standard, with its manifest and
//! Secrets as files.

use super::{Cx, custom};
use crate::names::SECRETS_HASH;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretProjection, SecurityContext, SleepAction,
    TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use vumi_api::shared::shapes::ADMIN_PORT;
use vumi_api::shared::{ResourceAmounts, ResourceSettings};
use vumi_api::{Holds, Resource, SecretUse};

/// Name of the worker's container, by which overrides change it.
pub const CONTAINER: &str = "worker";
/// Name of the volume with the state store.
pub const STATE_VOLUME: &str = "state";
/// Name of the volume with the manifest.
pub const WORKERS_VOLUME: &str = "workers";
/// Name of the volume with the Secrets.
pub const SECRETS_VOLUME: &str = "secrets";
/// Name of the volume for whatever lasts no longer than the pod.
pub const TMP_VOLUME: &str = "tmp";
const STATE_FOLDER: &str = "/var/lib/vumi";
/// User and group of the process: nobody in particular, but never root.
const USER: i64 = 65532;
/// For so long a listener goes on after the pod was told to stop: callers hear of it a little later (K27).
const GOODBYE: Duration = Duration::from_secs(5);
/// For so long a stop waits for replies where nothing says more.
const DRAIN: Duration = Duration::from_secs(20);
/// What a stop may take beside waiting for replies: work in hand, confirmations, goodbye to the peer, and a margin.
pub const STOP_BESIDE_DRAIN: Duration = Duration::from_secs(10);

/// The deployment settings that replace pods when they change. Those of replicas, Service and policies do not (K9).
pub fn inputs(resource: &Resource) -> Value {
    let settings = resource.deployment();
    json!({"resources": settings.resources, "overrides": settings.overrides})
}

/// How long a request may wait for its reply.
pub fn request_timeout(resource: &Resource) -> Duration {
    let http = resource.transport().and_then(|t| t.http.as_ref());
    let written = http.and_then(|http| http.request_timeout);
    written.map_or(Duration::from_secs(240), |timeout| timeout.0)
}

/// For how long a stop waits for the replies to what was taken: until the last held request has had its time (R8).
fn drain(resource: &Resource) -> Duration {
    match resource.topology().holds {
        Some(Holds::Requests) => request_timeout(resource).max(DRAIN),
        Some(Holds::Sessions) | None => DRAIN,
    }
}

/// Seconds in which something ends, at least.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// The template, before overrides.
pub fn template(cx: &Cx<'_>, view_hash: &str, image: &str) -> PodTemplateSpec {
    let listens = !cx.ports().is_empty();
    let goodbye = if listens { GOODBYE } else { Duration::ZERO };
    let grace = goodbye + drain(cx.resource) + STOP_BESIDE_DRAIN;
    let has_volume = super::workload::has_volume(cx.resource);
    let secrets = &cx.settings.image_pull_secrets;
    let own_image = cx.custom().is_none();
    let mut annotations = BTreeMap::from([(
        "kubectl.kubernetes.io/default-container".to_owned(),
        CONTAINER.to_owned(),
    )]);
    if let Some(revisions) = custom::secret_revisions(cx) {
        annotations.insert(SECRETS_HASH.to_owned(), revisions);
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(cx.names.labels()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(cx.names.child()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(seconds(grace)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: own_image.then_some(USER),
                run_as_group: own_image.then_some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".into()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            image_pull_secrets: (!secrets.is_empty()).then(|| {
                let named = |name: &String| LocalObjectReference { name: name.clone() };
                secrets.iter().map(named).collect()
            }),
            topology_spread_constraints: (!has_volume).then(|| {
                ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
                    .map(|key| spread(cx, key))
                    .into()
            }),
            volumes: Some(volumes(cx, view_hash)),
            containers: vec![match cx.custom() {
                Some(custom) => custom::container(cx, custom),
                None => container(cx, image),
            }],
            ..PodSpec::default()
        }),
    }
}

/// Pods of one worker apart from each other, if that is possible.
fn spread(cx: &Cx<'_>, key: &str) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.into(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(cx.names.selector()),
        match_label_keys: Some(vec!["pod-template-hash".into()]),
        ..TopologySpreadConstraint::default()
    }
}

fn container(cx: &Cx<'_>, image: &str) -> Container {
    let ports = cx.ports();
    let listens = !ports.is_empty();
    let ready = if listens { "/readyz/listen" } else { "/readyz" };
    let port = |name: String, port: u16| ContainerPort {
        name: Some(name),
        container_port: port.into(),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let own = [port("admin".into(), ADMIN_PORT)];
    Container {
        name: CONTAINER.into(),
        image: Some(image.into()),
        image_pull_policy: cx.settings.image_pull_policy.clone(),
        command: Some(vec!["vumi".into(), "worker".into()]),
        args: Some(arguments(cx)),
        ports: Some(
            own.into_iter()
                .chain(ports.into_iter().map(|(n, p)| port(n, p)))
                .collect(),
        ),
        startup_probe: Some(probe("/healthz", 1, 60)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe(ready, 5, 2)),
        volume_mounts: Some(mounts(cx)),
        ..hardened(cx)
    }
}

/// What every container has, ours or not: no rights, bounded resources, and time for callers to hear of its end.
pub fn hardened(cx: &Cx<'_>) -> Container {
    let listens = !cx.ports().is_empty();
    Container {
        lifecycle: listens.then(|| Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: seconds(GOODBYE),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(resources(cx)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // What a process said last is what `kubectl describe pod` and the status show.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        ..Container::default()
    }
}

fn arguments(cx: &Cx<'_>) -> Vec<String> {
    let drain = vumi_api::Duration(drain(cx.resource)).to_string();
    let mut arguments = vec!["--log-format", "json", "--drain", drain.as_str()];
    if let Some(level) = &cx.settings.log_level {
        arguments.extend(["--log-level", level]);
    }
    if super::workload::has_volume(cx.resource) {
        arguments.extend(["--state", STATE_FOLDER]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("admin".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// What the resource says, and for the rest the operator.
fn resources(cx: &Cx<'_>) -> ResourceRequirements {
    let own = cx.resource.deployment().resources.unwrap_or_default();
    let usual = &cx.settings.resources;
    let amounts = |of: fn(&ResourceSettings) -> Option<&ResourceAmounts>| {
        let (own, usual) = (of(&own), of(usual));
        let cpu = own.and_then(|a| a.cpu.clone());
        let cpu = cpu.or_else(|| usual.and_then(|a| a.cpu.clone()));
        let memory = own
            .and_then(|a| a.memory)
            .or_else(|| usual.and_then(|a| a.memory));
        let named = [
            ("cpu", cpu),
            ("memory", memory.map(|size| size.to_string())),
        ];
        let named = named.into_iter().filter_map(|(name, value)| {
            let value = value?;
            Some((name.to_owned(), Quantity(value)))
        });
        let named: BTreeMap<String, Quantity> = named.collect();
        (!named.is_empty()).then_some(named)
    };
    ResourceRequirements {
        requests: amounts(|settings| settings.requests.as_ref()),
        limits: amounts(|settings| settings.limits.as_ref()),
        ..ResourceRequirements::default()
    }
}

/// A volume in a folder of the container.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn mounts(cx: &Cx<'_>) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount(WORKERS_VOLUME, "/etc/vumi/workers", true),
        mount(SECRETS_VOLUME, "/etc/vumi/secrets", true),
        // For the control socket, by which `kubectl exec … vumi status` asks.
        mount(TMP_VOLUME, "/tmp", false),
    ];
    if super::workload::has_volume(cx.resource) {
        mounts.push(mount(STATE_VOLUME, STATE_FOLDER, false));
    }
    mounts
}

fn volumes(cx: &Cx<'_>, view_hash: &str) -> Vec<Volume> {
    vec![
        Volume {
            name: WORKERS_VOLUME.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: cx.names.config_map(view_hash),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: SECRETS_VOLUME.into(),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(0o440),
                sources: Some(cx.resource.secrets().iter().map(secret).collect()),
            }),
            ..Volume::default()
        },
        Volume {
            name: TMP_VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity(tmp_size(cx).into())),
                medium: None,
            }),
            ..Volume::default()
        },
    ]
}

/// How much the worker may write: ours has its control socket there, and nothing else.
fn tmp_size(cx: &Cx<'_>) -> &'static str {
    match cx.custom() {
        Some(_) => "1Gi",
        None => "16Mi",
    }
}

/// The keys that the worker reads, at `<secret>/<key>`. Optional, because a pod without a Secret starts, is not ready and says
/// why, and takes it when it comes; a pod whose volume cannot be mounted says nothing.
fn secret((name, used): (&String, &SecretUse)) -> VolumeProjection {
    let item = |key: &String| KeyToPath {
        key: key.clone(),
        path: format!("{name}/{key}"),
        mode: None,
    };
    VolumeProjection {
        secret: Some(SecretProjection {
            name: name.clone(),
            items: Some(used.keys.iter().map(item).collect()),
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    }
}
