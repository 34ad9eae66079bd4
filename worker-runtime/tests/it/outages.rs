//! What users see in outages that no other test covers: one test per row of `docs/outages.md` that names this file.

use crate::harness::amqp::Amqp;
use crate::harness::campaign::Campaign;
use crate::harness::process::Process;
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};
use vumi_testkit::redis::{self, Redis};

const ANSWER: Duration = Duration::from_secs(20);

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
    // An answer that came too late was asked for again, and the message is there twice, with one id.
    let mut taken: Vec<(serde_json::Value, serde_json::Value)> = Vec::new();
    while taken.len() < 2 {
        let message = reader.next("api.inbound", ANSWER).await;
        let one = (message["content"].clone(), message["message_id"].clone());
        if taken.last() != Some(&one) {
            taken.push(one);
        }
    }
    let contents: Vec<_> = taken.iter().map(|(content, _)| content).collect();
    assert_eq!(contents, ["m0", "m1"]);
    worker.assert_running();
}

/// A store takes nothing: what would be sent waits until it can be written down first; then it comes, in order and once.
async fn replies_wait_while(
    name: &str,
    options: redis::Options,
    fails: impl AsyncFnOnce(&mut Redis),
    works: impl AsyncFnOnce(&mut Redis),
) {
    let Some(url) = vhost(name).await else {
        return;
    };
    let options = redis::Options {
        append: redis::Append::EverySec,
        ..options
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
    fails(&mut store).await;
    let lines: Vec<String> = (0..5).map(|n| format!("line {n}")).collect();
    for line in &lines {
        user.say(line).await.unwrap();
    }
    let unavailable = "state_unavailable";
    until_said(
        &campaign,
        "telnet",
        "transport/telnet",
        "state",
        unavailable,
    )
    .await;
    // Long enough for a reply, if one were sent: it must not be.
    assert_eq!(user.hear(Duration::from_secs(2)).await, None);
    works(&mut store).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_replies_wait_and_come_in_order() {
    let options = redis::Options::default();
    let fails = async |store: &mut Redis| store.kill().await.unwrap();
    let works = async |store: &mut Redis| store.restart().await.unwrap();
    replies_wait_while("outage-store", options, fails, works).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_full_replies_wait_and_come_in_order() {
    let options = redis::Options {
        lines: vec!["maxmemory-policy noeviction".into()],
        ..redis::Options::default()
    };
    let room = async |store: &mut Redis, bytes: &str| {
        let set = ["config", "set", "maxmemory", bytes];
        store.cli(&set).await.unwrap();
    };
    let fails = async |store: &mut Redis| room(store, "1").await;
    let works = async |store: &mut Redis| room(store, "0").await;
    replies_wait_while("outage-full", options, fails, works).await;
}

/// A small file system of its own; it goes with the test.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None, said loudly, where nothing may be mounted.
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = mount.arg(folder.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            vumi_testkit::skip("a small file system cannot be mounted: that needs root");
            return None;
        }
        Some(Self { folder })
    }

    fn filler(&self) -> std::path::PathBuf {
        self.folder.path().join("filler")
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        let block = vec![1; 64 << 10];
        let mut size = block.len();
        while size > 0 {
            if file.write_all(&block[..size]).is_err() {
                size /= 2;
            }
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still runs there may end later.
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(self.folder.path()).status();
    }
}

/// A process whose disk is full takes nothing over that it could not keep, says why, and goes on when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_users_are_told_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount("256m") else {
        return;
    };
    let (campaign, port) = (Campaign::empty(), vumi_testkit::free_port().unwrap());
    let answering = api(port)
        .replace("{idField: id}", "{idField: id, replyExpected: true}")
        .replace("host: 127.0.0.1,", "host: 127.0.0.1, requestTimeout: 5s,");
    campaign.write("api.yaml", &answering);
    campaign.write("echo.yaml", &ECHO.replace("telnet", "api"));
    let state = disk.folder.path().join("state");
    let state = state.to_str().unwrap();
    let mut run = campaign.run(&["--state", state]);
    let numbers = AtomicU32::new(1);
    let ask = || async {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let text = format!("m{number}");
        let path = format!("/?content={text}&from_addr={number}&to_addr=2&id={number}");
        match http::get(port, &path, ANSWER).await {
            Ok((200, body)) if body.contains(&text) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_for("a message is answered", PATIENCE, ask).await;
    disk.fill();
    // What still fits into the files that are there is taken.
    let mut refused = 0;
    let deadline = std::time::Instant::now() + 2 * PATIENCE;
    while refused < 5 {
        assert!(std::time::Instant::now() < deadline, "never refused");
        if let Err(why) = ask().await {
            // Refused, or taken over and not answered in time.
            assert!(why.contains("503") || why.contains("504"), "{why}");
            refused += 1;
        }
    }
    // It tries again and again, and gains a little room each time, so that its status changes; the log keeps why.
    let log = run.log();
    assert!(log.contains("No space left"), "{log}");
    disk.empty();
    wait_for("a message is answered again", PATIENCE, ask).await;
    for _ in 0..20 {
        ask().await.unwrap();
    }
    campaign
        .until_ready(&["--state", state], "transport/api")
        .await;
    run.assert_running();
}

/// The broker gives the frozen one up after three heartbeats; its late words change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_holds_its_users_up_for_three_heartbeats() {
    const HEARTBEAT: u64 = 2;
    /// What a busy machine adds.
    const SLACK: Duration = Duration::from_secs(10);
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
    let held_up = began.elapsed();
    println!("answered {held_up:?} after the freeze");
    let most = Duration::from_secs(3 * HEARTBEAT) + SLACK;
    assert!(held_up <= most, "{held_up:?}");
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
