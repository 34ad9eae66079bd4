//! A program in another language as an application.

use crate::operator::call;
use serde_json::json;
use vumi_e2e::{Namespace, Operator, RabbitMq, file, image};

/// The shipped Python application, in an image of its own, talks to people on a telnet transport.
#[test]
fn a_python_program_is_an_application() {
    let here = Namespace::create("custom");
    let _operator = Operator::start(&[&here]);
    here.client();
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
    let shipped = "registry.example.net/listener:1.0";
    for name in ["telnet", "app"] {
        let manifest = file(&format!("examples/custom-python/{name}.yaml"));
        let manifest = manifest.replace(shipped, &image("listener:e2e"));
        here.succeed(&["apply", "-f", "-"], &manifest);
    }
    here.settled(&["transport/talk", "application/listener"], 240);
    let (mut ann, said) = call(&here, "transport/talk");
    assert_eq!(said, "Hello. What is on your mind?");
    ann.send("I am tired of waiting");
    let heard = ann.hear(30);
    assert_eq!(
        heard.as_deref(),
        Some("How long have you been tired of waiting?")
    );

    // What is said while none of its pods runs is answered by the next one.
    let pod = here.pods("application/listener").remove(0);
    let kill = ["delete", "pod", &pod.name, "--grace-period=0", "--force"];
    here.succeed(&kill, "");
    ann.send("my phone");
    let heard = ann.hear(90);
    assert_eq!(heard.as_deref(), Some("Tell me more about your phone."));
}
