//! The process around the workers: what ends it and with which code, what it waits for instead, and Secrets that come
//! late, rotate, or move the broker.

use crate::harness::amqp::{Amqp, reply_to};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, run, said};
use crate::harness::{PATIENCE, http, vhost, wait_for};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ANSWER: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(60);
const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec: {echo: {}, transportName: t}\n";

/// `vumi worker` on `manifest` as a pod has it; with its admin port.
fn pod(campaign: &Campaign, manifest: &str) -> (Process, u16) {
    campaign.place("pod", manifest);
    let port = vumi_testkit::free_port().unwrap();
    let (manifests, secrets) = (campaign.path().join("pod"), campaign.path().join("secrets"));
    let arguments = [
        "worker",
        "--manifests",
        manifests.to_str().unwrap(),
        "--secrets",
        secrets.to_str().unwrap(),
        "--admin",
        &port.to_string(),
    ];
    (Process::start(campaign.path(), "pod", &arguments), port)
}

/// Waits for a status code and a text of `/readyz`.
async fn readyz(port: u16, status: u16, text: &str) {
    wait_for(&format!("{status} {text}"), PATIENCE, || async {
        match http::get(port, "/readyz", ANSWER).await {
            Ok((got, body)) if got == status && body.contains(text) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Writes one key of a Secret as the kubelet does: complete at once.
fn secret(campaign: &Campaign, name: &str, key: &str, value: &str) {
    let folder = campaign.path().join("secrets").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let draft = campaign.path().join("draft-secret");
    std::fs::write(&draft, value).unwrap();
    std::fs::rename(draft, folder.join(key)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_bad_manifest_waits_and_says_why() {
    let campaign = Campaign::empty();
    let (mut worker, port) = pod(&campaign, &ECHO.replace("echo: {}", "ecko: {}"));
    readyz(port, 503, "ecko").await;
    let alive = http::get(port, "/healthz", ANSWER).await.unwrap();
    assert_eq!(alive.0, 200, "restarting it would not help");
    worker.assert_running();
    assert_eq!(worker.stop(STOP).await, Some(143));
}

/// The tests' own promise: whoever kills a test run leaves no workers behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_killed_with_the_thread_that_started_it() {
    let campaign = Arc::new(Campaign::empty());
    let (started, start) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let starter = std::thread::spawn({
        let campaign = Arc::clone(&campaign);
        move || {
            let pod = pod(&campaign, &ECHO.replace("echo: {}", "ecko: {}"));
            started.send(pod).unwrap();
            let _ = ended.recv();
        }
    });
    let (mut worker, port) = start.recv().unwrap();
    readyz(port, 503, "ecko").await;
    worker.assert_running();
    drop(end);
    starter.join().unwrap();
    let status = worker.ends(STOP).await;
    assert_eq!(status.signal(), Some(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_come_late_and_move_the_broker() {
    let (Some(first), Some(second)) = (vhost("late-1").await, vhost("late-2").await) else {
        return;
    };
    let campaign = Campaign::empty();
    let (mut worker, port) = pod(&campaign, ECHO);
    readyz(port, 503, "vumi-broker").await;
    secret(&campaign, "vumi-broker", "connection_string", &first);
    readyz(port, 200, "ok").await;
    let since = |status: &crate::harness::campaign::Status| {
        status.worker("application/echo").unwrap()["since"].clone()
    };
    let before = campaign.status().unwrap();
    assert!(
        before.0["brokers"]
            .to_string()
            .contains("/late-1 (Secret vumi-broker)")
    );

    secret(&campaign, "vumi-broker", "connection_string", &second);
    wait_for("the worker is on the second broker", PATIENCE, || async {
        let status = campaign.status()?;
        let brokers = status.0["brokers"].to_string();
        match brokers.contains("late-2") && !brokers.contains("late-1") {
            true => Ok(()),
            false => Err(brokers),
        }
    })
    .await;
    readyz(port, 200, "ok").await;
    let moved = campaign.status().unwrap();
    // Another password of the same address: nothing restarts (K9).
    let rotated =
        second
            .replacen("://", "://other:", 1)
            .replacen("other:guest:guest@", "guest:other@", 1);
    assert_ne!(rotated, second);
    secret(&campaign, "vumi-broker", "connection_string", &rotated);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = campaign.status().unwrap();
    assert_eq!(since(&after), since(&moved));
    assert!(!worker.log().contains("guest:"), "a password in the log");
    assert_eq!(worker.stop(STOP).await, Some(143));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_is_not_valid_leaves_everything_running() {
    let campaign = Campaign::empty();
    campaign.write("echo.yaml", ECHO);
    let mut process = campaign.run(&["--admin", "none"]);
    campaign.until_ready(&[], "application/echo").await;
    campaign.edit("echo.yaml", "echo: {}", "echo: {sped: 1}");
    wait_for("the finding is shown", PATIENCE, || async {
        let problem = campaign.status()?.0["problem"].to_string();
        match problem.contains("echo.yaml:4") && problem.contains("sped") {
            true => Ok(()),
            false => Err(problem),
        }
    })
    .await;
    let status = run(campaign.path(), &["status"]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    assert!(said(&status).contains("sped"), "{}", said(&status));
    assert!(
        campaign
            .status()
            .unwrap()
            .worker("application/echo")
            .unwrap()["ready"]
            == true
    );
    campaign.edit("echo.yaml", "echo: {sped: 1}", "echo: {}");
    wait_for("all is well again", PATIENCE, || async {
        let status = run(campaign.path(), &["status"]);
        match status.status.code() {
            Some(0) => Ok(()),
            _ => Err(said(&status)),
        }
    })
    .await;
    assert_eq!(process.stop(STOP).await, Some(143));
    let gone = run(campaign.path(), &["status"]);
    assert_eq!(gone.status.code(), Some(3), "{}", said(&gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let campaign = Campaign::empty();
    let (port, admin) = (
        vumi_testkit::free_port().unwrap(),
        vumi_testkit::free_port().unwrap(),
    );
    campaign.write(
        "http.yaml",
        &format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: http}}\nspec: {{httpApi: {{replyExpected: true}}, http: {{host: 127.0.0.1, port: {port}}}}}\n"
        ),
    );
    let mut process = campaign.run(&["--admin", &admin.to_string(), "--drain", "10m"]);
    readyz(admin, 200, "ok").await;
    // Nobody will ever answer this.
    let held = tokio::spawn(async move {
        let path = "/?content=hello&from_addr=27820000001&to_addr=12345";
        http::get(port, path, Duration::from_secs(120)).await
    });
    wait_for("the request is held", PATIENCE, || async {
        let metrics = http::get(admin, "/metrics", ANSWER)
            .await
            .map_err(|e| format!("{e:?}"))?
            .1;
        let published = metrics.lines().find(|line| {
            line.starts_with("vumi_published_total")
                && line.contains("http.inbound")
                && line.ends_with(" 1")
        });
        published.map(|_| ()).ok_or(metrics)
    })
    .await;
    process.signal("TERM");
    wait_for("it is stopping", PATIENCE, || async {
        match process
            .log()
            .contains("a second signal ends the process at once")
        {
            true => Ok(()),
            false => Err(process.log()),
        }
    })
    .await;
    process.assert_running();
    let began = Instant::now();
    process.signal("INT");
    assert_eq!(process.ends(STOP).await.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(held.await.unwrap().is_err());
}

/// The test is the application, and slow: its reply comes after the edit of the manifest and after the signal.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_held_during_a_reload_is_answered_although_a_signal_came() {
    let Some(url) = vhost("signal-in-reload").await else {
        return;
    };
    let campaign = Campaign::empty();
    let (port, admin) = (
        vumi_testkit::free_port().unwrap(),
        vumi_testkit::free_port().unwrap(),
    );
    campaign.write(
        "http.yaml",
        &format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: http}}\nspec: {{httpApi: {{replyExpected: true}}, http: {{host: 127.0.0.1, port: {port}, requestTimeout: 5m}}}}\n"
        ),
    );
    let arguments = [
        "--broker",
        &url,
        "--admin",
        &admin.to_string(),
        "--drain",
        "2m",
    ];
    let mut process = campaign.run(&arguments);
    readyz(admin, 200, "ok").await;
    let amqp = Amqp::connect(&url).await;
    amqp.tap("tap.inbound", "http.inbound").await;
    let held = tokio::spawn(async move {
        let path = "/?content=hello&from_addr=27820000001&to_addr=12345";
        http::get(port, path, Duration::from_secs(120)).await
    });
    let question = amqp.next("tap.inbound", PATIENCE).await;

    let logged = async |text: &str| {
        wait_for(text, PATIENCE, || async {
            match process.log().contains(text) {
                true => Ok(()),
                false => Err(process.log()),
            }
        })
        .await;
    };
    campaign.edit("http.yaml", "requestTimeout: 5m", "requestTimeout: 6m");
    logged("replacing").await;
    // Time for the old intake to close, and for what would be cut off to be cut off.
    tokio::time::sleep(Duration::from_secs(1)).await;
    process.signal("TERM");
    logged("a second signal ends the process at once").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    process.assert_running();
    let reply = reply_to(&question, "late-reply", "still here");
    amqp.publish("http.outbound", reply.to_string().as_bytes())
        .await;
    let answer = held.await.unwrap().unwrap();
    assert_eq!(answer, (200, "still here".to_owned()));
    assert_eq!(process.ends(STOP).await.code(), Some(143));
}

#[test]
fn what_cannot_start_ends_with_its_code() {
    let campaign = Campaign::empty();
    let folder = campaign.path();
    let ends = |arguments: &[&str], code: i32, text: &str| {
        let output = run(folder, arguments);
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(text), "{}", said(&output));
    };
    let bad = folder.join("bad.yaml");
    std::fs::write(&bad, ECHO.replace("echo: {}", "ecko: {}")).unwrap();
    let good = folder.join("good.yaml");
    std::fs::write(&good, ECHO).unwrap();
    fn text(path: &Path) -> &str {
        path.to_str().unwrap()
    }
    ends(&["run", "-f", text(&bad)], 2, "bad.yaml:4");
    ends(&["run", "-f", "absent.yaml"], 3, "absent.yaml");
    ends(
        &["run", "-f", text(&good), "--broker", "http://u:hunter2@h"],
        2,
        "amqp://user:password@host",
    );
    ends(
        &["run", "-f", text(&good), "--log-level", "vumi_core=loud"],
        2,
        "loud",
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    ends(
        &["run", "-f", text(&good), "--admin", &address],
        3,
        "--admin none",
    );
    ends(&["worker", "--manifests", "absent"], 3, "absent");
    ends(&["status"], 3, "is `vumi run` running?");
    ends(&["parked", "list"], 3, "is `vumi run` running?");
    ends(
        &[
            "parked",
            "list",
            "t.inbound",
            "--broker",
            "amqp://guest:hunter2@127.0.0.1:1/",
        ],
        3,
        "127.0.0.1:1",
    );
    ends(
        &["diff", text(&good), text(&good), "--exit-code"],
        0,
        "1 unchanged",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_one_process() {
    let campaign = Campaign::empty();
    campaign.write("echo.yaml", ECHO);
    let mut first = campaign.run(&["--admin", "none", "--name", "mine"]);
    wait_for("the first runs", PATIENCE, || async {
        campaign.status().map(|_| ())
    })
    .await;
    let manifests = campaign.manifests();
    let second = [
        "run",
        "-f",
        manifests.to_str().unwrap(),
        "--admin",
        "none",
        "--name",
        "mine",
    ];
    let output = run(campaign.path(), &second);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("--name"), "{}", said(&output));
    assert_eq!(first.stop(STOP).await, Some(143));
}
