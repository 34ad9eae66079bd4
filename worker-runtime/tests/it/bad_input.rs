//! Bad input over RabbitMQ: whatever stands in a queue is parked, answered or refused, the flow goes on, and people
//! handle what was set aside from the command line.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, run, said};
use crate::harness::telnet::{Telnet, greeted};
use crate::harness::{PATIENCE, http, vhost, wait_for};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use vumi_core::message::reply_id;

const ANSWER: Duration = Duration::from_secs(20);
const HELLO: &str = "/messages?content=hello&from_addr=27820000001&to_addr=12345";

/// Endpoints matter to this dispatcher, so an unknown one has no way.
const TABLE: &str = "apiVersion: vumi.dev/v1alpha1
kind: Dispatcher
metadata: {name: join}
spec:
  routingTable:
    transports: [telnet, http]
    exposed: [survey]
    table:
      telnet: {default: {connector: survey}}
      http: {default: {connector: survey, endpoint: web}}
      survey: {default: {connector: telnet}, web: {connector: http}}
";

/// Every data queue that some worker of the campaign consumes.
const QUEUES: [&str; 9] = [
    "telnet.inbound",
    "telnet.outbound",
    "telnet.event",
    "http.inbound",
    "http.outbound",
    "http.event",
    "survey.inbound",
    "survey.outbound",
    "survey.event",
];

/// Bodies that are no messages, and the code of each.
fn bad_bodies() -> Vec<(Vec<u8>, &'static str)> {
    let mut old = user_message("old", "telnet", "from another age");
    old["message_version"] = "20100101".into();
    let mut not_text = user_message("bytes", "telnet", "XX")
        .to_string()
        .into_bytes();
    let at = not_text.windows(2).position(|w| w == b"XX").unwrap();
    not_text[at] = 0xff;
    let deep = format!(
        "{}{}",
        "{\"a\":".repeat(5000),
        "1".to_owned() + &"}".repeat(5000)
    );
    let mut huge = user_message("huge", "telnet", "");
    huge["content"] = "x".repeat(10 << 20).into();
    vec![
        (b"\x00\x01 garbage".to_vec(), "message.not_json"),
        (b"[1, 2, 3]".to_vec(), "message.not_json"),
        (not_text, "message.not_json"),
        (deep.into_bytes(), "message.too_large"),
        (huge.to_string().into_bytes(), "message.too_large"),
        (old.to_string().into_bytes(), "message.version"),
    ]
}

struct Setting {
    run: Process,
    campaign: Campaign,
    amqp: Amqp,
    url: String,
}

/// The campaign with the routing table, up and answering.
async fn setting(name: &str) -> Option<Setting> {
    let url = vhost(name).await?;
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    campaign.write("dispatcher.yaml", TABLE);
    let run = campaign.run(&["--broker", &url]);
    let setting = Setting {
        amqp: Amqp::connect(&url).await,
        campaign,
        run,
        url,
    };
    setting.flows().await;
    Some(setting)
}

impl Setting {
    /// Messages pass on both ways in.
    async fn flows(&self) {
        greeted(self.campaign.port(9010), PATIENCE).await;
        self.answers_hello().await;
    }

    async fn answers_hello(&self) {
        wait_for("the HTTP API answers", PATIENCE, || async {
            match http::get(self.campaign.port(9011), HELLO, ANSWER).await {
                Ok((200, body)) if body == "hello" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// `vumi parked …`: its output, if it ends well.
    fn parked(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["parked"];
        all.extend(arguments);
        let output = run(self.campaign.path(), &all);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(format!("{all:?}: {}", said(&output))),
        }
    }

    /// `vumi parked list --format json …`.
    fn listed(&self, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let mut all = vec!["list", "--format", "json"];
        all.extend(arguments);
        let text = self.parked(&all)?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Waits until so many messages are parked; all of them.
    async fn parks(&self, count: usize) -> Vec<Value> {
        wait_for("messages are parked", PATIENCE, || async {
            let listed = self.listed(&[])?;
            match listed.len() == count {
                true => Ok(listed),
                false => Err(format!(
                    "{} of {count}: {:?}",
                    listed.len(),
                    counted(&listed)
                )),
            }
        })
        .await
    }

    fn socket(&self) -> String {
        let folder = self.campaign.path().join("vumi");
        let sockets: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
        assert_eq!(sockets.len(), 1, "one process, one socket");
        sockets[0].path().display().to_string()
    }
}

/// How many of each queue and code.
fn counted(parked: &[Value]) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    for one in parked {
        let key = (text(one, "origin").to_owned(), text(one, "code").to_owned());
        *found.entry(key).or_default() += 1;
    }
    found
}

fn ids(parked: &[Value]) -> Vec<&str> {
    parked.iter().map(|one| text(one, "id")).collect()
}

fn text<'a>(parked: &'a Value, key: &str) -> &'a str {
    parked[key].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_set_aside_and_handled_from_the_command_line() {
    let Some(mut setting) = setting("bad-bodies").await else {
        return;
    };
    assert_eq!(setting.listed(&[]).unwrap(), Vec::<Value>::new());
    let mut expected = BTreeMap::new();
    for queue in QUEUES {
        for (body, code) in bad_bodies() {
            setting.amqp.publish(queue, &body).await;
            *expected
                .entry((queue.to_owned(), code.to_owned()))
                .or_insert(0) += 1;
        }
    }
    let all = setting.parks(QUEUES.len() * bad_bodies().len()).await;
    setting.flows().await;
    for one in &all {
        assert_eq!(one["class"], "bad_input", "{one}");
        let reason = text(one, "reason");
        assert!(!reason.contains("garbage"), "no content: {reason}");
    }
    assert_eq!(counted(&all), expected);

    // A person looks, with and without naming the process, and on the broker itself.
    let socket = setting.socket();
    let of_queue = setting.listed(&["telnet.inbound"]).unwrap();
    assert_eq!(of_queue.len(), bad_bodies().len());
    let by_socket = setting.listed(&["telnet.inbound", "--socket", &socket]);
    assert_eq!(by_socket.unwrap(), of_queue);
    let on_broker = setting.listed(&["telnet.inbound", "--broker", &setting.url]);
    // Hashes of addresses are keyed by process, so only the rest is the same.
    assert_eq!(ids(&on_broker.unwrap()), ids(&of_queue));
    let old = of_queue.iter().find(|one| one["code"] == "message.version");
    let old = text(old.unwrap(), "id").to_owned();
    for place in [&[][..], &["--socket", &socket], &["--broker", &setting.url]] {
        let arguments = [&["show", "telnet.inbound", &old], place].concat();
        let shown = setting.parked(&arguments).unwrap();
        assert!(shown.contains("from another age"), "{shown}");
    }
    let table = setting.parked(&["list"]).unwrap();
    assert!(
        table.contains("message.too_large") && !table.contains("another age"),
        "{table}"
    );
    let unknown = setting
        .parked(&["show", "telnet.inbound", "no-such-id"])
        .unwrap_err();
    assert!(unknown.contains("no-such-id"), "{unknown}");

    // Requeued, it fails for the same reason and is parked again.
    setting
        .parked(&["requeue", "telnet.inbound", &old])
        .unwrap();
    setting
        .parked(&[
            "requeue",
            "survey.inbound",
            "--code",
            "message.not_json",
            "--yes",
            "--socket",
            &socket,
        ])
        .unwrap();
    setting.parks(all.len()).await;
    setting
        .parked(&[
            "drop",
            "telnet.inbound",
            "--code",
            "message.version",
            "--yes",
        ])
        .unwrap();
    let asked = setting.parked(&["drop", "survey.inbound", "--all", "--socket", &socket]);
    let question = "of the messages parked of survey.inbound? Nothing was done";
    assert!(asked.is_err_and(|why| why.contains(question)));
    setting
        .parked(&[
            "drop",
            "survey.inbound",
            "--all",
            "--yes",
            "--socket",
            &socket,
        ])
        .unwrap();
    setting
        .parked(&[
            "drop",
            "http.event",
            "--all",
            "--yes",
            "--broker",
            &setting.url,
        ])
        .unwrap();
    setting.parks(all.len() - 1 - 2 * bad_bodies().len()).await;
    setting.flows().await;
    setting.run.assert_running();
    let log = setting.run.log();
    assert!(!log.contains("another age"), "contents are not logged");
}

/// What a person corrected elsewhere is requeued and then handled: here the route that was missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_way_is_parked_or_answered() {
    let Some(setting) = setting("bad-routes").await else {
        return;
    };
    setting.amqp.tap("tap.survey", "survey.event").await;
    setting.amqp.tap("tap.telnet", "telnet.event").await;
    setting.amqp.tap("tap.http", "http.event").await;
    // The first event that is no ack: greetings of other tests of the flow are acknowledged meanwhile.
    let next = async |tap: &str| loop {
        let event = setting.amqp.next(tap, ANSWER).await;
        if event["event_type"] != "ack" {
            break event;
        }
    };
    let nack = async |tap: &str, id: &str, code: &str| {
        let event = next(tap).await;
        assert_eq!(event["event_type"], "nack", "{event}");
        assert_eq!(event["user_message_id"], id, "{event}");
        assert_eq!(event["helper_metadata"]["fate"]["code"], code, "{event}");
    };

    // Outbound on an unknown endpoint: the application hears of it.
    let mut lost = user_message("nowhere-out", "telnet", "hello");
    lost["routing_metadata"] = json!({"endpoint_name": "nowhere"});
    setting
        .amqp
        .publish("survey.outbound", lost.to_string().as_bytes())
        .await;
    nack("tap.survey", "nowhere-out", "route.none").await;

    // Null addresses: the application answers, and the transport says that nobody can have the answer.
    let mut nobody = user_message("null-in", "telnet", "from nobody");
    nobody["to_addr"] = Value::Null;
    nobody["from_addr"] = Value::Null;
    setting
        .amqp
        .publish("telnet.inbound", nobody.to_string().as_bytes())
        .await;
    let answer = reply_id("null-in", "application/echo", 0);
    nack("tap.telnet", &answer, "reply.missing_fields").await;
    nobody["message_id"] = "null-out".into();
    setting
        .amqp
        .publish("telnet.outbound", nobody.to_string().as_bytes())
        .await;
    nack("tap.telnet", "null-out", "reply.missing_fields").await;
    setting
        .amqp
        .publish("http.outbound", nobody.to_string().as_bytes())
        .await;
    nack("tap.http", "null-out", "reply.missing_fields").await;

    // A reply to a request that is long over, and one to a client that left.
    let mut late = user_message("late", "http", "too late");
    late["in_reply_to"] = "no-such-request".into();
    setting
        .amqp
        .publish("http.outbound", late.to_string().as_bytes())
        .await;
    nack("tap.http", "late", "reply.session_closed").await;
    let mut late = user_message("late-too", "telnet", "too late");
    late["in_reply_to"] = "no-such-request".into();
    late["to_addr"] = "127.0.0.1:1".into();
    setting
        .amqp
        .publish("telnet.outbound", late.to_string().as_bytes())
        .await;
    nack("tap.telnet", "late-too", "reply.no_client").await;

    // Inbound on an unknown endpoint is parked; with a row for it, requeueing delivers it.
    let mut lost = user_message("nowhere-in", "telnet", "hello");
    lost["routing_metadata"] = json!({"endpoint_name": "nowhere"});
    setting
        .amqp
        .publish("telnet.inbound", lost.to_string().as_bytes())
        .await;
    let parked = setting.parks(1).await;
    assert_eq!(
        (text(&parked[0], "origin"), text(&parked[0], "code")),
        ("telnet.inbound", "route.none")
    );
    assert_eq!(parked[0]["messageId"], "nowhere-in");
    setting.flows().await;
    let row = "telnet: {default: {connector: survey}, nowhere: {connector: survey}}";
    setting.campaign.edit(
        "dispatcher.yaml",
        "telnet: {default: {connector: survey}}",
        row,
    );
    wait_for("the requeued message is delivered", PATIENCE, || async {
        let _ = setting.parked(&["requeue", "telnet.inbound", "--all", "--yes"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let left = setting.listed(&[])?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    setting.flows().await;
}

/// A queue that exists with other arguments stops what needs it, says so clearly, hurts nothing else, and is used as
/// soon as it is gone (R1).
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_queue_is_named_and_the_others_go_on() {
    let Some(url) = vhost("bad-queue").await else {
        return;
    };
    let amqp = Amqp::connect(&url).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(5));
    amqp.declare("telnet.outbound", arguments).await;
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let run = campaign.run(&["--broker", &url]);
    let mut setting = Setting {
        campaign,
        run,
        amqp,
        url,
    };
    setting.answers_hello().await;
    let why = wait_for("vumi status names the queue", PATIENCE, || async {
        let status = setting.campaign.status()?;
        let telnet = status.worker("transport/telnet")?;
        match (telnet["state"].as_str(), telnet["ready"].as_bool()) {
            (Some("stalled"), Some(false)) => Ok(text(telnet, "why").to_owned()),
            _ => Err(telnet.to_string()),
        }
    })
    .await;
    assert!(why.contains("telnet.outbound"), "{why}");
    let log = setting.run.log();
    assert!(
        log.contains("broker.queue_type_mismatch"),
        "the log has the code"
    );

    // A telnet user may talk; the replies find no queue, and the HTTP API does not suffer from it.
    let mut user = Telnet::connect(setting.campaign.port(9010)).await.unwrap();
    user.say("is anybody there").await.unwrap();
    for _ in 0..5 {
        setting.answers_hello().await;
    }
    setting.run.assert_running();
    setting.amqp.delete("telnet.outbound").await;
    setting.flows().await;
    wait_for("every worker is ready", PATIENCE, || async {
        let status = setting.campaign.status()?;
        let workers = status.0["workers"].as_array().unwrap();
        match workers.iter().all(|worker| worker["ready"] == true) {
            true => Ok(()),
            false => Err(status.0.to_string()),
        }
    })
    .await;
}
