//! What the other tests rely on: nodes, names, Services, brokers.

use serde_json::json;
use vumi_e2e::{Namespace, RabbitMq, beside_others, get, wait_for};

#[test]
fn every_node_is_ready() {
    let _turn = beside_others();
    let nodes = get(&["nodes"]);
    let nodes = nodes["items"].as_array().unwrap();
    assert!(!nodes.is_empty());
    for node in nodes {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
        assert_eq!(ready["status"], json!("True"), "{node}");
    }
}

/// A Service is found by its name and spreads connections over its pods.
#[test]
fn a_service_is_found_by_name_and_balances() {
    let here = Namespace::create("service");
    here.client();
    here.apply(WHO);
    here.ready("deployment/who", 60);
    let pods = here.succeed(&["get", "pods", "-l", "app=who", "-o", "name"], "");
    let mut pods: Vec<&str> = pods.lines().map(|p| p.trim_start_matches("pod/")).collect();
    pods.sort_unstable();
    assert_eq!(pods.len(), 2);
    let full = format!("who.{}.svc.cluster.local", here.name);
    for name in ["who", &full] {
        wait_for(&format!("both pods behind {name}"), 60, || {
            let ask =
                format!("for i in 1 2 3 4 5 6 7 8; do timeout 10 nc {name} 7000 || exit 1; done");
            let answers = here.in_client(&ask)?;
            let mut seen: Vec<&str> = answers.lines().collect();
            seen.sort_unstable();
            seen.dedup();
            (seen == pods).then_some(()).ok_or(answers)
        });
    }
    // No such name is no such address, and not one of a search path.
    assert!(here.in_client("timeout 10 nc nobody 7000").is_err());
}

/// Each pod answers with its own name.
const WHO: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: who}
spec: {selector: {app: who}, ports: [{port: 7000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: who}
spec:
  replicas: 2
  selector: {matchLabels: {app: who}}
  template:
    metadata: {labels: {app: who}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: who
          image: localhost/busybox:e2e
          imagePullPolicy: IfNotPresent
          command: [nc, -ll, -p, "7000", -e, hostname]
          readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}
          resources: {limits: {memory: 32Mi}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
"#;

/// What a pod writes to a claimed volume is there for its successor.
#[test]
fn a_volume_outlives_its_pod() {
    let here = Namespace::create("volume");
    here.apply(DIARY);
    let entries = |count: usize| {
        wait_for("an entry for each life", 60, || {
            let read = ["exec", "diary-0", "--", "cat", "/diary/lives"];
            let output = here.kubectl(&read, "");
            let lives = String::from_utf8_lossy(&output.stdout).into_owned();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            (lives.lines().count() == count)
                .then_some(())
                .ok_or(told + &lives)
        });
    };
    entries(1);
    here.succeed(&["delete", "pod", "diary-0"], "");
    entries(2);
}

/// Writes a line whenever it starts.
const DIARY: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: diary}
spec:
  serviceName: diary
  selector: {matchLabels: {app: diary}}
  template:
    metadata: {labels: {app: diary}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: diary
          image: localhost/busybox:e2e
          imagePullPolicy: IfNotPresent
          command: [sh, -c, "hostname >> /diary/lives && exec sleep infinity"]
          resources: {limits: {memory: 32Mi}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
          volumeMounts: [{name: diary, mountPath: /diary}]
  volumeClaimTemplates:
    - metadata: {name: diary}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

/// Both versions of RabbitMQ and Redis run as pods of the restricted standard and answer by their Service's name.
#[test]
fn brokers_and_redis_run_as_pods() {
    let new = Namespace::create("broker");
    let old = Namespace::create("broker");
    new.rabbitmq(RabbitMq::V4_0);
    old.rabbitmq(RabbitMq::V3_10);
    new.redis();
    new.client();
    new.ready("deployment/redis", 60);
    let pong = new.in_client("printf 'PING\\r\\n' | timeout 10 nc redis 6379");
    assert_eq!(pong.as_deref(), Ok("+PONG\r\n"));
    for (place, version) in [(&new, "4.0"), (&old, "3.10")] {
        place.ready("deployment/rabbitmq", 180);
        let url = format!(
            "http://vumi:not-guest@rabbitmq.{}:15672/api/overview",
            place.name
        );
        let overview = wait_for("the management API", 60, || {
            new.in_client(&format!("wget -q -O - {url}"))
        });
        let overview: serde_json::Value = serde_json::from_str(&overview).unwrap();
        let told = overview["rabbitmq_version"].as_str().unwrap();
        assert!(told.starts_with(version), "{told}");
    }
}
