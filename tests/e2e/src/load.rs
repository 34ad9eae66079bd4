//! Numbered messages through a connector, and the replies to them.

use crate::Namespace;
use serde_json::Value;

/// Where the management API of the test's RabbitMQ is.
const MANAGEMENT: &str = "http://vumi:not-guest@rabbitmq:15672/api";
/// How many replies are taken out at one time.
const PORTION: usize = 1000;

impl Namespace {
    /// Starts a pod `load` that publishes messages with the contents 1, 2, … to a connector, each from a user of its own. It
    /// goes on where it was interrupted, until the broker has confirmed them all.
    pub fn load(&self, connector: &str, count: usize, rate: usize) {
        let manifest = LOAD
            .replace("CONNECTOR", connector)
            .replace("COUNT", &count.to_string())
            .replace("RATE", &rate.to_string());
        self.apply(&manifest);
        self.wait_for("the load has begun", 60, || {
            match self.load_phase()?.as_str() {
                "Running" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
    }

    /// What the pod `load` is at: `Running`, or `Succeeded` when all is confirmed.
    pub fn load_phase(&self) -> Result<String, String> {
        let pod = self.get("pod/load")?;
        Ok(pod["status"]["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
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
metadata: {name: load}
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
        - --from=2782{i}
        - --to=12345
        - --content={i}
        - --count=COUNT
        - --rate=RATE
        - --resume=/progress/load
        - --broker=amqp://vumi:not-guest@rabbitmq/
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
      volumeMounts: [{name: progress, mountPath: /progress}]
  volumes: [{name: progress, emptyDir: {}}]   # outlives the container
"#;
