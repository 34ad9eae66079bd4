//! The operator before a real API server, with the rights that its manifests give it and no others: the objects of every
//! example appear, then nothing is written; edits, drift, faults, another leader, older definitions.

use crate::brokers::{Worker, rabbit};
use crate::cluster::{
    BrokerPlace, Cluster, MINUTE, NAMESPACE, PLANTED, QUIET, Running, apply_examples, begin, child,
    definitions, examples, has_no_secret, install, path, until,
};
use crate::proxy::{Fault, Proxy};
use crate::rights::{Observed, declared_rights_are_used, observe};
use serde_json::{Value, json};
use std::time::Duration;
use vumi_api::Resource;
use vumi_operator::brokers::Place;
use vumi_plan::{CHILDREN, Names};
use vumi_testkit::rabbitmq::Version;

const TELNET: &str = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/telnet";
const POD: &str = "transport-telnet-0";
/// What has to last has lasted by then.
const CALM: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_before_a_real_api_server() {
    let Some((cluster, proxy)) = begin().await else {
        return;
    };
    let Some(rabbit) = rabbit(Version::V4_0).await else {
        return;
    };
    let tags = ["monitoring"];
    rabbit.add_user("planted", PLANTED, &tags).await.unwrap();
    rabbit.add_vhost("others", None).await.unwrap();
    let allowed = [
        "set_permissions",
        "-p",
        "others",
        "planted",
        ".*",
        ".*",
        ".*",
    ];
    rabbit.ctl(&allowed).await.unwrap();
    let broker = BrokerPlace {
        url: rabbit.url_as("planted", PLANTED, "/"),
        management: rabbit.management_url(),
    };
    let rules = install(&cluster);
    let examples = examples();
    let mut observed = Observed::new();

    let one = Running::start(&proxy, "one");
    apply_examples(&cluster, &examples, &broker);
    objects_appear(&cluster, &one, &examples).await;
    let works = one_runs(&cluster, &broker).await;
    nothing_is_written(&cluster, &proxy, &one, &mut observed, MINUTE).await;
    // Standing by, then leading, without a write: what is right is known from the objects themselves.
    let two = Running::start(&proxy, "two");
    until("the second to be ready", || two.health.ready().is_ok()).await;
    observe(&proxy, &mut observed);
    one.end().await;
    two.idle().await;
    let writes = observe(&proxy, &mut observed);
    assert!(writes.is_empty(), "{writes:#?}");
    nothing_is_written(&cluster, &proxy, &two, &mut observed, QUIET).await;
    edits_and_drift(&cluster, &proxy, &two, &mut observed).await;
    faults(&cluster, &proxy, &two, &mut observed).await;
    a_secret_is_rotated(&cluster, &proxy, &two, &mut observed, &broker).await;
    older_definitions(&cluster, &proxy, &two, &mut observed).await;
    let text = two.metrics.render();
    assert!(!text.contains("code=\"403\""), "{text}");
    has_no_secret("the metrics", &text);
    two.end().await;
    works.abort();
    observe(&proxy, &mut observed);
    declared_rights_are_used(&rules, &observed);
    crate::program::it_leads_and_stops(&cluster, &broker).await;
}

/// By the API server's own words a field that pods do not have is told from what may pass by itself (K21).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_pods_do_not_have_is_told_and_what_runs_runs_on() {
    let Some((cluster, proxy)) = begin().await else {
        return;
    };
    install(&cluster);
    cluster.broker("amqp://nobody:none@127.0.0.1:1/");
    let transport = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport",
        "metadata": {"name": "telnet", "namespace": NAMESPACE}, "spec": {"telnet": {"port": 9010}},
    });
    cluster.apply(TELNET, &transport);
    let operator = Running::start(&proxy, "one");
    let status = || cluster.get(TELNET).unwrap()["status"].clone();
    let stalled = || {
        let conditions = status()["conditions"].clone();
        let mut conditions = conditions.as_array().into_iter().flatten();
        conditions.find(|c| c["type"] == "Stalled").cloned()
    };
    until("it to be applied", || status()["appliedGeneration"] == 1).await;
    operator.idle().await;
    let place = child("Deployment", "transport-telnet");
    let running = cluster.get(&place).unwrap();
    let wrong = json!({"spec": {"nodeSelektor": {"disk": "fast"}}});
    cluster.merge(TELNET, &json!({"spec": {"overrides": wrong}}));
    until("it to be told", || status()["observedGeneration"] == 2).await;
    let told = stalled().unwrap_or_else(|| panic!("{:#}", status()));
    assert_eq!(told["status"], "True", "{told}");
    assert_eq!(told["reason"], "OverridesInvalid", "{told}");
    let said = ".spec.template.spec.nodeSelektor: field not declared in schema";
    assert!(told["message"].as_str().unwrap().contains(said), "{told}");
    operator.idle().await;
    assert_eq!(status()["appliedGeneration"], 1);
    assert_eq!(cluster.get(&place).unwrap(), running);
    cluster.merge(TELNET, &json!({"spec": {"overrides": null}}));
    until("it to be over", || stalled().is_none()).await;
    operator.end().await;
}

async fn objects_appear(cluster: &Cluster, operator: &Running, examples: &[(Resource, Value)]) {
    let total = examples.len();
    until("all resources to be known", || {
        operator.engine.stores.keys().len() == total
    })
    .await;
    operator.idle().await;
    for (resource, _) in examples {
        let name = Names::new(resource, NAMESPACE, None).child();
        let workload = ["Deployment", "StatefulSet"]
            .into_iter()
            .find_map(|kind| cluster.get(&child(kind, &name)));
        let workload = workload.unwrap_or_else(|| panic!("{} has no workload", resource.key()));
        assert_eq!(
            workload["metadata"]["ownerReferences"][0]["name"],
            resource.name.as_str()
        );
        assert!(
            cluster.get(&child("ServiceAccount", &name)).is_some(),
            "{name}"
        );
        assert!(
            cluster.get(&child("PodDisruptionBudget", &name)).is_some(),
            "{name}"
        );
        let stored = cluster.get(&path(resource)).unwrap();
        assert_eq!(
            stored["status"]["observedGeneration"], stored["metadata"]["generation"],
            "{stored}"
        );
    }
    // What only Secrets say stands nowhere else.
    let ours = vumi_api::Kind::ALL.map(|kind| kind.as_str());
    let children = CHILDREN.iter().filter(|child| !child.optional);
    for kind in children.map(|child| child.kind).chain(ours) {
        let all = cluster.get(&child(kind, "")).unwrap();
        assert!(all["items"].is_array(), "{kind}");
        has_no_secret(kind, &all.to_string());
    }
    let events = cluster
        .get(&format!(
            "/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
        ))
        .unwrap();
    let events = events["items"].as_array().unwrap();
    assert!(events.iter().any(|event| event["reason"] == "Created"));
    has_no_secret("events", &json!(events).to_string());
}

/// Controllers and the kubelet, which are not there, say that one worker runs; it speaks to the broker at a constant rate.
async fn one_runs(cluster: &Cluster, broker: &BrokerPlace) -> tokio::task::JoinHandle<()> {
    let place = child("Deployment", "transport-telnet");
    let deployment = cluster.get(&place).unwrap();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": POD, "labels": deployment["spec"]["template"]["metadata"]["labels"]},
        "spec": {"containers": [{"name": "worker", "image": "vumi:1"}]},
    });
    cluster.apply(&child("Pod", POD), &pod);
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    let status = json!({"phase": "Running", "conditions": conditions});
    cluster.said(&child("Pod", POD), status);
    let generation = &deployment["metadata"]["generation"];
    let status = json!({
        "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
    });
    cluster.said(&place, status);
    let works = Worker::start(&broker.url, "telnet", POD).await.at_work();
    until("the worker to be ready, and its peer to be up", || {
        let status = cluster.get(TELNET).unwrap()["status"].clone();
        let ready = status["conditions"].as_array().unwrap();
        let ready = ready.iter().find(|condition| condition["type"] == "Ready");
        ready.is_some_and(|ready| ready["status"] == "True") && status["link"] == "UP"
    })
    .await;
    let stored = cluster.get(TELNET).unwrap();
    assert_eq!(stored["status"]["replicas"], 1, "{stored}");
    assert_eq!(stored["status"]["type"], "telnet");
    let scale = cluster.get(&format!("{TELNET}/scale")).unwrap();
    assert_eq!(scale["status"]["replicas"], 1);
    assert_eq!(
        scale["status"]["selector"],
        "vumi.dev/kind=Transport,vumi.dev/name=telnet"
    );
    works
}

/// Once all that takes its time is told, nothing is written: with workers that say the same at a constant rate, and queues
/// through which messages pass at one.
async fn nothing_is_written(
    cluster: &Cluster,
    proxy: &Proxy,
    operator: &Running,
    observed: &mut Observed,
    quiet: Duration,
) {
    let deadline = tokio::time::Instant::now() + CALM;
    loop {
        observe(proxy, observed);
        tokio::time::sleep(QUIET).await;
        let writes = observe(proxy, observed);
        if writes.is_empty() {
            break;
        }
        let now = tokio::time::Instant::now();
        assert!(now < deadline, "{}", last_words(cluster, &writes));
    }
    let broker = cluster.get(TELNET).unwrap()["spec"]["broker"].clone();
    let place = Place {
        namespace: NAMESPACE.into(),
        broker: serde_json::from_value(broker).unwrap(),
    };
    let readings = || operator.engine.brokers.link(&place).unwrap().broker().1;
    let before = (operator.metrics.writes(), readings());
    tokio::time::sleep(quiet).await;
    let writes = observe(proxy, observed);
    assert!(writes.is_empty(), "{}", last_words(cluster, &writes));
    assert_eq!(operator.metrics.writes(), before.0);
    // It was not idle: its broker was read all the time.
    let least = quiet.as_secs() / 10;
    assert!(readings() >= before.1 + least, "{} readings", readings());
}

/// What was written, and what was told last.
fn last_words(cluster: &Cluster, writes: &[String]) -> String {
    let events = cluster.get(&format!(
        "/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
    ));
    let mut told: Vec<String> = events.unwrap()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            format!(
                "{} {} {}: {}",
                event["eventTime"], event["regarding"]["name"], event["reason"], event["note"]
            )
        })
        .collect();
    told.sort();
    let last = told.split_off(told.len().saturating_sub(10));
    let status = cluster.get(TELNET).unwrap()["status"].clone();
    format!("{writes:#?}\n{last:#?}\n{status:#}")
}

async fn edits_and_drift(
    cluster: &Cluster,
    proxy: &Proxy,
    operator: &Running,
    observed: &mut Observed,
) {
    let deployment = child("Deployment", "transport-telnet");
    let resource = TELNET;
    let template = |object: &Value| object["spec"]["template"].clone();
    let first = template(&cluster.get(&deployment).unwrap());
    // Without order, it may have several pods.
    cluster.merge(resource, &json!({"spec": {"ordering": {"mode": "none"}}}));
    until("another template", || {
        template(&cluster.get(&deployment).unwrap()) != first
    })
    .await;
    let before = cluster.get(&deployment).unwrap();
    // Replicas: no template changes.
    cluster.merge(resource, &json!({"spec": {"replicas": 2}}));
    until("the replicas", || {
        cluster.get(&deployment).unwrap()["spec"]["replicas"] == 2
    })
    .await;
    assert_eq!(
        template(&cluster.get(&deployment).unwrap()),
        template(&before)
    );
    // An edit of what the worker reads: another ConfigMap, and the old one goes.
    let maps = || {
        let all = cluster.get(&child("ConfigMap", "")).unwrap();
        let names = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|map| map["metadata"]["name"].as_str().unwrap().to_owned());
        names
            .filter(|name| {
                name.starts_with("transport-telnet-") && !name.starts_with("transport-telnet-full")
            })
            .collect::<Vec<_>>()
    };
    let old = maps();
    assert_eq!(old.len(), 1, "{old:?}");
    cluster.merge(resource, &json!({"spec": {"holdLimit": "33s"}}));
    until("another ConfigMap alone", || {
        let now = maps();
        now.len() == 1 && now != old
    })
    .await;
    // Drift: a value, an image, a child that is gone.
    operator.idle().await;
    cluster.merge(&deployment, &json!({"spec": {"replicas": 9, "template": {"spec": {"terminationGracePeriodSeconds": 7}}}}));
    until("what was spoilt to be put back", || {
        let now = cluster.get(&deployment).unwrap();
        now["spec"]["replicas"] == 2
            && now["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] != 7
    })
    .await;
    let service = child("Service", "transport-telnet");
    let ports = || cluster.get(&service).unwrap()["spec"]["ports"].clone();
    let right = ports();
    let mut wrong = right.clone();
    wrong[0]["port"] = 9999.into();
    cluster.merge(&service, &json!({"spec": {"ports": wrong}}));
    until("its port to be put back", || ports() == right).await;
    let (status, _) = cluster.server.request("DELETE", &service, None).unwrap();
    assert_eq!(status, 200);
    until("the Service to be made anew", || {
        cluster.get(&service).is_some()
    })
    .await;
    // What others add is theirs.
    operator.idle().await;
    cluster.merge(&deployment, &json!({"metadata": {"labels": {"team": "a"}}, "spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}));
    operator.idle().await;
    nothing_is_written(cluster, proxy, operator, observed, QUIET).await;
    let now = cluster.get(&deployment).unwrap();
    assert_eq!(now["metadata"]["labels"]["team"], "a");
    assert_eq!(
        now["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"],
        "now"
    );
    // Every kind of child can go again.
    let api = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/api";
    cluster.merge(api, &json!({"spec": {"networkPolicy": {}, "service": {"expose": {"host": "a.example.net", "ingress": {}}}}}));
    let those = [
        child("NetworkPolicy", "transport-api"),
        child("Ingress", "transport-api"),
    ];
    until("NetworkPolicy and Ingress", || {
        those.iter().all(|path| cluster.get(path).is_some())
    })
    .await;
    cluster.merge(
        api,
        &json!({"spec": {"networkPolicy": null, "service": null}}),
    );
    until("these to go", || {
        those.iter().all(|path| cluster.get(path).is_none())
    })
    .await;
    let echo = "/apis/vumi.dev/v1alpha1/namespaces/campaign/applications/echo";
    let workloads = ["Deployment", "StatefulSet"].map(|kind| child(kind, "application-echo"));
    let there = || workloads.each_ref().map(|path| cluster.get(path).is_some());
    cluster.merge(echo, &json!({"spec": {"state": {"volume": {}}}}));
    until("a StatefulSet instead of the Deployment", || {
        there() == [false, true]
    })
    .await;
    cluster.merge(echo, &json!({"spec": {"state": null}}));
    until("a Deployment again", || there() == [true, false]).await;
    cluster.merge(resource, &json!({"spec": {"telnet": null, "devNull": {}}}));
    until("the Service of a worker that does not listen to go", || {
        cluster.get(&service).is_none()
    })
    .await;
    operator.idle().await;
    what_was_there_before_is_not_taken_over(cluster).await;
    operator.idle().await;
}

/// A ServiceAccount that somebody prepared has no field that would refuse ours.
async fn what_was_there_before_is_not_taken_over(cluster: &Cluster) {
    let account = child("ServiceAccount", "transport-foreign");
    let theirs = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "transport-foreign", "namespace": NAMESPACE},
    });
    cluster.apply(&account, &theirs);
    // The API server tells times in seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resource = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/foreign";
    let transport = json!({
        "apiVersion": "vumi.dev/v1alpha1", "kind": "Transport",
        "metadata": {"name": "foreign", "namespace": NAMESPACE}, "spec": {"devNull": {}, "replicas": 0},
    });
    cluster.apply(resource, &transport);
    let status = || cluster.get(resource).unwrap()["status"].clone();
    let said = "ServiceAccount transport-foreign exists already and is not ours";
    until("it to be told", || status().to_string().contains(said)).await;
    let untouched = || {
        let metadata = cluster.get(&account).unwrap()["metadata"].clone();
        assert!(metadata["ownerReferences"].is_null(), "{metadata:#}");
        assert!(metadata["labels"].is_null(), "{metadata:#}");
        metadata["resourceVersion"].clone()
    };
    let version = untouched();
    // It is tried again, and asked before.
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(untouched(), version);
    let (code, _) = cluster.server.request("DELETE", &account, None).unwrap();
    assert_eq!(code, 200);
    until("it to be applied", || status()["appliedGeneration"] == 1).await;
    let (code, _) = cluster.server.request("DELETE", resource, None).unwrap();
    assert_eq!(code, 200);
}

async fn faults(cluster: &Cluster, proxy: &Proxy, operator: &Running, observed: &mut Observed) {
    let deployment = child("Deployment", "transport-telnet");
    let resource = TELNET;
    for (replicas, fault) in [
        Fault::Status(429),
        Fault::Status(409),
        Fault::Status(500),
        Fault::Stall,
    ]
    .into_iter()
    .enumerate()
    {
        let replicas = replicas + 3;
        let mut left = 2;
        proxy.inject(move |seen| {
            let hit = left > 0 && seen.is_write() && seen.path.contains("/deployments/");
            left -= usize::from(hit);
            hit.then_some(fault)
        });
        cluster.merge(resource, &json!({"spec": {"replicas": replicas}}));
        until(
            &format!("{replicas} replicas in spite of {fault:?}"),
            || cluster.get(&deployment).unwrap()["spec"]["replicas"] == replicas,
        )
        .await;
        operator.idle().await;
        assert_eq!(proxy.mend().values().sum::<usize>(), 2, "{fault:?}");
    }
    // Every watch breaks, and what it knew is too old: it lists anew.
    let mut left = 40;
    proxy.inject(move |seen| {
        let hit = left > 0 && seen.query.contains("watch=true");
        left -= usize::from(hit);
        hit.then_some(Fault::Status(410))
    });
    proxy.cut();
    cluster.merge(resource, &json!({"spec": {"replicas": 1}}));
    until("1 replica after all watches broke", || {
        cluster.get(&deployment).unwrap()["spec"]["replicas"] == 1
    })
    .await;
    assert!(proxy.mend()["Status(410)"] > 0);
    until("the operator to lead", || {
        operator.engine.api.gate().leads()
    })
    .await;
    operator.idle().await;
    nothing_is_written(cluster, proxy, operator, observed, QUIET).await;
}

async fn a_secret_is_rotated(
    cluster: &Cluster,
    proxy: &Proxy,
    operator: &Running,
    observed: &mut Observed,
    broker: &BrokerPlace,
) {
    let deployment = cluster
        .get(&child("Deployment", "transport-telnet"))
        .unwrap();
    let place = child("Pod", POD);
    operator.idle().await;
    // Another user of the same broker, with another password.
    cluster.broker(&broker.url.replace("planted:planted-value", "guest:guest"));
    let revision = || {
        cluster.get(&place).unwrap()["metadata"]["annotations"]["vumi.dev/secret-revision"].clone()
    };
    // Within a minute, without anybody asking.
    until("the pod to be touched", || revision().is_string()).await;
    operator.idle().await;
    let now = cluster
        .get(&child("Deployment", "transport-telnet"))
        .unwrap();
    assert_eq!(
        now["metadata"]["generation"], deployment["metadata"]["generation"],
        "it is not written"
    );
    nothing_is_written(cluster, proxy, operator, observed, QUIET).await;
}

/// Rolled back, they would lose what is written: so nothing is, until they are upgraded again (K2).
async fn older_definitions(
    cluster: &Cluster,
    proxy: &Proxy,
    operator: &Running,
    observed: &mut Observed,
) {
    let resource = TELNET;
    let user = "/apis/vumi.dev/v1alpha1/namespaces/campaign/transports/telnet-full";
    let whole = cluster.get(user).unwrap();
    assert!(whole["spec"]["backlogLimit"].is_number(), "{whole}");
    let mut older = definitions().remove(0);
    let spec = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let removed = spec["properties"]
        .as_object_mut()
        .unwrap()
        .remove("backlogLimit");
    assert!(removed.is_some());
    // Rules that speak of it go with it.
    if let Some(rules) = spec["x-kubernetes-validations"].as_array_mut() {
        rules.retain(|rule| !rule["rule"].as_str().unwrap().contains("backlogLimit"));
    }
    cluster.server.establish(&older).unwrap();
    let limit = || Some(cluster.get(user)?["spec"]["backlogLimit"].clone());
    until("what is lacking to be left out", || {
        limit().is_some_and(|limit| limit.is_null())
    })
    .await;
    let seen = cluster.get(user).unwrap();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    // The API server itself tells of other definitions a second late. After that, and before the next look at them is due,
    // something happens that the status would tell.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let workload = child("Deployment", "transport-telnet-full");
    let generation = cluster.get(&workload).unwrap()["metadata"]["generation"].clone();
    assert_eq!(seen["status"]["replicas"], 0, "{seen}");
    cluster.said(
        &workload,
        json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1}),
    );
    until("the operator to notice", || {
        operator.health.ready().is_err()
    })
    .await;
    let why = operator.health.ready().unwrap_err();
    assert!(why.contains("backlogLimit"), "{why}");
    // One that begins now does not begin to write either.
    let other = Running::start(proxy, "three");
    until("another one to notice", || {
        let ready = other.health.ready();
        ready.is_err_and(|why| why.contains("backlogLimit"))
    })
    .await;
    // People are told once, where the operator is: nothing may be written to resources.
    let told = || {
        let all = cluster.get("/apis/events.k8s.io/v1/namespaces/vumi-system/events");
        let all = all.unwrap()["items"].as_array().unwrap().clone();
        let older = all
            .into_iter()
            .filter(|event| event["reason"] == "DefinitionsOlder");
        older.collect::<Vec<_>>()
    };
    until("the event", || !told().is_empty()).await;
    observe(proxy, observed);
    cluster.merge(resource, &json!({"spec": {"replicas": 2}}));
    tokio::time::sleep(QUIET).await;
    let writes = observe(proxy, observed);
    assert!(writes.is_empty(), "{writes:#?}");
    let told = told();
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!(told[0]["regarding"]["name"], "vumi-operator");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/vumi-system/leases/vumi-operator";
    let uid = cluster.get(lease).unwrap()["metadata"]["uid"].clone();
    assert_eq!(told[0]["regarding"]["uid"], uid);
    let note = told[0]["note"].as_str().unwrap();
    assert!(note.contains("Transport.spec.backlogLimit"), "{note}");
    other.end().await;
    let now = cluster.get(user).unwrap();
    assert_eq!(version(&now), version(&seen), "nobody wrote to it");
    cluster.server.establish(&definitions().remove(0)).unwrap();
    until("what is there to come back whole", || {
        cluster
            .get(user)
            .is_some_and(|now| now["spec"] == whole["spec"])
    })
    .await;
    let deployment = child("Deployment", "transport-telnet");
    until("the edit to be taken up", || {
        cluster.get(&deployment).unwrap()["spec"]["replicas"] == 2
    })
    .await;
    assert!(operator.health.ready().is_ok());
    until("what happened meanwhile to be told", || {
        cluster.get(user).unwrap()["status"]["replicas"] == 1
    })
    .await;
    operator.idle().await;
}
