//! The tools around a campaign, on a running process and on RabbitMQ: `inject`, `tap`, `top`, `doctor`.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, command, run, said};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use vumi_testkit::redis::{Options, Redis};

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec: {echo: {}, transportName: t}\n";

/// Runs a command with something on its standard input.
fn fed(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = command(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// `vumi run` with an echo on connector `t` and a port to know when it is up.
async fn echo(more: &[&str]) -> (Campaign, Process) {
    let campaign = Campaign::empty();
    campaign.write("echo.yaml", ECHO);
    let run = campaign.run(&[&["--name", "echo"], more].concat());
    wait_for("the echo runs", PATIENCE, || async {
        match campaign.status()?.worker("application/echo")?["ready"] == true {
            true => Ok(()),
            false => Err("not ready".into()),
        }
    })
    .await;
    (campaign, run)
}

/// A `vumi tap` in the background.
fn tap(campaign: &Campaign, arguments: &[&str]) -> Process {
    let mut all = vec!["tap"];
    all.extend(arguments);
    let tap = Process::start(campaign.path(), "tap", &all);
    // It ends by itself once it has seen enough.
    tap.expect_end();
    tap
}

/// What a tap says beside the messages, for whoever waits for it.
const FOLLOWING: &str = "following; Ctrl-C ends it";

/// Messages injected through a running process are answered on its embedded broker, and a tap sees both ways without
/// taking anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_injected_into_a_process_is_answered_and_seen_by_a_tap() {
    let (campaign, _run) = echo(&[]).await;
    let mut seen = tap(
        &campaign,
        &[
            "t",
            "--kind",
            "inbound",
            "--kind",
            "outbound",
            "--format",
            "json",
            "--show",
            "--address",
            "27820000001",
            "--count",
            "4",
        ],
    );
    // Until the tap follows, what is injected may pass it by.
    let rows = "from,to,content\n27820000001,12345,one\n27820000002,12345,not seen\n27820000001,12345,two\n";
    wait_for("the tap follows", PATIENCE, || async {
        let ended = fed(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "t",
                "--as",
                "csv",
                "--format",
                "json",
                "-",
            ],
            rows,
        );
        assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
        assert_eq!(json_of(&ended)["confirmed"], 3);
        match seen.log().is_empty() {
            true => Err("nothing seen".to_owned()),
            false => Ok(()),
        }
    })
    .await;
    assert_eq!(seen.ends(PATIENCE).await.code(), Some(0));
    let lines: Vec<Value> = seen
        .log()
        .lines()
        .filter(|line| *line != FOLLOWING)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for line in &lines {
        let whole = &line["message"];
        assert!(
            ["one", "two"].contains(&whole["content"].as_str().unwrap()),
            "{line}"
        );
        let person = if line["kind"] == "inbound" {
            "from"
        } else {
            "to"
        };
        assert_eq!(line[person], "27820000001", "{line}");
    }
    wait_for("all that was injected is done", PATIENCE, || async {
        let status = campaign.status()?;
        let worker = status.worker("application/echo")?;
        let (received, done) = (worker["received"].as_u64(), worker["done"].as_u64());
        // The tap took nothing: three of each injection.
        match done == received && done.is_some_and(|done| done % 3 == 0) {
            true => Ok(()),
            false => Err(worker.to_string()),
        }
    })
    .await;
    // A tap of a connector that is not there says which are.
    let wrong = run(campaign.path(), &["tap", "telnet"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("there are: t"), "{}", said(&wrong));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_shows_nothing_personal_unless_asked() {
    let (campaign, _run) = echo(&[]).await;
    let mut seen = tap(&campaign, &["--count", "2"]);
    wait_for("the tap has seen enough", PATIENCE, || {
        let ended = run(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "t",
                "--from",
                "27820000001",
                "--to",
                "12345",
                "--content",
                "my secret",
            ],
        );
        assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
        let seen = seen.poll();
        async move { seen.ok_or_else(|| "not yet".to_owned()) }
    })
    .await;
    assert_eq!(seen.ends(PATIENCE).await.code(), Some(0));
    let log = seen.log();
    assert!(
        !log.contains("secret") && !log.contains("27820000001"),
        "{log}"
    );
    assert!(
        log.contains("(9 characters)") && log.contains("~001"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_said_and_nothing_is_sent() {
    let (campaign, _run) = echo(&[]).await;
    let inject = |arguments: &[&str], input: &str| {
        let mut all = vec!["inject", "--connector", "t"];
        all.extend(arguments);
        fed(campaign.path(), &all, input)
    };
    let file = campaign.path().join("rows.csv");
    std::fs::write(
        &file,
        "from,to,content,session_event\n1,2,fine,\n1,2,bad,maybe\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let ended = inject(&[file], "");
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(
        said(&ended).contains("rows.csv:3: field session_event"),
        "{}",
        said(&ended)
    );
    assert!(
        said(&ended).contains("nothing was sent"),
        "{}",
        said(&ended)
    );
    let ended = inject(&[file, "--skip-invalid", "--dry-run"], "");
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(
        said(&ended).contains("1 messages would be sent to t.inbound"),
        "{}",
        said(&ended)
    );
    let ended = inject(&["--kind", "event", "--content", "x"], "");
    assert_eq!(ended.status.code(), Some(2), "{}", said(&ended));
    assert!(said(&ended).contains("user_message_id"), "{}", said(&ended));
    let status = campaign.status().unwrap();
    assert_eq!(status.worker("application/echo").unwrap()["received"], 0);
    let ended = inject(&[file, "--skip-invalid", "--format", "json"], "");
    assert_eq!(json_of(&ended)["invalid"], 1, "{}", said(&ended));
    assert_eq!(json_of(&ended)["confirmed"], 1);
    let nowhere = run(
        campaign.path(),
        &[
            "inject",
            "--connector",
            "x",
            "--from",
            "1",
            "--content",
            "x",
        ],
    );
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));
    assert!(
        said(&nowhere).contains("no worker here reads x.inbound; read are: t.event, t.inbound"),
        "{}",
        said(&nowhere)
    );
}

/// What is read as it comes is sent as it comes, and an interrupt is heard while nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_sent_as_it_comes_and_interrupted_while_it_is_silent() {
    let (campaign, _run) = echo(&[]).await;
    let mut injecting = command(campaign.path())
        .args([
            "inject",
            "--connector",
            "t",
            "--from",
            "1",
            "--to",
            "2",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = injecting.stdin.take().unwrap();
    for (count, line) in ["one", "two"].into_iter().enumerate() {
        writeln!(input, "{line}").unwrap();
        wait_for("it is handled", PATIENCE, || async {
            let status = campaign.status()?;
            let worker = status.worker("application/echo")?;
            match worker["done"] == count + 1 {
                true => Ok(()),
                false => Err(worker.to_string()),
            }
        })
        .await;
    }
    let id = injecting.id().to_string();
    let told = Command::new("kill").args(["-INT", &id]).status();
    assert!(told.unwrap().success());
    let ended = wait_for("it ends", PATIENCE, || {
        let ended = injecting.try_wait().unwrap();
        async move { ended.ok_or_else(|| "it runs".to_owned()) }
    })
    .await;
    assert_eq!(ended.code(), Some(130));
    drop(input);
}

/// Interrupted in the middle and started again, everything has come, and what came twice has the same id.
#[tokio::test(flavor = "multi_thread")]
async fn injecting_into_rabbitmq_goes_on_where_it_was_interrupted() {
    let Some(url) = vhost("inject").await else {
        return;
    };
    let campaign = Campaign::empty();
    let amqp = Amqp::connect(&url).await;
    let numbers: String = (0..400).map(|n| format!("{n}\n")).collect();
    std::fs::write(campaign.path().join("numbers.txt"), numbers).unwrap();
    let arguments = [
        "inject",
        "--connector",
        "sms",
        "--kind",
        "outbound",
        "--to",
        "2782{i}",
        "--class",
        "bulk",
        "--batch",
        "spring",
        "numbers.txt",
        "--resume",
        "progress",
        "--broker",
        &url,
    ];
    let refused = run(campaign.path(), &arguments);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("there is no queue sms.outbound"),
        "{}",
        said(&refused)
    );
    let mut slowly = arguments.to_vec();
    slowly.extend(["--create", "--rate", "50"]);
    let mut first = Process::start(campaign.path(), "inject", &slowly);
    wait_for("some are there", PATIENCE, || async {
        match amqp.ready("sms.outbound").await {
            Some(ready) if ready > 20 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    first.signal("INT");
    assert_eq!(
        first.ends(PATIENCE).await.code(),
        Some(130),
        "{}",
        first.log()
    );
    assert!(
        first
            .log()
            .contains("the same command goes on after message"),
        "{}",
        first.log()
    );
    let again = run(
        campaign.path(),
        &[&arguments[..], &["--format", "json"]].concat(),
    );
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
    let counts = json_of(&again);
    let (before, now) = (
        counts["before"].as_u64().unwrap(),
        counts["confirmed"].as_u64().unwrap(),
    );
    assert!(before > 0 && before + now == 400, "{counts}");
    let mut contents = std::collections::BTreeMap::new();
    while let Some(message) = amqp.take("sms.outbound").await {
        let labels = json!({"class": "bulk", "batch": "spring"});
        assert_eq!(message["helper_metadata"], labels);
        let number: usize = message["content"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["to_addr"], format!("2782{}", number + 1));
        let id = message["message_id"].clone();
        assert_eq!(contents.entry(number).or_insert_with(|| id.clone()), &id);
    }
    assert_eq!(contents.len(), 400);
    let nothing = run(
        campaign.path(),
        &[&arguments[..], &["--format", "json"]].concat(),
    );
    assert_eq!(json_of(&nothing)["confirmed"], 0);
    let other = run(
        campaign.path(),
        &[
            "inject",
            "--connector",
            "other",
            "--to",
            "1",
            "--content",
            "x",
            "--kind",
            "outbound",
            "--resume",
            "progress",
            "--broker",
            &url,
        ],
    );
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    assert!(
        said(&other).contains("is the progress of numbers.txt into sms.outbound"),
        "{}",
        said(&other)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_on_rabbitmq_follows_beside_the_reader() {
    let Some(url) = vhost("tap").await else {
        return;
    };
    let (campaign, _run) = echo(&["--broker", &url]).await;
    let amqp = Amqp::connect(&url).await;
    let mut seen = tap(
        &campaign,
        &[
            "t",
            "--broker",
            &url,
            "--content",
            "HELLO",
            "--format",
            "json",
            "--count",
            "2",
        ],
    );
    let mut number = 0;
    wait_for("the tap has seen both ways", PATIENCE, || {
        number += 1;
        let (amqp, ended) = (&amqp, seen.poll());
        async move {
            let message = user_message(&format!("m{number}"), "t", "hello");
            amqp.publish("t.inbound", message.to_string().as_bytes())
                .await;
            ended
                .map(|status| assert_eq!(status.code(), Some(0)))
                .ok_or_else(|| "not yet".to_owned())
        }
    })
    .await;
    seen.ends(PATIENCE).await;
    let lines: Vec<Value> = seen
        .log()
        .lines()
        .filter(|line| *line != FOLLOWING)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{}", seen.log());
    assert!(
        lines
            .iter()
            .all(|line| line["characters"] == 5 && line.get("message").is_none())
    );
    let exists = wait_for(
        "the tap's queue is gone, the reader's is empty",
        PATIENCE,
        || async {
            amqp.ready("t.inbound")
                .await
                .filter(|ready| *ready == 0)
                .ok_or_else(|| "not empty".to_owned())
        },
    );
    exists.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_looks_twice_and_shows_rates() {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let _run = campaign.run(&[]);
    let _user = greeted(campaign.port(9010), PATIENCE).await;
    let once = run(campaign.path(), &["top", "--once", "--interval", "100ms"]);
    assert_eq!(once.status.code(), Some(0), "{}", said(&once));
    let text = said(&once);
    assert!(text.starts_with("2 workers: "), "{text}");
    assert!(
        text.contains("application/echo") && text.contains("OLDEST"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "not a terminal: {text}");
    let json = run(
        campaign.path(),
        &["top", "--once", "--interval", "100ms", "--format", "json"],
    );
    let rows = json_of(&json);
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["worker"], "application/echo");
    assert_eq!(rows[0]["parked"], 0);
    // Lines in which something happens show it.
    wait_for("a rate above zero", PATIENCE, || async {
        let injecting = fed(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "telnet",
                "--from",
                "1",
                "--content",
                "x",
                "--count",
                "200",
            ],
            "",
        );
        assert_eq!(injecting.status.code(), Some(0), "{}", said(&injecting));
        let mut looking = Process::start(
            campaign.path(),
            "top",
            &["top", "--once", "--interval", "2s", "--format", "json"],
        );
        let more = fed(
            campaign.path(),
            &[
                "inject",
                "--connector",
                "telnet",
                "--from",
                "1",
                "--content",
                "x",
                "--count",
                "200",
            ],
            "",
        );
        assert_eq!(more.status.code(), Some(0), "{}", said(&more));
        assert_eq!(looking.ends(PATIENCE).await.code(), Some(0));
        let log = looking.log();
        let last = log.lines().last().unwrap_or_default().to_owned();
        let rows: Value =
            serde_json::from_str(&last).map_err(|error| format!("{error}: {last}"))?;
        match rows[0]["receivedPerSecond"].as_f64() {
            Some(rate) if rate > 0.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let none = run(Path::new("/"), &["top", "--once", "--name", "nobody"]);
    assert_eq!(none.status.code(), Some(3), "{}", said(&none));
}

/// What nobody has taken yet is no zero.
#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_waits_on_the_broker() {
    const ALL: u64 = 3000;
    let campaign = Campaign::empty();
    campaign.write(
        "slow.yaml",
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: slow}\nspec: {devNull: {latency: 1h}}\n",
    );
    let _run = campaign.run(&[]);
    wait_for("all are sent", PATIENCE, || async {
        let count = ALL.to_string();
        let slow = ["inject", "--connector", "slow", "--kind", "outbound"];
        let what = ["--to", "1", "--content", "x", "--count", &count];
        let sent = run(campaign.path(), &[&slow[..], &what].concat());
        match sent.status.code() {
            Some(0) => Ok(()),
            _ => Err(said(&sent)),
        }
    })
    .await;
    wait_for("the rest waits on the broker", PATIENCE, || async {
        let look = ["top", "--once", "--interval", "100ms", "--format", "json"];
        let rows = json_of(&run(campaign.path(), &look));
        let (held, queued) = (rows[0]["inFlight"].as_u64(), rows[0]["queued"].as_u64());
        match held.zip(queued) {
            Some((held, queued)) if queued > 0 && held + queued == ALL => Ok(()),
            _ => Err(rows.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_knows_a_good_broker_from_a_bad_one() {
    let Some(url) = vhost("doctor").await else {
        return;
    };
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let manifests = campaign.manifests();
    let manifests = manifests.to_str().unwrap();
    let well = run(
        campaign.path(),
        &["doctor", "-f", manifests, "--broker", &url],
    );
    let text = said(&well);
    assert_eq!(well.status.code(), Some(0), "{text}");
    for part in [
        "RabbitMQ 4.0",
        "queues without arguments are classic",
        "a message is confirmed and comes back",
        "note  queue telnet.inbound: it is not there yet",
        "it is free",
        "0 problems",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("guest:guest"), "no password: {text}");
    // A queue of another type, with messages that nobody reads.
    let amqp = Amqp::connect(&url).await;
    let mut quorum = lapin::types::FieldTable::default();
    quorum.insert(
        "x-queue-type".into(),
        lapin::types::AMQPValue::LongString("quorum".into()),
    );
    amqp.declare("telnet.inbound", quorum).await;
    let bad = run(
        campaign.path(),
        &[
            "doctor", "-f", manifests, "--broker", &url, "--format", "json",
        ],
    );
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    let found = json_of(&bad);
    let of_queue = found
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["about"] == "queue telnet.inbound")
        .unwrap();
    assert_eq!(of_queue["level"], "problem", "{of_queue}");
    assert!(
        of_queue["fix"].as_str().unwrap().contains("delete it"),
        "{of_queue}"
    );
    // What it made is gone.
    assert!(amqp.exists("telnet.inbound").await);
    assert!(!amqp.exists("telnet.outbound").await);
    let nobody = format!(
        "amqp://guest:wrong@127.0.0.1:{}/",
        url.rsplit(':').next().unwrap().split('/').next().unwrap()
    );
    let refused = run(campaign.path(), &["doctor", "--broker", &nobody]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("Check user, password") && !said(&refused).contains("wrong@"),
        "{}",
        said(&refused)
    );
    let away = run(
        campaign.path(),
        &[
            "doctor",
            "--broker",
            "amqp://127.0.0.1:1/",
            "--redis",
            "redis://127.0.0.1:1/",
        ],
    );
    assert_eq!(away.status.code(), Some(1), "{}", said(&away));
    assert_eq!(said(&away).matches("FAIL").count(), 2, "{}", said(&away));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_on_a_virtual_host_of_quorum_queues_warns() {
    let Some(url) = crate::harness::vhost_with("doctor-quorum", Some("quorum")).await else {
        return;
    };
    let campaign = Campaign::empty();
    let ended = run(campaign.path(), &["doctor", "--broker", &url]);
    assert_eq!(ended.status.code(), Some(0), "{}", said(&ended));
    assert!(said(&ended).contains("WARN"), "{}", said(&ended));
    assert!(
        said(&ended).contains("--default-queue-type classic"),
        "{}",
        said(&ended)
    );
    let suited = run(
        campaign.path(),
        &["doctor", "--broker", &format!("{url}?profile=quorum")],
    );
    assert!(!said(&suited).contains("WARN"), "{}", said(&suited));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_a_redis_and_at_running_processes() {
    let Some(redis) = Redis::start_or_skip(Options::default()).await else {
        return;
    };
    let (campaign, _run) = echo(&[]).await;
    let ended = run(campaign.path(), &["doctor", "--redis", &redis.url(3)]);
    let text = said(&ended);
    assert_eq!(ended.status.code(), Some(0), "{text}");
    for part in [
        "we may write and run scripts",
        "its clock and ours are",
        "process echo: all 1 workers are ready",
        "durability",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
