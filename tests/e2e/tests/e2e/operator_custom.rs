//! Programs in another language: an application, and a transport that is started as Vumi 0.6 starts its workers.

use crate::operator::{ECHO, call};
use serde_json::{Value, json};
use vumi_e2e::{Namespace, Operator, RabbitMq, documents, file, image, root};

const TALK: &str = "transport/talk";
const LISTENER: &str = "application/listener";
const WEB: &str = "transport/web";
const ALL: [&str; 4] = [TALK, LISTENER, WEB, ECHO];
/// The image of the tests with Python and what both programs share.
const PYTHON: &str = "listener:e2e";

/// Both shipped examples run: `custom-python`, which answers people on a transport of ours, and `custom-transport`, whose callers
/// are answered by an application of ours.
#[test]
fn programs_in_python_are_an_application_and_a_transport() {
    let here = Namespace::create("custom");
    // The broker of those who have such programs.
    here.rabbitmq(RabbitMq::V3_10);
    // What the RabbitMQ cluster operator writes beside the parts.
    let more = json!({"stringData": {
        "connection_string": "amqp://vumi:not-guest@rabbitmq:5672/",
        "default_user.conf": "default_user = vumi\ndefault_pass = not-guest\n",
        "provider": "rabbitmq",
        "type": "rabbitmq",
    }});
    let more = more.to_string();
    here.succeed(&["patch", "secret/vumi-broker", "--patch", &more], "");
    let operator = Operator::start(&[&here]);
    hears_of_secrets(&operator, &here);
    here.client();
    let shipped = "registry.example.net/listener:1.0";
    for name in ["telnet", "app"] {
        let manifest = file(&format!("examples/custom-python/{name}.yaml"));
        let manifest = manifest.replace(shipped, &image(PYTHON));
        here.succeed(&["apply", "-f", "-"], &manifest);
    }
    apply_transport(&here);
    here.settled(&ALL, 240);

    is_a_transport(&here);
    is_replaced_by_what_it_reads(&here);
    is_an_application(&here);
}

/// Has the operator watch labelled Secrets, which takes rights that are not shipped.
fn hears_of_secrets(operator: &Operator, here: &Namespace) {
    here.apply(&RIGHTS.replace("PLACE", &operator.place.name));
    let args = "/spec/template/spec/containers/0/args/-";
    let flag = json!([{"op": "add", "path": args, "value": "--watch-secrets"}]).to_string();
    let patch = ["patch", "deployment/vumi-operator", "--type=json"];
    let patch = [patch.as_slice(), &["--patch", &flag]].concat();
    operator.place.succeed(&patch, "");
    operator.place.ready("deployment/vumi-operator", 120);
}

const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watch-secrets}
rules: [{apiGroups: [""], resources: [secrets], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watch-secrets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watch-secrets}
subjects: [{kind: ServiceAccount, name: vumi-operator, namespace: PLACE}]
"#;

/// Applies the shipped transport, its Secret and its application. No image of the tests has its program, which is put into the
/// pod as a file instead.
fn apply_transport(here: &Namespace) {
    let example = |file: &str| root().join("examples/custom-transport").join(file);
    let program = format!("--from-file={}", example("web.py").display());
    here.succeed(&["create", "configmap", "web-program", &program], "");
    let mut all = documents(&file("examples/custom-transport/web.yaml"));
    let web = &mut all[0];
    web["spec"]["custom"]["image"] = image(PYTHON).into();
    let mount = json!({"name": "program", "mountPath": "/app/web.py", "subPath": "web.py"});
    web["spec"]["overrides"] = json!({"spec": {
        "volumes": [{"name": "program", "configMap": {"name": "web-program"}}],
        "containers": [{"name": "worker", "volumeMounts": [mount]}],
    }});
    for document in all {
        here.succeed(&["apply", "-f", "-"], &document.to_string());
    }
    let echo = example("echo.yaml");
    here.succeed(&["apply", "-f", &echo.to_string_lossy()], "");
}

/// It has the broker from its arguments, its name and settings from its file, and a Service with callers, whom it gives what the
/// application replies.
fn is_a_transport(here: &Namespace) {
    let why = here.condition(WEB, "Ready", "True", 10);
    let reads = "Running: the pods run and the broker sees their consumers";
    assert_eq!(why, reads);
    let answer = answer(here, "change-me", "hello");
    assert_eq!(answer, "hello\nReply STOP to end.\n");
    let pod = &here.pods(WEB)[0].name;
    for (file, outcome) in [("/tmp/note", "written"), ("/app/note", "EROFS")] {
        let write = ["exec", pod, "--", "python3", "-c", WRITE, file];
        assert_eq!(here.succeed(&write, "").trim(), outcome, "{file}");
    }
}

const WRITE: &str = "
import errno, sys
try:
    open(sys.argv[1], 'w').close()
    print('written')
except OSError as error:
    print(errno.errorcode[error.errno])
";

/// An edit of its settings and one of the Secret that it names give it new pods, and nobody else: neither the other program,
/// which has the broker of the same Secret, nor the workers of ours.
fn is_replaced_by_what_it_reads(here: &Namespace) {
    alone_is_replaced(here, || {
        let edit = json!({"spec": {"custom": {"config": {"footer": "See you."}}}}).to_string();
        here.succeed(&["patch", WEB, "--type=merge", "--patch", &edit], "");
    });
    assert_eq!(answer(here, "change-me", "again"), "again\nSee you.\n");

    alone_is_replaced(here, || {
        let revision = || -> Result<Value, String> {
            let deployment = here.get("deployment/transport-web")?;
            let template = &deployment["spec"]["template"]["metadata"];
            Ok(template["annotations"]["vumi.dev/secrets-hash"].clone())
        };
        let before = revision().unwrap();
        let edit = json!({"stringData": {"key": "another"}}).to_string();
        here.succeed(&["patch", "secret/web-callers", "--patch", &edit], "");
        // The Secret is labelled: what else is noticed within a minute is heard at once.
        here.wait_for("the operator acts on the new key", 20, || {
            let now = revision()?;
            (now != before).then_some(()).ok_or(now.to_string())
        });
    });
    assert_eq!(answer(here, "another", "more"), "more\nSee you.\n");
    let refused = ask(here, "change-me", "more").unwrap_err();
    assert!(refused.contains("401"), "{refused}");
}

/// Does what gives the transport new pods only, and nobody else any.
fn alone_is_replaced(here: &Namespace, edit: impl FnOnce()) {
    let others = || [TALK, LISTENER, ECHO].map(|resource| here.pods(resource));
    let (before, stay) = (here.pods(WEB), others());
    edit();
    here.wait_for("the transport has new pods only", 120, || {
        let now = here.pods(WEB);
        let kept = now
            .iter()
            .any(|pod| before.iter().any(|old| old.uid == pod.uid));
        (!now.is_empty() && !kept)
            .then_some(())
            .ok_or(format!("{now:?}"))
    });
    // The last old one is gone, which would have taken some of the replies.
    here.settled(&ALL, 120);
    assert_eq!(others(), stay);
}

/// What a caller of the transport is answered; asked again until its Service leads to a pod.
fn answer(here: &Namespace, key: &str, content: &str) -> String {
    let what = format!("{content} is answered");
    here.wait_for(&what, 60, || ask(here, key, content))
}

fn ask(here: &Namespace, key: &str, content: &str) -> Result<String, String> {
    let status = here.get(WEB)?["status"].clone();
    let address = status["address"].as_str().ok_or(status.to_string())?;
    let message = format!("http://{address}/messages?from_addr=27820000001&content={content}");
    let key = format!("Authorization: Bearer {key}");
    here.in_client(&format!(
        "timeout 30 wget -q -O - --header '{key}' '{message}'"
    ))
}

/// It has the broker from its environment, and answers what is said to a transport of ours.
fn is_an_application(here: &Namespace) {
    let (mut ann, said) = call(here, TALK);
    assert_eq!(said, "Hello. What is on your mind?");
    ann.send("I am tired of waiting");
    let heard = ann.hear(30);
    assert_eq!(
        heard.as_deref(),
        Some("How long have you been tired of waiting?")
    );

    // What is said while none of its pods runs is answered by the next one.
    let pod = here.pods(LISTENER).remove(0);
    let kill = ["delete", "pod", &pod.name, "--grace-period=0", "--force"];
    here.succeed(&kill, "");
    ann.send("my phone");
    let heard = ann.hear(90);
    assert_eq!(heard.as_deref(), Some("Tell me more about your phone."));
}
