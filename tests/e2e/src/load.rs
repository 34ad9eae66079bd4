//! Numbered messages through a connector, and the replies to them.

use crate::Namespace;
use serde_json::{Value, json};

/// Where the management API of the test's RabbitMQ is.
const MANAGEMENT: &str = "http://vumi:not-guest@rabbitmq:15672/api";
/// How many replies are taken out at one time.
const PORTION: usize = 1000;
/// How many users write the messages of a load, in turn.
const USERS: usize = 50;

/// A reply, as it came out of its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its `message_id`.
    pub id: String,
    /// To which user.
    pub to: String,
    /// What it says.
    pub content: String,
}

impl Namespace {
    /// Starts a pod that publishes messages with the contents `NAME 1`, `NAME 2`, … to a connector, so many a second, and waits
    /// until it has begun. Fifty users write them in turn, so that each has an order. It goes on where it was interrupted,
    /// until the broker has confirmed them all.
    pub fn load(&self, name: &str, connector: &str, count: usize, rate: usize) {
        let manifest = LOAD
            .replace("NAME", name)
            .replace("CONNECTOR", connector)
            .replace("COUNT", &count.to_string())
            .replace("USERS", &USERS.to_string())
            .replace("RATE", &rate.to_string());
        self.apply(&manifest);
        self.load_is(name, "Running", 60);
    }

    /// One message from a user to a connector, which is in its queue when this returns. `helper` is what its transport knows
    /// beside that, its `helper_metadata`.
    ///
    /// # Panics
    /// If no queue takes it within half a minute.
    pub fn say(&self, connector: &str, user: &str, content: &str, helper: &Value) {
        let message = json!({
            "message_version": "20110921", "message_type": "user_message",
            "message_id": format!("said-by-{user}"), "timestamp": "2026-01-01 12:00:00.000000",
            "from_addr": user, "to_addr": "12345", "content": content, "in_reply_to": null,
            "session_event": null, "group": null, "provider": null, "transport_name": connector,
            "transport_type": "sms", "transport_metadata": {}, "helper_metadata": helper,
            "routing_metadata": {},
        });
        let publication = json!({
            "routing_key": format!("{connector}.inbound"), "payload": message.to_string(),
            "payload_encoding": "string",
            "properties": {"delivery_mode": 2, "content_type": "application/json", "content_encoding": "utf-8"},
        });
        self.wait_for("a message is in its queue", 30, || {
            let answer = self.manage("exchanges/%2F/vumi/publish", &publication.to_string())?;
            answer.contains("true").then_some(()).ok_or(answer)
        });
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

    /// How many messages wait in a queue, and are in nobody's hand.
    ///
    /// # Errors
    /// There is no such queue, or RabbitMQ does not say yet.
    pub fn waiting(&self, queue: &str) -> Result<usize, String> {
        let answer = self.in_client(&format!("wget -q -O - {MANAGEMENT}/queues/%2F/{queue}"))?;
        let told: Value = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        let waiting = told["messages_ready"].as_u64();
        let waiting = waiting.and_then(|waiting| usize::try_from(waiting).ok());
        waiting.ok_or(answer)
    }

    /// Takes replies out of a connector's outbound queue, in order. None: it is empty.
    pub fn replies(&self, connector: &str) -> Result<Vec<Reply>, String> {
        let ask =
            format!(r#"{{"count":{PORTION},"ackmode":"ack_requeue_false","encoding":"auto"}}"#);
        let answer = self.manage(&format!("queues/%2F/{connector}.outbound/get"), &ask)?;
        let messages: Vec<Value> = serde_json::from_str(&answer).map_err(|e| e.to_string())?;
        messages
            .iter()
            .map(|message| -> Result<Reply, String> {
                let body = message["payload"].as_str().unwrap_or_default();
                let body: Value = serde_json::from_str(body).map_err(|e| e.to_string())?;
                let text = |field: &str| {
                    let value = body[field].as_str().map(str::to_owned);
                    value.ok_or_else(|| format!("a reply without {field}: {body}"))
                };
                Ok(Reply {
                    id: text("message_id")?,
                    to: text("to_addr")?,
                    content: text("content")?,
                })
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
  initContainers:
    - name: messages
      image: localhost/busybox:e2e
      imagePullPolicy: IfNotPresent
      command:
        - awk
        - 'BEGIN {
          file = "/progress/messages.csv";
          print "from,content" > file;
          for (i = 1; i <= COUNT; i++) print "NAME-" (i % USERS) ",NAME " i > file
          }'
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 32Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
      volumeMounts: [{name: progress, mountPath: /progress}]
  containers:
    - name: load
      image: localhost/vumi:e2e
      imagePullPolicy: IfNotPresent
      args:
        - inject
        - --connector=CONNECTOR
        - --to=12345
        - --rate=RATE
        - --resume=/progress/load
        - --broker=amqp://vumi:not-guest@rabbitmq/
        - /progress/messages.csv
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 128Mi}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
      volumeMounts: [{name: progress, mountPath: /progress}]
  volumes: [{name: progress, emptyDir: {}}]   # outlives the container
"#;
