//! Numbered messages through a connector, and the replies to them.

use crate::Namespace;
use serde_json::Value;

/// Where the management API of the test's RabbitMQ is.
const MANAGEMENT: &str = "http://vumi:not-guest@rabbitmq:15672/api";
/// How many replies are taken out at one time.
const PORTION: usize = 1000;

impl Namespace {
    /// Starts a pod that publishes messages with the contents `NAME 1`, `NAME 2`, … to a connector, each from a user of its
    /// own, so many a second, and waits until it has begun. It goes on where it was interrupted, until the broker has
    /// confirmed them all.
    pub fn load(&self, name: &str, connector: &str, count: usize, rate: usize) {
        let manifest = LOAD
            .replace("NAME", name)
            .replace("CONNECTOR", connector)
            .replace("COUNT", &count.to_string())
            .replace("RATE", &rate.to_string());
        self.apply(&manifest);
        self.load_is(name, "Running", 60);
    }

    /// Waits until that pod is at this: `Running`, or `Succeeded` when all is confirmed.
    pub fn load_is(&self, name: &str, phase: &str, seconds: u64) {
        self.wait_for(&format!("load {name} is {phase}"), seconds, || {
            let pod = self.get(&format!("pod/load-{name}"))?;
            let now = pod["status"]["phase"].as_str().unwrap_or_default();
            (now == phase)
                .then_some(())
                .ok_or_else(|| pod["status"].to_string())
        });
    }

    /// What the management API of RabbitMQ answers to a POST of this JSON.
    pub fn manage(&self, path: &str, body: &str) -> Result<String, String> {
        let json = "Content-Type: application/json";
        self.in_client(&format!(
            "wget -q -O - --header '{json}' --post-data '{body}' {MANAGEMENT}/{path}"
        ))
    }

    /// Takes replies out of a connector's outbound queue, and gives their contents. None: it is empty.
    pub fn replies(&self, connector: &str) -> Result<Vec<String>, String> {
        let ask =
            format!(r#"{{"count":{PORTION},"ackmode":"ack_requeue_false","encoding":"auto"}}"#);
        let answer = self.manage(&format!("queues/%2F/{connector}.outbound/get"), &ask)?;
        let messages: Vec<Value> = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        messages
            .iter()
            .map(|message| {
                let body = message["payload"].as_str().unwrap_or_default();
                let body: Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
                let content = body["content"].as_str();
                content.map(str::to_owned).ok_or_else(|| body.to_string())
            })
            .collect()
    }
}

const LOAD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: load-NAME}
spec:
  restartPolicy: OnFailure
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: load
      image: localhost/vumi:e2e
      imagePullPolicy: IfNotPresent
      args:
        - inject
        - --connector=CONNECTOR
        - --from=NAME-{i}
        - --to=12345
        - --content=NAME {i}
        - --count=COUNT
        - --rate=RATE
        - --resume=/progress/load
        - --broker=amqp://vumi:not-guest@rabbitmq/
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
      volumeMounts: [{name: progress, mountPath: /progress}]
  volumes: [{name: progress, emptyDir: {}}]   # outlives the container
"#;
