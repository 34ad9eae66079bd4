//! As many pods as there is work for: by what waits, as the operator decides, or by CPU, as a HorizontalPodAutoscaler does.

use crate::operator::{ECHO, echo_of_load};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use vumi_e2e::{Metrics, Namespace, Operator, RabbitMq, alone};

/// Enough to be there still when all pods are, and far more than three pods are for.
const BURST: usize = 10_000;
/// The operator looks at a broker every five seconds.
const LOOK: Duration = Duration::from_secs(6);

/// A backlog makes pods, up to the bound. Once nothing waits or comes all of them go, and a single message brings one back
/// within ten seconds.
#[test]
fn a_backlog_makes_pods_idleness_takes_them_and_one_message_wakes_one() {
    // That is measured, so nobody else is to need the processor.
    let _alone = alone();
    let here = Namespace::create("scales");
    let _operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    here.ready("deployment/rabbitmq", 180);
    let bounds = json!({
        "minReplicas": 0, "maxReplicas": 3, "backlogPerReplica": 100, "scaleDownAfter": "20s",
    });
    let by_backlog = json!({
        "ordering": {"mode": "none"}, "backlogLimit": 100_000, "autoscaling": bounds,
    });
    echo_of_load(&here, &by_backlog);
    // Not without having run once, which makes the queues.
    idles(&here);
    assert_eq!(here.waiting("load.inbound"), Ok(0));

    // Nobody is to take from it before it is whole and seen.
    patch(&here, ECHO, &json!({"suspend": true}));
    is_ready_for(&here, "Suspended", 60);
    here.load("burst", "load", BURST, 5000);
    here.load_is("burst", "Succeeded", 120);
    here.wait_for("all of it waits", 60, || {
        let waiting = here.waiting("load.inbound")?;
        (waiting == BURST)
            .then_some(())
            .ok_or(format!("{waiting} messages wait"))
    });
    std::thread::sleep(LOOK);
    patch(&here, ECHO, &json!({"suspend": false}));
    here.has_pods(ECHO, 3, 90);
    let decided = here.get(ECHO).unwrap()["status"]["autoscaling"].clone();
    assert_eq!(decided["desiredReplicas"], 3, "{decided}");
    let why = decided["message"].as_str().unwrap_or_default();
    assert!(why.starts_with("3 pods: "), "{decided}");
    // Nobody else decides beside it, and whoever tries is told.
    let scale = here.kubectl(&["scale", ECHO, "--replicas=2"], "");
    let told = String::from_utf8_lossy(&scale.stderr);
    assert!(
        !scale.status.success() && told.contains("spec.autoscaling decides the replicas"),
        "{told}"
    );
    let mut answered = BTreeSet::new();
    here.wait_for("each message is answered", 180, || {
        loop {
            let replies = here.replies("load")?;
            if replies.is_empty() {
                break;
            }
            answered.extend(replies.into_iter().map(|reply| reply.content));
        }
        let all = (1..=BURST).all(|number| answered.contains(&format!("burst {number}")));
        all.then_some(())
            .ok_or_else(|| format!("{} are", answered.len()))
    });

    idles(&here);
    here.say("load", "ann", "good morning", &json!({}));
    let said = Instant::now();
    here.wait_for("one message wakes a pod", 10, || {
        let pods = here.pods(ECHO);
        let runs = pods.iter().any(|pod| !pod.container.is_empty());
        runs.then_some(()).ok_or(format!("{pods:?}"))
    });
    println!("woken after {:.1} s", said.elapsed().as_secs_f32());
    here.wait_for("the status says so", 10, || {
        let decided = here.get(ECHO)?["status"]["autoscaling"].clone();
        (decided["reason"] == "Woken")
            .then_some(())
            .ok_or_else(|| decided.to_string())
    });
    here.wait_for("the message is answered", 60, || {
        let replies = here.replies("load")?;
        let answer = replies.iter().any(|reply| reply.content == "good morning");
        answer.then_some(()).ok_or(format!("{replies:?}"))
    });
}

/// Waits until there are no pods, and the status says that there is nothing to do.
fn idles(here: &Namespace) {
    here.wait_for("no pods, since there is nothing to do", 180, || {
        let status = here.get(ECHO)?["status"].clone();
        let decided = &status["autoscaling"];
        let idle = decided["desiredReplicas"] == 0 && decided["reason"] == "Idle";
        let none = status["replicas"] == 0 && here.pods(ECHO).is_empty();
        (idle && none)
            .then_some(())
            .ok_or_else(|| status.to_string())
    });
    is_ready_for(here, "ScaledToZero", 30);
}

/// Waits until `Ready` is true for this reason.
fn is_ready_for(here: &Namespace, reason: &str, seconds: u64) {
    here.wait_for(&format!("Ready because of {reason}"), seconds, || {
        let why = here.condition(ECHO, "Ready", "True", seconds);
        why.starts_with(&format!("{reason}: "))
            .then_some(())
            .ok_or(why)
    });
}

const SCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: echo}
spec:
  scaleTargetRef: {apiVersion: vumi.dev/v1alpha1, kind: Application, name: echo}
  minReplicas: 1
  maxReplicas: 3
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}
  # Down as fast as up.
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
";

/// A HorizontalPodAutoscaler of Kubernetes, with a real metrics-server, scales an application by the CPU of its pods through
/// `/scale`: the operator makes the pods, replaces none for it, and takes them away again. Beside `autoscaling` it is told that
/// somebody else decides.
#[test]
fn a_horizontal_pod_autoscaler_goes_by_the_cpu_of_the_pods() {
    let Some(_metrics) = Metrics::start() else {
        return vumi_testkit::skip("this cluster has no metrics-server");
    };
    let here = Namespace::create("hpa");
    let _operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    let by_cpu = json!({
        "ordering": {"mode": "perUser", "partitions": 8},
        "backlogLimit": 1_000_000,
        // More than a program that is not optimised takes while it has nothing to do.
        "resources": {"requests": {"cpu": "200m"}},
    });
    echo_of_load(&here, &by_cpu);
    here.settled(&[ECHO], 240);
    let first = here.pods(ECHO).remove(0);
    here.succeed(&["apply", "-f", "-"], SCALER);
    here.wait_for("it reads what the pods use", 180, || {
        let status = here.get("hpa/echo")?["status"].clone();
        let current = &status["currentMetrics"][0]["resource"]["current"];
        let known = current["averageUtilization"].is_u64();
        known.then_some(()).ok_or_else(|| status.to_string())
    });

    here.load("cpu", "load", 100_000, 300);
    let most = here.wait_for("work makes pods", 240, || {
        let object = here.get(ECHO)?;
        let (wanted, status) = (object["spec"]["replicas"].as_u64(), &object["status"]);
        let all = ["replicas", "readyReplicas"].map(|field| status[field].as_u64());
        match wanted.filter(|wanted| *wanted >= 2 && all == [Some(*wanted); 2]) {
            Some(wanted) => Ok(wanted),
            None => Err(format!("{object} {}", here.get("hpa/echo")?["status"])),
        }
    });
    println!("{most} pods");
    let pods = here.pods(ECHO);
    let kept = pods.iter().any(|pod| pod.uid == first.uid);
    assert!(
        kept && pods.iter().all(|pod| pod.restarts == 0),
        "{first:?} {pods:?}"
    );
    let events = here.succeed(&["get", "events.events.k8s.io"], "");
    assert!(events.contains("SuccessfulRescale"), "{events}");

    here.succeed(&["delete", "pod", "load-cpu", "--wait=false"], "");
    here.wait_for("less work takes them away", 300, || {
        let object = here.get(ECHO)?;
        let one = object["spec"]["replicas"] == 1 && object["status"]["replicas"] == 1;
        match one {
            true => Ok(()),
            false => Err(here.get("hpa/echo")?["status"].to_string()),
        }
    });
    here.settled(&[ECHO], 120);

    // The operator decides itself from now on, which whoever wants two is told.
    patch(&here, ECHO, &json!({"autoscaling": {"maxReplicas": 3}}));
    patch(&here, "hpa/echo", &json!({"minReplicas": 2}));
    let told = here.condition("hpa/echo", "AbleToScale", "False", 120);
    let reason = "spec.autoscaling decides the replicas: change its bounds or remove it";
    assert!(
        told.starts_with("FailedUpdateScale: ") && told.contains(reason),
        "{told}"
    );
    assert_eq!(here.get(ECHO).unwrap()["spec"]["replicas"], 1);
}

/// Changes the specification of an object.
fn patch(here: &Namespace, object: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    here.succeed(&["patch", object, "--type=merge", "--patch", &patch], "");
}
