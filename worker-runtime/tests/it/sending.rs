//! The sending side as an operator and a provider meet it, on RabbitMQ and Redis: receipts that name the provider's id
//! alone, messages that a person has sent again, and a provider that repeats itself to another replica, while its request is
//! held, or after a restart.

use crate::harness::amqp::{Amqp, reply_to, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::operator::Operator;
use crate::harness::process::Process;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use std::time::Duration;
use vumi_testkit::redis::{Append, Options, Redis};

const MESSAGES: usize = 5;

async fn redis() -> Option<Redis> {
    let options = Options {
        append: Append::EverySec,
        ..Options::default()
    };
    Redis::start_or_skip(options).await
}

/// Waits until the ledger has all messages in this state.
async fn all(operator: &Operator<'_>, state: &str) {
    wait_for(state, PATIENCE, || async {
        let counts = operator.json(&["ledger", "counts", "--format", "json"])?;
        let there = counts.as_array().is_some_and(|rows| {
            rows.len() == 1 && rows[0]["state"] == state && rows[0]["count"] == MESSAGES
        });
        if there {
            Ok(())
        } else {
            Err(counts.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_sent_again_by_a_person_and_ends_by_receipts_that_name_the_providers_id() {
    let (Some(url), Some(redis)) = (vhost("sending-again").await, redis().await) else {
        return;
    };
    let campaign = Campaign::empty();
    let store = redis.url(0);
    let operator = Operator::new(&campaign, &["--redis", &store]);
    let with_broker = operator.and(&["--broker", &url]);
    let start = |accepted: u32| -> Process {
        let manifest = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: net}}\n\
             spec:\n  devNull: {{ackPercent: {accepted}, receiptAfter: 200ms}}\n"
        );
        campaign.place("net", &manifest);
        let more = ["--redis", &store];
        campaign.alone(["worker", "--manifests"], "net", &url, &more)
    };
    let mut refusing = start(0);
    let amqp = Amqp::connect(&url).await;
    campaign
        .until_ready(&["--name", "net"], "transport/net")
        .await;
    amqp.tap("told", "net.event").await;
    for n in 0..MESSAGES {
        let message = user_message(&format!("m{n}"), "net", "my secret");
        amqp.publish("net.outbound", message.to_string().as_bytes())
            .await;
    }
    all(&operator, "failed").await;
    assert_eq!(refusing.stop(PATIENCE).await, Some(143));
    let mut accepting = start(100);

    let resend = ["ledger", "resend", "--transport", "net"];
    let (code, listed) = operator.run(&[&resend[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{listed}");
    assert!(listed.contains("5 can be sent again"), "{listed}");
    assert!(
        !listed.contains("secret") && !listed.contains("12345"),
        "{listed}"
    );
    let (code, text) = with_broker.run(&resend);
    assert_eq!(code, 2, "not without --yes: {text}");
    assert!(text.contains("Send 5 messages again?"), "{text}");
    let (code, text) = operator.run(&[&resend[..], &["--yes"]].concat());
    assert_eq!(code, 1, "not without a broker: {text}");
    assert!(text.contains("--broker URL"), "{text}");
    let (code, text) = with_broker.run(&[&resend[..], &["--yes"]].concat());
    assert_eq!((code, text.as_str()), (0, "5 sent again\n"));
    all(&operator, "delivered").await;
    let (code, text) = with_broker.run(&resend);
    assert_eq!(code, 2, "nothing is left: {text}");
    let (code, text) = with_broker.run(&["ledger", "resend", "m1"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("1 not: it is delivered"), "{text}");
    let (_, why) = operator.run(&["why", "m1"]);
    for part in ["a person had it sent again", "m1: delivered"] {
        assert!(why.contains(part), "{why}");
    }
    // One nack each, ever; the second end comes as reports.
    let mut events = Vec::new();
    for _ in 0..3 * MESSAGES {
        events.push(amqp.next("told", PATIENCE).await);
    }
    let count = |key: &str, value: &str| events.iter().filter(|e| e[key] == value).count();
    assert_eq!(count("event_type", "nack"), MESSAGES);
    assert_eq!(count("event_type", "ack"), 0);
    assert_eq!(count("delivery_status", "pending"), MESSAGES);
    assert_eq!(count("delivery_status", "delivered"), MESSAGES);
    assert_eq!(accepting.stop(PATIENCE).await, Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_repeated_to_another_replica_or_after_a_restart_gets_the_first_answer() {
    let (Some(url), Some(redis)) = (vhost("sending-repeats").await, redis().await) else {
        return;
    };
    let campaign = Campaign::empty();
    let store = redis.url(0);
    let start = |name: &str, port: u16| {
        let manifest = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: api}}\nspec:\n  \
             httpApi: {{replyExpected: true, idField: id}}\n  dedupe: {{window: 1h}}\n  \
             http: {{host: 127.0.0.1, port: {port}, requestTimeout: 50s}}\n"
        );
        campaign.place(name, &manifest);
        campaign.alone(["worker", "--manifests"], name, &url, &["--redis", &store])
    };
    let port = || vumi_testkit::free_port().unwrap();
    let (one, two) = (port(), port());
    let replicas = [start("one", one), start("two", two)];
    let echo = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\n\
                spec:\n  echo: {}\n  transportName: api\n";
    let _echo = campaign.worker_with("echo", echo, &url);
    for port in [one, two] {
        wait_for("the HTTP API listens", PATIENCE, || async {
            let health = http::get(port, "/health", PATIENCE).await;
            health.map_err(|error| format!("{error:?}"))
        })
        .await;
    }
    let amqp = Amqp::connect(&url).await;
    amqp.tap("taken", "api.inbound").await;
    let ask = async |port: u16, content: &str| {
        let path = format!("/?content={content}&from_addr=1&to_addr=2&id=7");
        http::get(port, &path, PATIENCE).await.unwrap()
    };
    let first = (200, "first".to_owned());
    assert_eq!(ask(one, "first").await, first);
    assert_eq!(ask(two, "second").await, first, "at the other replica");
    assert_eq!(ask(one, "third").await, first);
    for mut replica in replicas {
        replica.kill();
    }
    let three = port();
    let _again = start("three", three);
    wait_for("the new replica listens", PATIENCE, || async {
        let health = http::get(three, "/health", PATIENCE).await;
        health.map_err(|error| format!("{error:?}"))
    })
    .await;
    assert_eq!(ask(three, "fourth").await, first, "after a restart");
    let taken = amqp.next("taken", PATIENCE).await;
    assert_eq!(taken["content"], "first");
    assert!(amqp.take("taken").await.is_none(), "taken over once");
}

/// While a repeat waits at one replica for the reply to a request that another one holds, what was seen of it is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_that_waits_at_another_replica_publishes_nothing() {
    let (Some(url), Some(redis)) = (vhost("sending-waits").await, redis().await) else {
        return;
    };
    let campaign = Campaign::empty();
    let store = redis.url(0);
    let port = || vumi_testkit::free_port().unwrap();
    let start = |name: &str, port: u16, admin: u16| {
        let manifest = format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: api}}\nspec:\n  \
             httpApi: {{replyExpected: true, idField: id}}\n  \
             http: {{host: 127.0.0.1, port: {port}, requestTimeout: 50s}}\n"
        );
        campaign.place(name, &manifest);
        let (folder, admin) = (campaign.path().join(name), admin.to_string());
        let arguments = [
            "worker",
            "--manifests",
            folder.to_str().unwrap(),
            "--name",
            name,
            "--broker",
            &url,
            "--redis",
            &store,
            "--admin",
            &admin,
        ];
        Process::start(campaign.path(), name, &arguments)
    };
    let (one, other, two, admin) = (port(), port(), port(), port());
    let _replicas = [start("one", one, other), start("two", two, admin)];
    for port in [other, admin] {
        wait_for("the HTTP API is ready", PATIENCE, || async {
            match http::get(port, "/readyz", PATIENCE).await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let amqp = Amqp::connect(&url).await;
    amqp.tap("taken", "api.inbound").await;
    let ask = |port: u16| {
        tokio::spawn(async move {
            let path = "/?content=ping&from_addr=1&to_addr=2&id=7";
            http::get(port, path, PATIENCE).await
        })
    };
    let first = ask(one);
    let taken = amqp.next("taken", PATIENCE).await;
    let again = ask(two);
    let repeats = async || {
        let (_, page) = http::get(admin, "/metrics", PATIENCE).await.unwrap();
        let mut lines = page.lines();
        let line = lines.find(|line| line.starts_with("vumi_duplicates_suppressed_total{"));
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned))
    };
    wait_for("the repeat is recognised", PATIENCE, || async {
        match repeats().await {
            Some(count) if count == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let known = async || redis.cli(&["KEYS", "*F:i:api:*"]).await.unwrap();
    let key = known().await;
    assert_eq!(redis.cli(&["DEL", &key]).await.unwrap(), "1", "{key}");
    // It looks once a second.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(amqp.take("taken").await.is_none(), "a second message");
    assert_eq!(known().await, "", "taken over again");
    assert_eq!(repeats().await.as_deref(), Some("1"), "counted once");
    assert!(!first.is_finished() && !again.is_finished());
    let reply = reply_to(&taken, "r1", "pong");
    amqp.publish("api.outbound", reply.to_string().as_bytes())
        .await;
    // Either replica may read the reply: the repeat gets it in both cases.
    assert_eq!(again.await.unwrap().unwrap(), (200, "pong".to_owned()));
    assert!(amqp.take("taken").await.is_none(), "a second message");
}
