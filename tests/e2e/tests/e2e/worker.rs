//! Workers of the `vumi` image, in pods of the restricted standard, against RabbitMQ in the cluster.

use vumi_e2e::{Namespace, RabbitMq, file};

/// A person on a telnet Service is answered by an application in another pod, through RabbitMQ.
#[test]
fn telnet_echo_answers_through_rabbitmq() {
    let here = Namespace::create("telnet-echo");
    here.rabbitmq(RabbitMq::V4_0);
    here.client();
    for name in ["telnet", "echo"] {
        here.apply(&worker(
            name,
            &file(&format!("examples/telnet-echo/{name}.yaml")),
        ));
    }
    here.apply(SERVICE);
    here.ready("deployment/rabbitmq", 180);
    here.ready("deployment/telnet", 60);
    here.ready("deployment/echo", 60);
    let mut ann = here.connect("telnet", 9010);
    let mut bob = here.connect("telnet", 9010);
    for person in [&mut ann, &mut bob] {
        assert_eq!(person.hear(30).as_deref(), Some("Enter text to echo:"));
    }
    ann.send("hello");
    assert_eq!(ann.hear(30).as_deref(), Some("hello"));
    bob.send("grüße ☎");
    assert_eq!(bob.hear(30).as_deref(), Some("grüße ☎"));
    ann.send("/quit");
    assert_eq!(ann.hear(30), None);
    bob.send("still here");
    assert_eq!(bob.hear(30).as_deref(), Some("still here"));
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: telnet}
spec: {selector: {app: telnet}, ports: [{port: 9010}]}
";

/// A Deployment of one worker with its manifest in a ConfigMap.
fn worker(name: &str, manifest: &str) -> String {
    let manifest: String = manifest.lines().map(|l| format!("    {l}\n")).collect();
    format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data:
  worker.yaml: |
{manifest}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext: {{runAsNonRoot: true, runAsUser: 1000, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
        - name: vumi
          image: localhost/vumi:e2e
          imagePullPolicy: IfNotPresent
          args: [worker]
          readinessProbe: {{httpGet: {{path: /readyz, port: 9464}}, periodSeconds: 1}}
          livenessProbe: {{httpGet: {{path: /healthz, port: 9464}}}}
          resources: {{requests: {{cpu: 10m, memory: 16Mi}}, limits: {{memory: 128Mi}}}}
          securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}, readOnlyRootFilesystem: true}}
          volumeMounts:
            - {{name: workers, mountPath: /etc/vumi/workers}}
            - {{name: broker, mountPath: /etc/vumi/secrets/vumi-broker}}
            - {{name: tmp, mountPath: /tmp}}   # the control socket
      volumes:
        - {{name: workers, configMap: {{name: {name}}}}}
        - {{name: broker, secret: {{secretName: vumi-broker}}}}
        - {{name: tmp, emptyDir: {{}}}}
"#
    )
}
