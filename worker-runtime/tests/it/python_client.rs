//! A worker in another language on the queues of a real RabbitMQ: an application in Python, with an AMQP client of its
//! own, written from `docs/wire-protocol.md`. Transports of ours speak to users, it answers them in upper case.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::{PATIENCE, http, telnet::Telnet, vhost, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vumi_core::message::UserMessage;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

/// The Python application of one connector. Dropping it kills it.
struct Application {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Application {
    fn start(url: &str, connector: &str) -> Self {
        let (port, vhost) = address(url);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upper_case.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args([port, vhost, connector])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs the foreign worker of this test");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let output = BufReader::new(child.stdout.take().unwrap());
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    /// What it told about its messages and events so far.
    fn told(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let json = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        json.collect()
    }

    async fn is_ready(&self) {
        wait_for("the Python application consumes", PATIENCE, || async {
            let lines = self.lines.lock().unwrap();
            let ready = lines.iter().any(|line| line == "ready");
            ready.then_some(()).ok_or_else(|| format!("{lines:?}"))
        })
        .await;
    }

    /// Waits until each of its replies has its ack, and nothing else was reported.
    async fn every_reply_has_its_ack(&self, replies: usize) {
        wait_for("every reply has its ack", PATIENCE, || async {
            let told = self.told();
            let replied: Vec<&Value> = told.iter().filter_map(|line| line.get("replied")).collect();
            let acked: Vec<&Value> = told
                .iter()
                .filter(|line| line["event_type"] == "ack" && line["sent_message_id"].is_string())
                .map(|line| &line["user_message_id"])
                .collect();
            let whole = replied.len() == replies
                && acked.len() == replies
                && told.len() == 2 * replies
                && replied.iter().all(|id| acked.contains(id));
            whole.then_some(()).ok_or_else(|| format!("{told:?}"))
        })
        .await;
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Port and virtual host in `amqp://guest:guest@127.0.0.1:PORT/VHOST`.
fn address(url: &str) -> (&str, &str) {
    let (_, place) = url.rsplit_once('@').unwrap();
    let (host, vhost) = place.split_once('/').unwrap();
    (host.rsplit_once(':').unwrap().1, vhost)
}

/// Users of two transports of ours are answered by the Python application, over the broker at `url`.
async fn users_are_answered(url: &str) {
    let campaign = Campaign::empty();
    let (chat, web) = (
        vumi_testkit::free_port().unwrap(),
        vumi_testkit::free_port().unwrap(),
    );
    campaign.write(
        "transports.yaml",
        &format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: chat}}\nspec:\n  telnet: {{host: 127.0.0.1, port: {chat}}}\n---\napiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: web}}\nspec:\n  httpApi: {{replyExpected: true}}\n  http: {{host: 127.0.0.1, port: {web}}}\n"
        ),
    );
    let applications = [
        Application::start(url, "chat"),
        Application::start(url, "web"),
    ];
    for application in &applications {
        application.is_ready().await;
    }
    let admin = format!("127.0.0.1:{}", vumi_testkit::free_port().unwrap());
    let mut process = campaign.run(&["--broker", url, "--admin", &admin]);

    let mut user = wait_for("telnet greets", PATIENCE, || async {
        let mut user = Telnet::connect(chat).await.map_err(|e| e.to_string())?;
        match user.hear(Duration::from_secs(10)).await.as_deref() {
            Some("HELLO") => Ok(user),
            other => Err(format!("heard {other:?}")),
        }
    })
    .await;
    for (said, heard) in [("hi there", "HI THERE"), ("zoë ☃ 😀", "ZOË ☃ 😀")] {
        assert_eq!(user.ask(said, PATIENCE).await.as_deref(), Some(heard));
    }
    let path = "/?content=what+is+new&from_addr=%2B27820000042&to_addr=555";
    let answer = wait_for("the HTTP API answers", PATIENCE, || async {
        match http::get(web, path, Duration::from_secs(20)).await {
            Ok((200, body)) => Ok(body),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(answer, "WHAT IS NEW");
    applications[0].every_reply_has_its_ack(3).await;
    applications[1].every_reply_has_its_ack(1).await;
    process.assert_running();
    assert_eq!(process.stop(PATIENCE).await, Some(128 + 15));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_application_answers_users_over_rabbitmq_4() {
    if let Some(url) = vhost("python").await {
        users_are_answered(&url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_application_answers_users_over_rabbitmq_3() {
    let Some(broker) = RabbitMq::start_or_skip(Version::V3_10, Options::default()).await else {
        return;
    };
    broker.add_vhost("python", None).await.unwrap();
    users_are_answered(&broker.url("python")).await;
}

/// The Python side by itself, with a body that takes several frames in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_takes_and_gives_long_messages() {
    let Some(url) = vhost("python-alone").await else {
        return;
    };
    let application = Application::start(&url, "alone");
    application.is_ready().await;
    let amqp = Amqp::connect(&url).await;
    let content = "long and wide ☃ ".repeat(20_000);
    let message = user_message("m1", "alone", &content);
    amqp.publish("alone.inbound", message.to_string().as_bytes())
        .await;
    let reply = amqp.next("alone.outbound", PATIENCE).await;
    assert_eq!(reply["in_reply_to"], "m1");
    assert_eq!(reply["to_addr"], message["from_addr"]);
    assert_eq!(reply["content"], content.to_uppercase());
    UserMessage::decode(reply.to_string().as_bytes()).unwrap();
}
