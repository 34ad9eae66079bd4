//! The wall clock of a machine is set while a worker runs: one test per row of `docs/outages.md` that names this file.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, installed, run, said};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use vumi_testkit::redis::{self, Redis};

const ANSWER: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(60);

/// The wall clock of one process, moved while it runs; its monotonic clock goes on undisturbed, as when an operator or a
/// time service sets the machine's clock.
struct Clock {
    offset: std::path::PathBuf,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let clock = Self {
            offset: folder.join("clock"),
        };
        clock.step("+0");
        clock
    }

    /// Moves it to so many seconds from the real time.
    fn step(&self, offset: &str) {
        let draft = self.offset.with_extension("draft");
        std::fs::write(&draft, offset).unwrap();
        std::fs::rename(draft, &self.offset).unwrap();
    }

    fn environment(&self) -> Option<Vec<(&'static str, String)>> {
        let library = installed("libfaketime", "libfaketimeMT.so.1")?;
        Some(vec![
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("DONT_FAKE_MONOTONIC", "1".into()),
        ])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_stepped_disturbs_nobody() {
    let campaign = Campaign::example("telnet-echo", &[9010]);
    let clock = Clock::new(campaign.path());
    let Some(environment) = clock.environment() else {
        vumi_testkit::skip("libfaketime is not installed");
        return;
    };
    let manifests = campaign.manifests();
    let arguments = ["run", "-f", manifests.to_str().unwrap()];
    let mut run = Process::start_with(campaign.path(), "run", &arguments, &environment);
    let mut user = greeted(campaign.port(9010), PATIENCE).await;
    for (n, offset) in ["+3600", "-7200", "+86400", "+0"].iter().enumerate() {
        clock.step(offset);
        let line = format!("after step {n}");
        assert_eq!(user.ask(&line, ANSWER).await, Some(line), "{offset}");
        let mut other = greeted(campaign.port(9010), PATIENCE).await;
        assert_eq!(other.ask("hi", ANSWER).await.as_deref(), Some("hi"));
        if *offset == "+86400" {
            // A reload on that day leaves lines in the log that prove the step.
            campaign.write(
                "echo.yaml",
                &format!("{}  backlogLimit: 5000\n", campaign.read("echo.yaml")),
            );
            wait_for("the edit is applied", PATIENCE, || async {
                let applied = run.log().contains("manifests applied");
                applied.then_some(()).ok_or_else(|| run.log())
            })
            .await;
        }
    }
    run.assert_running();
    assert_eq!(run.stop(STOP).await, Some(143));
    let log = run.log();
    let dated = log.lines().filter(|line| line.contains("  INFO "));
    let days: BTreeSet<&str> = dated.filter_map(|line| line.get(..10)).collect();
    assert!(days.len() > 1, "its clock was stepped: {log}");
    assert!(!log.contains("ERROR"), "{log}");
}

/// A campaign on RabbitMQ with its own store in a folder, or one in a Redis whose clock is right: the test sets that of the
/// campaign.
struct Stage {
    campaign: Campaign,
    clock: Clock,
    amqp: Amqp,
    running: Process,
    _redis: Option<Redis>,
}

impl Stage {
    async fn set(name: &str, manifests: &[(&str, String)], redis: Option<Redis>) -> Option<Self> {
        let url = vhost(name).await?;
        let campaign = Campaign::empty();
        for (file, manifest) in manifests {
            campaign.write(file, manifest);
        }
        let clock = Clock::new(campaign.path());
        let Some(environment) = clock.environment() else {
            vumi_testkit::skip("libfaketime is not installed");
            return None;
        };
        let (folder, state) = (campaign.manifests(), campaign.path().join("state"));
        let arguments = ["run", "-f", folder.to_str()?, "--state", state.to_str()?];
        let arguments = [&arguments[..], &["--broker", &url]].concat();
        let store = redis.as_ref().map(|redis| redis.url(0));
        let store = store.iter().flat_map(|url| ["--redis", url]);
        let arguments: Vec<&str> = arguments.into_iter().chain(store).collect();
        let running = Process::start_with(campaign.path(), "run", &arguments, &environment);
        let amqp = Amqp::connect(&url).await;
        let stage = Self {
            campaign,
            clock,
            amqp,
            running,
            _redis: redis,
        };
        wait_for("all workers are ready", PATIENCE, || async {
            let (_, text) = stage.ask(&["status", "--format", "json"]);
            let status: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
            let workers = status["workers"].as_array().cloned().unwrap_or_default();
            let ready = workers.iter().filter(|worker| worker["ready"] == true);
            match ready.count() == manifests.len() {
                true => Ok(()),
                false => Err(text),
            }
        })
        .await;
        Some(stage)
    }

    /// Asks the process something.
    fn ask(&self, arguments: &[&str]) -> (i32, String) {
        let state = self.campaign.path().join("state");
        let place = ["--state", state.to_str().unwrap()];
        let output = run(self.campaign.path(), &[arguments, &place].concat());
        (output.status.code().unwrap(), said(&output))
    }

    async fn send(&self, transport: &str, id: &str, schedule: Option<f64>) {
        let mut message = user_message(id, transport, "hello");
        if let Some(at) = schedule {
            message["helper_metadata"]["schedule"] = json!({"at": at});
        }
        let body = message.to_string();
        let queue = format!("{transport}.outbound");
        self.amqp.publish(&queue, body.as_bytes()).await;
    }

    async fn until_journaled(&self, count: usize) {
        wait_for("they wait in the journal", PATIENCE, || async {
            let (_, listed) = self.ask(&["journal", "list", "--format", "json"]);
            let all: Value = serde_json::from_str(&listed).map_err(|_| listed.clone())?;
            match all.as_array().is_some_and(|all| all.len() == count) {
                true => Ok(()),
                false => Err(listed),
            }
        })
        .await;
    }

    async fn event(&self, transport: &str) -> Value {
        self.amqp
            .next(&format!("{transport}.event"), PATIENCE)
            .await
    }

    async fn silent(&self, transport: &str) {
        let event = self.amqp.take(&format!("{transport}.event")).await;
        assert_eq!(event, None, "{transport}");
    }
}

/// A provider that nobody reaches at first; its port.
fn away(retry: &str) -> (u16, String) {
    let port = vumi_testkit::free_port().unwrap();
    let manifest = format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: away}}\n\
         spec:\n  genericHttp: {{send: {{url: 'http://127.0.0.1:{port}/send'}}}}\n  \
         holdLimit: 1s\n  ordering: {{mode: perUser}}\n  retry: {{{retry}}}\n"
    );
    (port, manifest)
}

/// It takes everything from now on.
async fn comes_back(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut some = [0; 4096];
                let _ = stream.read(&mut some).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            });
        }
    });
}

/// What waits for its next attempt does not wait longer because the clock was set back by hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_holds_nothing_up() {
    set_back("clock-back", None).await;
}

/// The same where the store is a Redis on another machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_beside_redis_holds_nothing_up() {
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..redis::Options::default()
    };
    if let Some(redis) = Redis::start_or_skip(options).await {
        set_back("clock-back-redis", Some(redis)).await;
    }
}

async fn set_back(name: &str, redis: Option<Redis>) {
    let (port, manifest) = away("backoff: {initial: 1s, max: 2s}");
    let Some(mut stage) = Stage::set(name, &[("away.yaml", manifest)], redis).await else {
        return;
    };
    for n in 0..3 {
        stage.send("away", &format!("m{n}"), None).await;
    }
    stage.until_journaled(3).await;
    stage.clock.step("-7200");
    stage.send("away", "m3", None).await;
    comes_back(port).await;
    for n in 0..4 {
        let event = stage.event("away").await;
        assert_eq!(
            (&event["event_type"], &event["user_message_id"]),
            (&json!("ack"), &json!(format!("m{n}")))
        );
    }
    stage.running.assert_running();
}

/// What ends at a time ends when the clock has reached it, however it came there, and not before.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_ends_what_is_over_and_nothing_else() {
    let (_, away) = away("maxAge: 10h, backoff: {initial: 1s, max: 2s}");
    let net = |name: &str, spec: &str| {
        format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: {name}}}\nspec:\n{spec}"
        )
    };
    let lost = net(
        "lost",
        "  devNull: {lostPercent: 100, ackPercent: 0}\n  onUnknown: {policy: wait, deadline: 10h, then: fail}\n",
    );
    let port = vumi_testkit::free_port().unwrap();
    let api = net(
        "api",
        &format!(
            "  httpApi: {{idField: id}}\n  http: {{host: 127.0.0.1, port: {port}}}\n  dedupe: {{window: 10h}}\n"
        ),
    );
    let manifests = [
        ("away.yaml", away),
        ("lost.yaml", lost),
        ("later.yaml", net("later", "  devNull: {}\n")),
        ("api.yaml", api),
    ];
    let Some(mut stage) = Stage::set("clock-forward", &manifests, None).await else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    stage.send("away", "m-away", None).await;
    stage.send("lost", "m-lost", None).await;
    let ten_hours = now.as_secs_f64() + 36_000.0;
    stage.send("later", "m-later", Some(ten_hours)).await;
    stage.until_journaled(2).await;
    assert_eq!(stage.event("lost").await["delivery_status"], "pending");
    // Nobody replies: the request is taken over once, and a repeat hears the same.
    let mut asked = 0;
    let mut ask = async |inbound: u32| {
        let path = "/?content=hi&from_addr=1&to_addr=2&id=same";
        let answer = http::get(port, path, ANSWER).await.unwrap();
        asked += 1;
        let ready = stage.amqp.ready("api.inbound").await;
        assert_eq!(ready, Some(inbound), "request {asked} got {answer:?}");
    };
    ask(1).await;
    ask(1).await;

    stage.clock.step("+32400");
    ask(1).await;
    // Long enough for what would end, if it did: every second it is looked at.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for name in ["away", "lost", "later"] {
        stage.silent(name).await;
    }

    stage.clock.step("+39600");
    for (name, kind, code) in [
        ("away", "nack", "retry.expired"),
        ("lost", "nack", "fate.unknown"),
        ("later", "ack", ""),
    ] {
        let mut event = stage.event(name).await;
        // That nobody knows is told again before the end.
        while name == "lost" && event["delivery_status"] == "pending" {
            event = stage.event(name).await;
        }
        assert_eq!(event["event_type"], kind, "{event}");
        assert_eq!(event["user_message_id"], format!("m-{name}"));
        if !code.is_empty() {
            assert_eq!(event["helper_metadata"]["fate"]["code"], code, "{event}");
        }
    }
    ask(2).await;
    stage.running.assert_running();
}
