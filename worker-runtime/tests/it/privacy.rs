//! Nothing shows a person: an address and a text with unmistakable words go through a whole campaign, and then every log,
//! page and command is searched for them; after `vumi erase`, every store too.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::operator::{self, Operator};
use crate::harness::process::Process;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use vumi_core::state::Person;
use vumi_testkit::redis::{Append, Options, Redis};

const ADDRESS: &str = "+27825550199";
const DIGITS: &str = "27825550199";
/// The same without the code of its country.
const NATIONAL: &str = "825550199";
const OTHER: &str = "27820000001";
/// Part of everything that the person says and hears.
const TEXT: &str = "zanzibar-marzipan";
/// Seconds since 1970: long after every test.
const SCHEDULED: u64 = 4_000_000_000;

/// Names of queues of the campaign.
const CONNECTORS: [&str; 6] = ["intake", "app", "sms", "lossy", "memos", "sums"];
/// Names of its workers.
const WORKERS: [&str; 7] = ["intake", "join", "echo", "sms", "lossy", "memos", "sums"];

/// Everything that a message can leave behind: an HTTP API with callers' ids, a dispatcher, an application, two that keep
/// what people say, and two networks, one of which loses its answers; and middleware that logs.
fn campaign() -> (Campaign, u16) {
    let campaign = Campaign::empty();
    let port = vumi_testkit::free_port().unwrap();
    let log = "middleware: [{name: log, logging: {level: info}}]";
    for (file, kind, spec) in [
        (
            "intake",
            "Transport",
            format!(
                "httpApi: {{replyExpected: true, idField: id}}, http: {{host: 127.0.0.1, port: {port}}}, {log}"
            ),
        ),
        (
            "join",
            "Dispatcher",
            format!("simple: {{transports: [intake], exposed: [app]}}, {log}"),
        ),
        (
            "echo",
            "Application",
            format!("echo: {{}}, transportName: app, {log}"),
        ),
        (
            "memos",
            "Application",
            format!("memoBot: {{}}, transportName: memos, {log}"),
        ),
        (
            "sums",
            "Application",
            format!("calculator: {{}}, transportName: sums, {log}"),
        ),
        (
            "sms",
            "Transport",
            format!("devNull: {{capacity: 1}}, holdLimit: 1ms, {log}"),
        ),
        (
            "lossy",
            "Transport",
            "devNull: {lostPercent: 100, ackPercent: 0}, onUnknown: {policy: wait, deadline: 48h, then: fail}".into(),
        ),
    ] {
        let text = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {file}}}\nspec: {{{spec}}}\n"
        );
        campaign.write(&format!("{file}.yaml"), &text);
    }
    (campaign, port)
}

/// A message for the person.
fn outbound(id: &str, transport: &str) -> Value {
    let mut message = user_message(id, transport, &format!("{TEXT} {id}"));
    message["to_addr"] = ADDRESS.into();
    message["from_addr"] = "12345".into();
    message
}

/// What must not be shown anywhere.
const HIDDEN: [&str; 3] = [TEXT, DIGITS, NATIONAL];

fn assert_hidden(place: &str, text: &str) {
    operator::assert_hidden(place, text, &HIDDEN);
}

/// Sends the person through the campaign and waits until every trace is there; the answer of the intake.
async fn plant(campaign: &Campaign, port: u16, broker: &str, operator: &Operator<'_>) {
    let asked = format!("/?content={TEXT}&from_addr=%2B{DIGITS}&to_addr=12345&id=caller-1");
    wait_for("the campaign answers", PATIENCE, || async {
        match http::get(port, &asked, PATIENCE).await {
            Ok((200, answer)) if answer == TEXT => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let again = http::get(port, &asked, PATIENCE).await.unwrap();
    assert_eq!(again, (200, TEXT.to_owned()), "the remembered answer");
    let other = format!("/?content=hello&from_addr={OTHER}&to_addr=12345&id=caller-2");
    assert_eq!(http::get(port, &other, PATIENCE).await.unwrap().0, 200);

    let amqp = Amqp::connect(broker).await;
    let publish = async |queue: &str, message: &Value| {
        amqp.publish(queue, message.to_string().as_bytes()).await;
    };
    // The events of both networks have a reader.
    for transport in ["sms", "lossy"] {
        let event = format!("{transport}.event");
        amqp.copy(&event, &event).await;
    }
    let mut later = outbound("later", "sms");
    later["helper_metadata"] = json!({"schedule": {"at": SCHEDULED}});
    publish("sms.outbound", &later).await;
    for n in 0..4 {
        publish("sms.outbound", &outbound(&format!("sent-{n}"), "sms")).await;
    }
    let mut wrong = outbound("wrong", "sms");
    wrong["helper_metadata"] = json!({"schedule": {"at": TEXT}});
    publish("sms.outbound", &wrong).await;
    // Nobody holds a request for its answer.
    let mut unasked = user_message("unasked", "intake", TEXT);
    unasked["from_addr"] = ADDRESS.into();
    publish("app.inbound", &unasked).await;
    let mut lost = outbound("lost", "lossy");
    lost["helper_metadata"] = json!({"batch": "spring"});
    publish("lossy.outbound", &lost).await;
    // A memo for the person, and the middle of the person's own conversation.
    let mut memo = user_message("memo", "memos", &format!("bot tell {ADDRESS} {TEXT}"));
    memo["from_addr"] = OTHER.into();
    publish("memos.inbound", &memo).await;
    let mut begun = user_message("begun", "sums", "");
    begun["from_addr"] = ADDRESS.into();
    begun["session_event"] = "new".into();
    publish("sums.inbound", &begun).await;
    for (queue, id) in [("memos.outbound", "memo"), ("sums.outbound", "begun")] {
        let answer = amqp.next(queue, PATIENCE).await;
        assert_eq!(answer["in_reply_to"], id, "{answer}");
    }
    let broken = format!("{{\"from_addr\": \"{ADDRESS}\", \"content\": \"{TEXT}");
    amqp.publish("app.inbound", broken.as_bytes()).await;

    wait_for("everything is where it ends", PATIENCE, || async {
        let status = campaign.status_of(&operator.place())?;
        let parked = operator.json(&["parked", "list", "--format", "json"])?;
        let waits = operator.json(&["journal", "list", "--format", "json"])?;
        let (_, counts) = operator.run(&["ledger", "counts"]);
        let sent = amqp.ready("sms.event").await.unwrap_or_default();
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        let waiting = waits.as_array().map(|all| {
            let ids: Vec<_> = all.iter().map(|one| &one["messageId"]).collect();
            ids == ["later"]
        });
        match count(&parked) == 2
            && waiting == Some(true)
            && sent == 8
            && counts.contains("unknown")
        {
            true => Ok(()),
            false => Err(format!(
                "{parked}\n{waits}\n{counts}\n{sent} events\n{}",
                status.0
            )),
        }
    })
    .await;
}

/// Every command and page that tells of messages.
async fn look_everywhere(operator: &Operator<'_>, admin: u16) {
    for arguments in [
        &["status"][..],
        &["status", "--format", "json"],
        &["why", ADDRESS],
        &["why", ADDRESS, "--json"],
        &["why", "--since", "1h"],
        &["why", "--since", "1h", "--json"],
        &["why", "lost"],
        &["why", "later"],
        &["why", "wrong"],
        &["ledger", "counts"],
        &["ledger", "overdue"],
        &["ledger", "audit"],
        &["ledger", "resend", "lost", "--dry-run"],
        &["ledger", "resend", "lost", "--dry-run", "--format", "json"],
        &["batch", "list"],
        &["batch", "list", "--format", "json"],
        &["journal", "list"],
        &["journal", "list", "--format", "json"],
        &["journal", "list", "sms.outbound", "--address", ADDRESS],
        &["parked", "list"],
        &["parked", "list", "--format", "json"],
        &["erase", "--person", ADDRESS, "--dry-run"],
        &[
            "erase",
            "--person",
            ADDRESS,
            "--dry-run",
            "--format",
            "json",
        ],
    ] {
        let (code, text) = operator.run(arguments);
        assert!(
            code < 2 && !text.trim().is_empty(),
            "{arguments:?}: {code}: {text}"
        );
    }
    for format in ["table", "json"] {
        let (code, text) =
            operator.run(&["top", "--once", "--interval", "100ms", "--format", format]);
        assert!(code == 0 && text.contains("lossy"), "{text}");
    }
    for page in ["/metrics", "/readyz", "/healthz"] {
        let (_, text) = http::get(admin, page, PATIENCE).await.unwrap();
        assert_hidden(page, &text);
    }
}

/// Erases the person, whose every trace was found.
fn erase(operator: &Operator<'_>) {
    // What cannot be read as a message is nobody's: it is dropped by its reason.
    let (code, text) = operator.run(&[
        "parked",
        "drop",
        "app.inbound",
        "--code",
        "message.not_json",
        "--yes",
    ]);
    assert!(code < 2, "{text}");
    let report = operator.json(&["erase", "--person", ADDRESS, "--yes", "--format", "json"]);
    let report = report.unwrap();
    for what in ["sessions", "ledger", "journal", "firstSeen", "parked"] {
        let removed = report["removed"].as_array().unwrap();
        let count: u64 = removed
            .iter()
            .filter(|one| one["what"] == what)
            .map(|one| one["count"].as_u64().unwrap())
            .sum();
        assert!(count > 0, "nothing of {what} was erased: {report}");
    }
    let (code, text) = operator.run(&["why", ADDRESS]);
    assert_eq!(code, 2, "{text}");
}

/// No queue that keeps messages set aside, or that nobody reads, holds the person.
async fn assert_queues_clean(broker: &str) {
    let amqp = Amqp::connect(broker).await;
    for queue in [
        "app.inbound.parked",
        "sms.outbound.parked",
        "lossy.outbound.parked",
    ] {
        if amqp.ready(queue).await.is_none() {
            continue;
        }
        while let Some(message) = amqp.take(queue).await {
            assert_hidden(queue, &message.to_string());
        }
    }
}

/// Every key and value of a Redis.
async fn everything(redis: &Redis) -> String {
    let mut all = String::new();
    for key in redis.cli(&["keys", "*"]).await.unwrap().lines() {
        let read: &[&str] = match redis.cli(&["type", key]).await.unwrap().as_str() {
            "string" => &["get", key],
            "list" => &["lrange", key, "0", "-1"],
            "hash" => &["hgetall", key],
            "set" => &["smembers", key],
            "zset" => &["zrange", key, "0", "-1", "withscores"],
            "none" => continue,
            other => panic!("{key} is a {other}"),
        };
        let value = redis.cli(read).await.unwrap();
        all.push_str(&format!("{key}\n{value}\n"));
    }
    all
}

/// Files of a folder, at any depth, that hold `word`.
fn files_with(folder: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, word));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(word.len())
                .any(|part| part == word.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Waits until no file of a folder holds `word`: old ones are removed in the background.
async fn forgotten(folder: &Path, word: &str) {
    wait_for("old files are gone", PATIENCE, || async {
        match files_with(folder, word) {
            none if none.is_empty() => Ok(()),
            some => Err(format!("{word} is in {some:?}")),
        }
    })
    .await;
}

/// Whoever listens to a campaign: taps, and a monitor of what workers say of themselves.
struct Listeners {
    taps: Vec<Process>,
    amqp: Amqp,
}

impl Listeners {
    /// From before the campaign begins.
    async fn monitor(broker: &str) -> Self {
        let amqp = Amqp::connect(broker).await;
        for name in WORKERS {
            let key = format!("{name}.status.status");
            amqp.tap(&key, &key).await;
        }
        amqp.tap_of("vumi.health", "heartbeats", "heartbeat.inbound")
            .await;
        Self {
            taps: Vec::new(),
            amqp,
        }
    }

    /// Once its queues are there.
    async fn tap(&mut self, campaign: &Campaign, broker: &str) {
        for format in ["table", "json"] {
            let mut arguments = vec!["tap"];
            arguments.extend(CONNECTORS);
            arguments.extend(["--broker", broker, "--format", format]);
            let name = format!("tap-{format}");
            let tap = Process::start(campaign.path(), &name, &arguments);
            wait_for("the tap follows", PATIENCE, || async {
                let log = tap.log();
                match log.contains("following") {
                    true => Ok(()),
                    false => Err(log),
                }
            })
            .await;
            self.taps.push(tap);
        }
    }

    /// What they heard says nothing of the person.
    async fn heard_nothing_private(&mut self) {
        for tap in &mut self.taps {
            let log = tap.log();
            // Both ways of the intake, four messages that are sent and more.
            assert!(log.lines().count() > 10, "{log}");
            assert_hidden("vumi tap", &log);
            tap.kill();
        }
        for name in WORKERS {
            let queue = format!("{name}.status.status");
            self.clean(&queue).await;
        }
        self.clean("heartbeats").await;
    }

    async fn clean(&self, queue: &str) {
        let mut next = Some(self.amqp.next(queue, PATIENCE).await);
        while let Some(message) = next {
            assert_hidden(queue, &message.to_string());
            next = self.amqp.take(queue).await;
        }
    }
}

fn log_is_clean(process: &Process) {
    let log = process.log();
    assert!(log.contains("DEBUG"), "the log has no details: {log}");
    assert_hidden("the log", &log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_in_no_sink_and_after_an_erasure_in_no_store() {
    let Some(broker) = vhost("privacy").await else {
        return;
    };
    let Some(redis) = Redis::start_or_skip(Options {
        append: Append::EverySec,
        ..Options::default()
    })
    .await
    else {
        return;
    };
    let (campaign, port) = campaign();
    let admin = vumi_testkit::free_port().unwrap();
    let mut listeners = Listeners::monitor(&broker).await;
    let url = redis.url(0);
    let mut process = campaign.run(&[
        "--broker",
        &broker,
        "--redis",
        &url,
        "--admin",
        &admin.to_string(),
        "--log-level",
        "debug",
    ]);
    let operator = Operator::new(&campaign, &[]).hiding(&HIDDEN);
    wait_for("all workers are ready", PATIENCE, || async {
        let status = campaign.status()?.0;
        let workers = status["workers"].as_array().cloned().unwrap_or_default();
        let ready = workers.iter().filter(|worker| worker["ready"] == true);
        match ready.count() {
            ready if ready == WORKERS.len() => Ok(()),
            _ => Err(status.to_string()),
        }
    })
    .await;
    listeners.tap(&campaign, &broker).await;
    plant(&campaign, port, &broker, &operator).await;
    let before = everything(&redis).await;
    let key = Person::new(ADDRESS).key();
    for word in [TEXT, DIGITS, &key] {
        assert!(
            before.contains(word),
            "the store never held {word}: {before}"
        );
    }
    look_everywhere(&operator, admin).await;
    listeners.heard_nothing_private().await;
    log_is_clean(&process);

    erase(&operator);
    let after = everything(&redis).await;
    assert_hidden("Redis", &after);
    let trace = after.lines().find(|line| line.contains(&key));
    assert_eq!(trace, None, "the person's key is left");
    let others = Person::new(OTHER).key();
    assert!(after.contains(&others), "somebody else was erased");
    assert_queues_clean(&broker).await;
    operator.run(&["status"]);
    log_is_clean(&process);
    assert_eq!(process.stop(PATIENCE).await, Some(143));
    log_is_clean(&process);

    // An append-only file is a log: it forgets when it is rewritten.
    redis.cli(&["bgrewriteaof"]).await.unwrap();
    wait_for("the file is rewritten", PATIENCE, || async {
        let info = redis.cli(&["info", "persistence"]).await.unwrap();
        match info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
        {
            true => Ok(()),
            false => Err(info),
        }
    })
    .await;
    let folder = redis.cli(&["config", "get", "dir"]).await.unwrap();
    let folder = Path::new(folder.lines().last().unwrap());
    for word in [TEXT, DIGITS, &key] {
        forgotten(folder, word).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_forgets_a_person_after_an_erasure() {
    let Some(broker) = vhost("privacy-folder").await else {
        return;
    };
    let (campaign, port) = campaign();
    let admin = vumi_testkit::free_port().unwrap();
    let state = campaign.path().join("state");
    let folder = state.to_str().unwrap().to_owned();
    let mut process = campaign.run(&[
        "--broker",
        &broker,
        "--state",
        &folder,
        "--admin",
        &admin.to_string(),
        "--log-level",
        "debug",
    ]);
    let operator = Operator::new(&campaign, &["--state", &folder]).hiding(&HIDDEN);
    plant(&campaign, port, &broker, &operator).await;
    let key = Person::new(ADDRESS).key();
    for word in [TEXT, DIGITS, &key] {
        assert_ne!(files_with(&state, word), Vec::<String>::new(), "{word}");
    }
    look_everywhere(&operator, admin).await;
    erase(&operator);
    assert_queues_clean(&broker).await;
    for word in [TEXT, DIGITS, &key] {
        forgotten(&state, word).await;
    }
    log_is_clean(&process);
    assert_eq!(process.stop(PATIENCE).await, Some(143));
    for word in [TEXT, DIGITS, &key] {
        forgotten(&state, word).await;
    }
}
