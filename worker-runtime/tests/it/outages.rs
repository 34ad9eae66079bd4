//! What users see in outages that no other test covers: one test per row of `docs/outages.md` that names this file.

use crate::harness::amqp::Amqp;
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, installed};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};
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

fn api(port: u16) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: api}}\n\
         spec:\n  httpApi: {{idField: id}}\n  http: {{host: 127.0.0.1, port: {port}}}\n"
    )
}

fn telnet(port: u16) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: telnet}}\n\
         spec:\n  telnet: {{host: 127.0.0.1, port: {port}}}\n"
    )
}

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\n\
     spec:\n  echo: {}\n  transportName: telnet\n";

/// How a component of a worker stands, by the worker's own word.
fn component(
    campaign: &Campaign,
    process: &str,
    worker: &str,
    name: &str,
) -> Result<String, String> {
    let status = campaign.status_of(&["--name", process])?;
    let worker = status.worker(worker)?;
    let components = worker["components"].as_array().cloned().unwrap_or_default();
    let found = components.iter().find(|c| c["component"] == name);
    let said = found.map(|c| c["reason"].as_str().unwrap_or_default().to_owned());
    said.ok_or_else(|| format!("no {name} in {worker}"))
}

async fn until_said(campaign: &Campaign, process: &str, worker: &str, name: &str, reason: &str) {
    wait_for(&format!("{name} is {reason}"), PATIENCE, || async {
        match component(campaign, process, worker, name)? {
            said if said == reason => Ok(()),
            said => Err(said),
        }
    })
    .await;
}

/// What is accepted is safe, so nothing is accepted; whoever asks again when the broker is back is served.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_users_are_told_and_nothing_is_lost() {
    let Some(mut broker) = RabbitMq::start_or_skip(Version::V4_0, Options::default()).await else {
        return;
    };
    let (campaign, url) = (Campaign::empty(), broker.url("/"));
    let port = vumi_testkit::free_port().unwrap();
    let mut worker = campaign.worker_with("api", &api(port), &url);
    let path = |n: u32| format!("/?content=m{n}&from_addr=1&to_addr=2&id={n}");
    let accepted = async |n: u32| {
        wait_for("a message is accepted", PATIENCE, || async {
            match http::get(port, &path(n), ANSWER).await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    accepted(0).await;
    broker.stop().await.unwrap();
    until_said(&campaign, "api", "transport/api", "broker", "unreachable").await;
    let (status, body) = http::get(port, &path(1), ANSWER).await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("broker.unreachable"), "{body}");
    broker.restart().await.unwrap();
    accepted(1).await;
    until_said(&campaign, "api", "transport/api", "broker", "connected").await;
    let reader = Amqp::connect(&url).await;
    for n in 0..2 {
        let message = reader.next("api.inbound", ANSWER).await;
        assert_eq!(message["content"], format!("m{n}"));
    }
    worker.assert_running();
}

/// What would be sent waits until it can be written down first; then it comes, in order and once.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_replies_wait_and_come_in_order() {
    let Some(url) = vhost("outage-store").await else {
        return;
    };
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..redis::Options::default()
    };
    let Some(mut store) = Redis::start_or_skip(options).await else {
        return;
    };
    let (campaign, port) = (Campaign::empty(), vumi_testkit::free_port().unwrap());
    let state = store.url(0);
    let launch = |name: &str, manifest: &str| {
        campaign.place(name, manifest);
        let more = ["--redis", &state];
        campaign.alone(["worker", "--manifests"], name, &url, &more)
    };
    let mut running = [launch("telnet", &telnet(port)), launch("echo", ECHO)];
    let mut user = greeted(port, PATIENCE).await;
    assert_eq!(user.ask("before", ANSWER).await.as_deref(), Some("before"));
    store.kill().await.unwrap();
    let unavailable = "state_unavailable";
    until_said(
        &campaign,
        "telnet",
        "transport/telnet",
        "state",
        unavailable,
    )
    .await;
    let lines: Vec<String> = (0..5).map(|n| format!("line {n}")).collect();
    for line in &lines {
        user.say(line).await.unwrap();
    }
    // Long enough for a reply, if one were sent: it must not be.
    assert_eq!(user.hear(Duration::from_secs(2)).await, None);
    store.restart().await.unwrap();
    for line in &lines {
        assert_eq!(user.hear(PATIENCE).await.as_ref(), Some(line));
    }
    assert_eq!(
        user.ask("after", ANSWER).await.as_deref(),
        Some("after"),
        "each came once"
    );
    running.iter_mut().for_each(Process::assert_running);
}

/// The broker gives the frozen one up after three heartbeats; its late words change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_holds_its_users_up_for_three_heartbeats() {
    const HEARTBEAT: u64 = 2;
    let Some(url) = vhost("outage-frozen").await else {
        return;
    };
    let url = format!("{url}?heartbeat={HEARTBEAT}");
    let (campaign, port) = (Campaign::empty(), vumi_testkit::free_port().unwrap());
    let _telnet = campaign.worker_with("telnet", &telnet(port), &url);
    let mut holder = campaign.worker_with("echo-a", ECHO, &url);
    let mut user = greeted(port, PATIENCE).await;
    assert_eq!(user.ask("one", ANSWER).await.as_deref(), Some("one"));
    let mut standby = campaign.worker_with("echo-b", ECHO, &url);
    wait_for("a standby says who holds the queue", PATIENCE, || async {
        let status = campaign.status_of(&["--name", "echo-b"])?;
        let worker = status.worker("application/echo")?.to_string();
        let named = worker.contains("standby") && worker.contains("application/echo@");
        named.then_some(()).ok_or(worker)
    })
    .await;
    holder.signal("STOP");
    let began = std::time::Instant::now();
    assert_eq!(user.ask("two", PATIENCE).await.as_deref(), Some("two"));
    println!("answered {:?} after the freeze", began.elapsed());
    holder.signal("CONT");
    wait_for("the frozen one stands by", PATIENCE, || async {
        let status = campaign.status_of(&["--name", "echo-a"])?;
        let worker = status.worker("application/echo")?.to_string();
        worker.contains("standby").then_some(()).ok_or(worker)
    })
    .await;
    assert_eq!(
        user.ask("three", ANSWER).await.as_deref(),
        Some("three"),
        "nothing of the frozen one came between"
    );
    holder.assert_running();
    standby.assert_running();
}
