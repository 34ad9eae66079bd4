//! The way to the broker of a resource, from outside of the cluster: by its Secret, through a port of a pod if it is a Service
//! of the cluster.

use crate::cluster::{Cluster, Failed, objects};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vumi_api::shared::BrokerRef;
use vumi_cli::error::CliError;
use vumi_cli::output;
use vumi_core::broker::amqp::AmqpConfig;
use vumi_core::secrets::Secrets;
use vumi_plan::secret;

/// A way to a broker. It ends when this is dropped.
pub struct Way {
    /// For whoever connects.
    pub config: AmqpConfig,
    /// Host, port and virtual host, for people.
    pub shown: String,
    _forward: Option<Forward>,
}

/// A port of this machine that leads to a port of a pod.
struct Forward {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The way that a URL names.
///
/// # Errors
/// It is no such URL.
pub fn at(url: &str) -> Result<Way, CliError> {
    let config = AmqpConfig::from_url(url)?;
    let identity = config.identity()?;
    Ok(Way {
        shown: identity.shown(),
        config,
        _forward: None,
    })
}

/// What the Secret of a broker says, as a resource of this namespace means it.
///
/// # Errors
/// The Secret cannot be read.
pub async fn config(
    cluster: &Cluster,
    namespace: &str,
    broker: &BrokerRef,
) -> Result<AmqpConfig, CliError> {
    let mut documents = BTreeMap::new();
    for name in broker.secrets() {
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let found = cluster.get(&path).await.map_err(|failed| {
            CliError::environment(format!(
                "the Secret {name} cannot be read: {}; or name the broker with --broker",
                failed.text
            ))
        })?;
        let found = found.ok_or_else(|| {
            CliError::environment(format!(
                "there is no Secret {name} in namespace {namespace}; name the broker with --broker"
            ))
        })?;
        documents.insert(name.to_owned(), secret::values(&found));
    }
    let secrets = Arc::new(Secrets::new(documents, None));
    Ok(AmqpConfig::of_namespace(secrets, broker, namespace))
}

/// The way to the broker that a resource of a namespace means.
///
/// # Errors
/// Its Secret cannot be read or used, or there is no way there.
pub async fn of(cluster: &Cluster, namespace: &str, broker: &BrokerRef) -> Result<Way, CliError> {
    let direct = config(cluster, namespace, broker).await?;
    let identity = direct.identity()?;
    let (host, port) = (identity.host.clone(), identity.port);
    let shown = identity.shown();
    let Some((service, place)) = service(cluster, namespace, &host).await? else {
        return Ok(Way {
            config: direct,
            shown,
            _forward: None,
        });
    };
    let forward = forward(cluster, &service, &place, port).await?;
    Ok(Way {
        config: direct.through(forward.port),
        shown,
        _forward: Some(forward),
    })
}

/// The Service that a host name means inside of the cluster, and its namespace.
async fn service(
    cluster: &Cluster,
    namespace: &str,
    host: &str,
) -> Result<Option<(Value, String)>, CliError> {
    let parts: Vec<&str> = host.split('.').collect();
    let (name, place) = match parts.as_slice() {
        [name] => (*name, namespace),
        [name, place] | [name, place, "svc", ..] => (*name, *place),
        _ => return Ok(None),
    };
    if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(None);
    }
    let path = format!("{}/{name}", objects("v1", "Service", place));
    let found = cluster.get(&path).await?;
    Ok(found.map(|service| (service, place.to_owned())))
}

/// Opens a port that leads to one of the pods behind a Service.
async fn forward(
    cluster: &Cluster,
    service: &Value,
    place: &str,
    port: u16,
) -> Result<Forward, CliError> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let nowhere = |why: &str| {
        CliError::environment(format!(
            "the broker's Service {name} in {place} {why}; name another way with --broker"
        ))
    };
    let selector = service["spec"]["selector"].as_object();
    let selector = selector.ok_or_else(|| nowhere("leads to no pods"))?;
    let labels = selector.iter();
    let labels = labels.map(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        format!("{}%3D{value}", key.replace('/', "%2F"))
    });
    let labels: Vec<String> = labels.collect();
    let query = format!("&labelSelector={}", labels.join(","));
    let pods = cluster.list(&objects("v1", "Pod", place), &query).await?;
    let ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pod = pods.iter().find(ready);
    let pod = pod.ok_or_else(|| nowhere("has no pod that is ready"))?;
    let target = target(service, pod, port);
    let target = target.ok_or_else(|| nowhere(&format!("has no port {port}")))?;
    let pod = pod["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| CliError::environment(format!("no port: {error}")))?;
    let own = listener.local_addr();
    let own = own.map_err(|error| CliError::environment(format!("no port: {error}")))?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), place);
    let task = tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let (api, pod) = (api.clone(), pod.clone());
            tokio::spawn(async move {
                match api.portforward(&pod, &[target]).await {
                    Ok(mut ports) => {
                        if let Some(mut there) = ports.take_stream(target) {
                            // Whoever connected sees that it ended.
                            let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                        }
                    }
                    Err(error) => output::note(&format!(
                        "note: port {target} of pod {pod} cannot be reached: {}; it takes the right to create pods/portforward",
                        Failed::from(error).text
                    )),
                }
            });
        }
    });
    Ok(Forward {
        port: own.port(),
        task,
    })
}

/// The port of a pod to which a port of a Service leads.
fn target(service: &Value, pod: &Value, port: u16) -> Option<u16> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let ports = service["spec"]["ports"].as_array()?;
    let found = ports
        .iter()
        .find(|one| number(&one["port"]) == Some(port))?;
    match &found["targetPort"] {
        Value::Null => Some(port),
        Value::String(name) => {
            let containers = pod["spec"]["containers"].as_array()?.iter();
            let mut named = containers.filter_map(|c| c["ports"].as_array()).flatten();
            let of_name = named.find(|one| one["name"] == name.as_str())?;
            number(&of_name["containerPort"])
        }
        value => number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_of_a_service_leads_to_one_of_a_pod() {
        let pod =
            json!({"spec": {"containers": [{"ports": [{"name": "amqp", "containerPort": 5673}]}]}});
        for (target_port, expected) in [
            (Value::Null, Some(5672)),
            (json!(5680), Some(5680)),
            (json!("amqp"), Some(5673)),
            (json!("other"), None),
        ] {
            let service = json!({"spec": {"ports": [{"port": 5672, "targetPort": target_port}]}});
            assert_eq!(target(&service, &pod, 5672), expected);
        }
        assert_eq!(target(&json!({"spec": {"ports": []}}), &pod, 5672), None);
    }

    #[test]
    fn a_url_says_where_without_saying_who() {
        let way = at("amqp://user:hidden@rabbit:5672/campaign").unwrap();
        assert_eq!(way.shown, "rabbit:5672/campaign");
        assert!(at("http://rabbit/").is_err());
    }
}
