//! Every campaign of `examples/` runs as its README says, on the embedded broker and over RabbitMQ; and what a user may
//! expect of the process around it: exit codes, replies at shutdown, reloads, messages kept on disk.

use crate::harness::amqp::{Amqp, reply_to, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::http::{self, Client, Failed};
use crate::harness::operator::Operator;
use crate::harness::process::Process;
use crate::harness::telnet::{Telnet, greeted};
use crate::harness::{PATIENCE, vhost, wait_for};
use std::time::{Duration, Instant};

/// 128 + SIGTERM, as every command ends.
const TERMINATED: Option<i32> = Some(143);
/// Bounds of all stages of a stop, twice (transports, then the rest), with room for a busy machine.
const STOP: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(20);

/// `hello` by the HTTP API of `two-transports-one-app`.
const HELLO: &str = "/messages?content=hello&from_addr=27820000001&to_addr=12345";

/// Waits until the HTTP API answers `hello` with `hello`.
async fn answers_hello(port: u16) {
    wait_for("the HTTP API answers", PATIENCE, || async {
        match http::get(port, HELLO, ANSWER).await {
            Ok((200, body)) if body == "hello" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn telnet_echo(arguments: &[&str]) {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let mut run = campaign.run(arguments);
    let mut ann = greeted(campaign.port(9010), PATIENCE).await;
    let mut bob = Telnet::connect(campaign.port(9010)).await.unwrap();
    assert_eq!(
        bob.ask("I am Bob", ANSWER).await.as_deref(),
        Some("I am Bob")
    );
    assert_eq!(ann.ask("grüße ☎", ANSWER).await.as_deref(), Some("grüße ☎"));
    ann.say("/quit").await.unwrap();
    assert_eq!(ann.hear(ANSWER).await, None, "/quit ends the connection");
    assert_eq!(
        bob.ask("still here", ANSWER).await.as_deref(),
        Some("still here")
    );
    assert_eq!(run.stop(STOP).await, TERMINATED);
    let goodbye = bob.hear(ANSWER).await.unwrap_or_default();
    assert!(
        goodbye.contains("Goodbye"),
        "Bob hears a goodbye: {goodbye:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn telnet_echo_on_the_embedded_broker() {
    telnet_echo(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telnet_echo_over_rabbitmq() {
    let Some(url) = vhost("telnet-echo").await else {
        return;
    };
    telnet_echo(&["--broker", &url]).await;
}

/// What `vumi status` says about the divided queue of `partitioned-echo`.
fn share(campaign: &Campaign, which: &[&str]) -> Result<String, String> {
    let status = campaign.status_of(which)?;
    let queues = status.worker("application/echo")?["queues"].clone();
    let names = queues.as_array().into_iter().flatten();
    let mut names = names.filter_map(|queue| queue["queue"].as_str());
    let name = names.find(|name| name.starts_with("api.inbound.p0"));
    name.map(str::to_owned).ok_or_else(|| queues.to_string())
}

async fn reads(campaign: &Campaign, which: &[&str], count: usize) {
    let wanted = format!("api.inbound.p0–p7: {count} of 8 here");
    wait_for(&wanted, PATIENCE, || async {
        match share(campaign, which)? {
            name if name == wanted => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

async fn partitioned_echo(arguments: &[&str]) -> (Campaign, Process) {
    let campaign = Campaign::example("partitioned-echo", &[9012]);
    let run = campaign.run(&[&["--name", "first"], arguments].concat());
    answers_hello(campaign.port(9012)).await;
    reads(&campaign, &["--name", "first"], 8).await;
    (campaign, run)
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_echo_on_the_embedded_broker() {
    let (_campaign, mut run) = partitioned_echo(&[]).await;
    assert_eq!(run.stop(STOP).await, TERMINATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_echo_over_rabbitmq_with_a_second_replica() {
    let Some(url) = vhost("partitioned-echo").await else {
        return;
    };
    let (campaign, mut run) = partitioned_echo(&["--broker", &url]).await;
    let mut second = campaign.worker("second", "echo.yaml", &url);
    reads(&campaign, &["--name", "second"], 4).await;
    reads(&campaign, &["--name", "first"], 4).await;
    answers_hello(campaign.port(9012)).await;
    assert_eq!(second.stop(STOP).await, TERMINATED);
    reads(&campaign, &["--name", "first"], 8).await;
    answers_hello(campaign.port(9012)).await;
    assert_eq!(run.stop(STOP).await, TERMINATED);
}

/// What the README of `with-state` shows: state on disk that is there again after `kill -9`, and who asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn with_state_on_disk() {
    let campaign = Campaign::example("with-state", &[9010]);
    let state = campaign.path().join("state");
    let state = state.to_str().unwrap();
    for round in 0..2 {
        let mut run = campaign.run(&["--state", state, "--admin", "none"]);
        let mut user = greeted(campaign.port(9010), PATIENCE).await;
        let said = user.ask("hello", ANSWER).await;
        assert_eq!(said.as_deref(), Some("hello"), "round {round}");
        let status = campaign.status_of(&["--state", state]).unwrap();
        for worker in ["transport/telnet", "application/echo"] {
            let store = &status.worker(worker).unwrap()["store"];
            assert_eq!(store["durability"], "process", "{store}");
            assert_eq!(store["health"], "up", "{store}");
        }
        wait_for("the ledger is balanced", PATIENCE, || async {
            let audit = ["ledger", "audit", "--state", state];
            let output = crate::harness::process::run(campaign.path(), &audit);
            match output.status.code() {
                Some(0) => Ok(()),
                _ => Err(crate::harness::process::said(&output)),
            }
        })
        .await;
        run.kill();
    }
}

/// What the README of `bulk-and-otp` shows: a password overtakes a campaign, which is paused, resumed and cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn bulk_and_otp_over_rabbitmq() {
    const MANY: u64 = 1500;
    let Some(url) = vhost("bulk-and-otp").await else {
        return;
    };
    let campaign = Campaign::example("bulk-and-otp", &[]);
    let state = campaign.path().join("state");
    let state = state.to_str().unwrap();
    let operator = Operator::new(&campaign, &["--state", state]);
    let vumi = |arguments: &[&str]| operator.done(arguments);
    let counts = || {
        let listed = operator.json(&["batch", "list", "spring", "--format", "json"])?;
        let rows = listed[0]["rows"].clone();
        Ok::<_, String>(move |state: &str| rows[state].as_u64().unwrap_or(0))
    };
    let mut run = campaign.run(&["--broker", &url, "--state", state, "--admin", "none"]);
    let amqp = Amqp::connect(&url).await;
    wait_for("the intake is there", PATIENCE, || async {
        match amqp.exists("sms.outbound.bulk").await {
            true => Ok(()),
            false => Err("no queue".to_owned()),
        }
    })
    .await;
    amqp.tap("heard", "sms.event").await;
    let publish = async |id: &str, labels: serde_json::Value| {
        let mut message = user_message(id, "sms", "hello");
        message["to_addr"] = id.into();
        message["helper_metadata"] = labels;
        let body = serde_json::to_vec(&message).unwrap();
        amqp.publish("sms.outbound", &body).await;
    };
    // At once: one confirmation after the other takes as long as the sending, where the machine is busy.
    let bulk = (0..MANY).map(async |n| {
        let labels = serde_json::json!({"class": "bulk", "batch": "spring"});
        publish(&format!("{n}"), labels).await;
    });
    futures::future::join_all(bulk).await;
    vumi(&["batch", "pause", "spring"]).expect_err("without a terminal it must be confirmed");
    let said = vumi(&["batch", "pause", "spring", "--yes"]).unwrap();
    assert!(said.contains("not sent yet"), "{said}");
    wait_for("what is not sent is held", PATIENCE, || async {
        let count = counts()?;
        let (held, sent) = (count("held"), count("sentFinal") + count("sent"));
        match held > 0 && held + sent + count("delivered") + count("failed") == MANY {
            true => Ok(()),
            false => Err(format!("{held} held, {sent} sent")),
        }
    })
    .await;
    publish("otp", serde_json::json!({"class": "interactive"})).await;
    wait_for("the password is sent", PATIENCE, || async {
        while let Some(event) = amqp.take("heard").await {
            if event["user_message_id"] == "otp" {
                return Ok(());
            }
        }
        Err("not yet".to_owned())
    })
    .await;
    let held = counts().unwrap()("held");
    vumi(&["batch", "resume", "spring", "--yes"]).unwrap();
    wait_for("it goes on", PATIENCE, || async {
        match counts()?("held") {
            now if now < held => Ok(()),
            now => Err(format!("{now} of {held} are held")),
        }
    })
    .await;
    vumi(&["batch", "cancel", "spring", "--yes"]).unwrap();
    wait_for("all have ended", PATIENCE, || async {
        let count = counts()?;
        let open: u64 = ["accepted", "queued", "held", "sending"]
            .map(&count)
            .iter()
            .sum();
        match open {
            0 => Ok(()),
            open => Err(format!("{open} open, {} cancelled", count("cancelled"))),
        }
    })
    .await;
    let count = counts().unwrap();
    let ended = [
        "sent",
        "sentFinal",
        "delivered",
        "failed",
        "cancelled",
        "unknown",
    ];
    assert_eq!(ended.map(&count).iter().sum::<u64>(), MANY);
    wait_for("the ledger is balanced", PATIENCE, || async {
        vumi(&["ledger", "audit"]).map(drop)
    })
    .await;
    assert_eq!(run.stop(STOP).await, TERMINATED);
}

async fn two_transports(arguments: &[&str]) {
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let mut run = campaign.run(arguments);
    let mut user = greeted(campaign.port(9010), PATIENCE).await;
    answers_hello(campaign.port(9011)).await;
    let (status, body) = http::get(
        campaign.port(9011),
        "/messages?from_addr=1&to_addr=2",
        ANSWER,
    )
    .await
    .unwrap();
    assert_eq!(status, 400, "what the README suggests to try: {body}");
    assert!(body.contains("content"), "it names what is missing: {body}");
    assert_eq!(
        user.ask("and telnet", ANSWER).await.as_deref(),
        Some("and telnet")
    );
    assert_eq!(run.stop(STOP).await, TERMINATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_transports_one_app_on_the_embedded_broker() {
    two_transports(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_transports_one_app_over_rabbitmq() {
    let Some(url) = vhost("two-transports").await else {
        return;
    };
    two_transports(&["--broker", &url]).await;
}

/// What the README suggests: without the application an HTTP request waits, and is answered once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_an_application_that_comes_back() {
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let port = campaign.port(9011);
    let _run = campaign.run(&[]);
    answers_hello(port).await;
    let manifest = campaign.read("echo.yaml");
    campaign.remove("echo.yaml");
    let waits = || async {
        match http::get(port, HELLO, Duration::from_secs(1)).await {
            Err(Failed::Broken(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for("the application is gone", PATIENCE, waits).await;
    let held = tokio::spawn(http::get(port, HELLO, PATIENCE));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!held.is_finished());
    campaign.write("echo.yaml", &manifest);
    let (status, body) = held.await.unwrap().unwrap();
    assert_eq!((status, body.as_str()), (200, "hello"));
}

/// Edits of the listening worker itself, under requests: no connection is refused, every request has its reply.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_by_editing_a_file_refuses_no_connection() {
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let port = campaign.port(9011);
    let mut run = campaign.run(&[]);
    answers_hello(port).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let knocking: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut served = 0;
                while !stop.is_cancelled() {
                    match http::get(port, HELLO, PATIENCE).await {
                        Ok((200, body)) if body == "hello" => served += 1,
                        // The old worker says "try again" to who comes while it closes.
                        Ok((503, _)) => {}
                        other => panic!("{other:?}"),
                    }
                }
                served
            })
        })
        .collect();
    let before = campaign.read("http.yaml");
    for round in 0..3 {
        // A path that only the new worker serves shows that the edit is applied.
        let health = format!("/round-{round}");
        campaign.write("http.yaml", &format!("{before}    healthPath: {health}\n"));
        wait_for("the edit is applied", PATIENCE, || async {
            match http::get(port, &health, ANSWER).await {
                Ok((200, body)) if body.contains("pending_requests") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    stop.cancel();
    for task in knocking {
        assert!(task.await.unwrap() > 0, "requests were served meanwhile");
    }
    run.assert_running();
}

/// Requests that are held while SIGTERM arrives get their replies (R8): the test is the application, and answers late.
#[tokio::test(flavor = "multi_thread")]
async fn held_requests_get_their_reply_at_shutdown() {
    let Some(url) = vhost("held").await else {
        return;
    };
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    campaign.remove("echo.yaml");
    let port = campaign.port(9011);
    let mut run = campaign.run(&["--broker", &url]);
    wait_for("the HTTP API listens", PATIENCE, || async {
        http::get(port, "/health", ANSWER)
            .await
            .map_err(|e| format!("{e:?}"))
    })
    .await;
    let application = Amqp::connect(&url).await;
    let held: Vec<_> = (0..5)
        .map(|n| {
            let path = format!("/messages?content=late-{n}&from_addr={n}&to_addr=2");
            tokio::spawn(async move { http::get(port, &path, PATIENCE).await })
        })
        .collect();
    wait_for("the dispatcher declares its queues", PATIENCE, || async {
        let depth = application.ready("survey.inbound").await;
        if depth >= Some(5) {
            Ok(())
        } else {
            Err(format!("{depth:?} messages"))
        }
    })
    .await;
    let mut asked = Vec::new();
    while asked.len() < 5 {
        asked.push(application.next("survey.inbound", ANSWER).await);
    }
    let began = Instant::now();
    run.signal("TERM");
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.assert_running();
    for (n, message) in asked.iter().enumerate() {
        let content = message["content"].as_str().unwrap();
        let reply = reply_to(
            message,
            &format!("reply-{n}"),
            &format!("answer to {content}"),
        );
        application
            .publish("survey.outbound", reply.to_string().as_bytes())
            .await;
    }
    for (n, request) in held.into_iter().enumerate() {
        let (status, body) = request.await.unwrap().unwrap();
        assert_eq!((status, body), (200, format!("answer to late-{n}")));
    }
    let status = run.ends(STOP).await;
    assert_eq!(status.code(), TERMINATED);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it ends once the replies are out, not at the end of the bound: {:?}",
        began.elapsed()
    );
}

/// What pods run: one worker per process, joined by the broker alone.
#[tokio::test(flavor = "multi_thread")]
async fn one_worker_per_process_over_rabbitmq() {
    let Some(url) = vhost("one-per-process").await else {
        return;
    };
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let mut workers: Vec<Process> = ["telnet", "http", "dispatcher", "echo"]
        .into_iter()
        .map(|name| campaign.worker(name, &format!("{name}.yaml"), &url))
        .collect();
    let mut user = greeted(campaign.port(9010), PATIENCE).await;
    answers_hello(campaign.port(9011)).await;
    for worker in &mut workers {
        worker.assert_running();
    }
    // The application is replaced, as a rolling update would.
    let mut echo = workers.pop().unwrap();
    assert_eq!(echo.stop(STOP).await, TERMINATED);
    user.say("is anybody there").await.unwrap();
    workers.push(campaign.worker("echo-2", "echo.yaml", &url));
    assert_eq!(
        user.hear(PATIENCE).await.as_deref(),
        Some("is anybody there")
    );
    for worker in &mut workers {
        assert_eq!(worker.stop(STOP).await, TERMINATED);
    }
}

/// Messages that the embedded broker confirmed are there after `kill -9`, with `--state`.
#[tokio::test(flavor = "multi_thread")]
async fn confirmed_messages_survive_the_process() {
    const COUNT: usize = 300;
    let campaign = Campaign::example("two-transports-one-app", &[9010, 9011]);
    let port = campaign.port(9011);
    campaign.edit("http.yaml", "replyExpected: true", "idField: id");
    let application = campaign.read("echo.yaml");
    campaign.remove("echo.yaml");
    let state = campaign.path().join("state");
    let arguments = ["--state", state.to_str().unwrap()];
    let mut run = campaign.run(&arguments);
    wait_for("the HTTP API listens", PATIENCE, || async {
        http::get(port, "/health", ANSWER)
            .await
            .map_err(|e| format!("{e:?}"))
    })
    .await;
    let mut client = Client::new(port);
    for n in 0..COUNT {
        let path = format!("/messages?content=n{n}&from_addr=1&to_addr=2&id={n}");
        let (status, body) = client.get(&path, ANSWER).await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    let said = format!("vumi status {}", arguments.join(" "));
    assert!(run.log().contains(&said), "what to try works as printed");
    run.kill();
    campaign.write("echo.yaml", &application);
    let mut run = campaign.run(&arguments);
    let done = wait_for(
        "the application handles what was kept",
        PATIENCE,
        || async {
            let status = campaign.status_of(&arguments)?;
            let done = status.worker("application/echo")?["done"]
                .as_u64()
                .unwrap_or(0) as usize;
            if done >= COUNT {
                Ok(done)
            } else {
                Err(format!("{done} handled"))
            }
        },
    )
    .await;
    assert!(done >= COUNT);
    greeted(campaign.port(9010), PATIENCE).await;
    assert_eq!(run.stop(STOP).await, TERMINATED);
}
