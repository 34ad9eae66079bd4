//! Kinds that not every cluster has, HTTPRoute and PodMonitor, before a real API server: where they are not defined the status says
//! so; where they are, their objects are applied, kept and deleted. The definitions in `tests/crds` are stand-ins of our own.

use crate::cluster::{Cluster, NAMESPACE, QUIET, Running, begin, child, install, root, until};
use crate::reserved;
use crate::rights::{Observed, declared_verbs, observe};
use serde_json::{Value, json};
use vumi_operator::engine::kinds::ObjectKind;
use vumi_plan::Settings;
use vumi_plan::settings::PodMonitorSettings;

/// A transport that is to be reached through a Gateway, and one that listens inside of the cluster alone.
const ROUTE: &str = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/route";
const PLAIN: &str = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/plain";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_not_every_cluster_has_is_told_of_or_applied() {
    let Some((cluster, proxy)) = begin().await else {
        return;
    };
    let rules = install(&cluster);
    reserved::is_stored(&cluster).await;
    cluster.broker("amqp://nobody:none@127.0.0.1:1/");
    // Without pods, since there is nobody who would start them.
    let route = json!({
        "httpApi": {}, "http": {"port": 8080, "path": "/in"}, "suspend": true,
        "service": {"expose": {"host": "a.example.net", "httpRoute": {"gateway": "public"}}},
    });
    transport(&cluster, ROUTE, "route", &route);
    let plain = json!({"telnet": {"port": 9010}, "suspend": true});
    transport(&cluster, PLAIN, "plain", &plain);
    let monitored = Settings {
        pod_monitor: Some(PodMonitorSettings {
            labels: [("release".to_owned(), "prometheus".to_owned())].into(),
            interval: Some("30s".into()),
        }),
        ..Settings::default()
    };

    let without = Running::start_with(&proxy, "without", monitored.clone());
    told_what_is_missing(&cluster).await;
    reserved::is_told(&cluster).await;
    without.end().await;
    for file in ["httproutes.yaml", "podmonitors.yaml"] {
        define(&cluster, file).await;
    }
    let mut observed = Observed::new();
    observe(&proxy, &mut observed);
    // One that runs looks for other kinds every hour; one that begins, at once.
    let with = Running::start_with(&proxy, "with", monitored);
    applied(&cluster).await;
    with.idle().await;
    observe(&proxy, &mut observed);
    tokio::time::sleep(QUIET).await;
    let mut writes = observe(&proxy, &mut observed);
    writes.retain(|write| write.contains("/httproutes/") || write.contains("/podmonitors/"));
    assert!(writes.is_empty(), "{writes:#?}");
    put_back(&cluster).await;
    cluster.merge(ROUTE, &json!({"spec": {"service": null}}));
    until("the HTTPRoute to go", || route_of(&cluster).is_none()).await;
    assert!(monitor_of(&cluster, "transport-route").is_some());
    with.end().await;

    // An operator that is to make none deletes those that there are.
    let unmonitored = Running::start(&proxy, "unmonitored");
    until("the PodMonitors to go", || {
        let names = ["transport-route", "transport-plain"];
        names
            .iter()
            .all(|name| monitor_of(&cluster, name).is_none())
    })
    .await;
    unmonitored.idle().await;
    let metrics = unmonitored.metrics.render();
    assert!(!metrics.contains("code=\"403\""), "{metrics}");
    unmonitored.end().await;
    observe(&proxy, &mut observed);
    for resource in ["httproutes", "podmonitors", "metricaggregators/status"] {
        let of = observed.iter().filter(|(seen, _)| seen == resource);
        let used: Vec<&str> = of.map(|(_, verb)| verb.as_str()).collect();
        let declared = declared_verbs(&rules, resource);
        let declared: Vec<&str> = declared.iter().map(String::as_str).collect();
        assert_eq!(used, declared, "{resource}");
    }
}

fn transport(cluster: &Cluster, path: &str, name: &str, spec: &Value) {
    let object = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    });
    cluster.apply(path, &object);
}

fn condition(cluster: &Cluster, path: &str, kind: &str) -> Option<Value> {
    let object = cluster.get(path)?;
    let conditions = object["status"]["conditions"].as_array()?.clone();
    conditions.into_iter().find(|c| c["type"] == kind)
}

fn route_of(cluster: &Cluster) -> Option<Value> {
    cluster.get(&child("HTTPRoute", "transport-route"))
}

fn monitor_of(cluster: &Cluster, name: &str) -> Option<Value> {
    cluster.get(&child("PodMonitor", name))
}

/// Everything else is applied all the same.
async fn told_what_is_missing(cluster: &Cluster) {
    for (path, reason, words) in [
        (ROUTE, "GatewayMissing", "install the Gateway API"),
        (
            PLAIN,
            "PodMonitorMissing",
            "install the Prometheus operator",
        ),
    ] {
        let reconciling = || condition(cluster, path, "Reconciling").unwrap_or_default();
        until(reason, || reconciling()["reason"] == reason).await;
        let said = reconciling();
        assert_eq!(said["status"], "True", "{said}");
        assert!(said["message"].as_str().unwrap().contains(words), "{said}");
        let ready = condition(cluster, path, "Ready").unwrap();
        assert_eq!(ready["reason"], "Suspended", "{ready}");
    }
    // An address that leads nowhere is not told.
    let status = cluster.get(ROUTE).unwrap()["status"].clone();
    assert!(status["url"].is_null(), "{status}");
    for name in ["transport-route", "transport-plain"] {
        assert!(cluster.get(&child("Deployment", name)).is_some(), "{name}");
    }
}

/// Defines a kind, and waits until it is among those that whoever asks is told of.
async fn define(cluster: &Cluster, file: &str) {
    let text = std::fs::read_to_string(root().join("operator/tests/crds").join(file)).unwrap();
    let definition: Value = serde_yaml::from_str(&text).unwrap();
    cluster.server.establish(&definition).unwrap();
    let names = &definition["spec"]["names"];
    let kind = ObjectKind::named(names["kind"].as_str().unwrap()).unwrap();
    assert_eq!(names["plural"], kind.plural);
    let path = format!("/apis/{}/{}", kind.group, kind.version);
    until("the kind to be listed", || {
        let list = cluster.get(&path).unwrap_or_default();
        let mut listed = list["resources"].as_array().into_iter().flatten();
        listed.any(|one| one["name"] == kind.plural)
    })
    .await;
}

async fn applied(cluster: &Cluster) {
    until("the HTTPRoute", || route_of(cluster).is_some()).await;
    let route = route_of(cluster).unwrap();
    let spec = &route["spec"];
    assert_eq!(spec["parentRefs"], json!([{"name": "public"}]));
    assert_eq!(spec["hostnames"], json!(["a.example.net"]));
    let rule = &spec["rules"][0];
    assert_eq!(
        rule["matches"],
        json!([{"path": {"type": "PathPrefix", "value": "/in"}}])
    );
    assert_eq!(
        rule["backendRefs"],
        json!([{"name": "transport-route", "port": 8080}])
    );
    for name in ["transport-route", "transport-plain"] {
        until("the PodMonitor", || monitor_of(cluster, name).is_some()).await;
        let monitor = monitor_of(cluster, name).unwrap();
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        assert_eq!(
            monitor["spec"]["podMetricsEndpoints"],
            json!([{"port": "admin", "path": "/metrics", "interval": "30s"}])
        );
    }
    for path in [ROUTE, PLAIN] {
        until("nothing to be waited for any more", || {
            condition(cluster, path, "Reconciling").is_none()
        })
        .await;
    }
    let status = cluster.get(ROUTE).unwrap()["status"].clone();
    assert_eq!(status["url"], "https://a.example.net/in", "{status}");
}

/// What somebody else writes into them, and whoever deletes one.
async fn put_back(cluster: &Cluster) {
    let path = child("HTTPRoute", "transport-route");
    cluster.merge(&path, &json!({"spec": {"hostnames": ["b.example.net"]}}));
    until("the host to be put back", || {
        route_of(cluster).unwrap()["spec"]["hostnames"] == json!(["a.example.net"])
    })
    .await;
    let path = child("PodMonitor", "transport-plain");
    let (status, _) = cluster.server.request("DELETE", &path, None).unwrap();
    assert_eq!(status, 200);
    until("the PodMonitor to be made anew", || {
        monitor_of(cluster, "transport-plain").is_some()
    })
    .await;
}
