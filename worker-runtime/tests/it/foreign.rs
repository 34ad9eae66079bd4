//! Workers of others: the example in Python on a real RabbitMQ beside a transport of ours, and `vumi conformance`, which
//! passes it and finds each flaw of a flawed one.

use crate::harness::campaign::Campaign;
use crate::harness::process::{command, said};
use crate::harness::telnet::Telnet;
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn example() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("examples/custom-python").canonicalize().unwrap()
}

/// A Python with pika; none is said loudly.
fn python() -> Option<PathBuf> {
    let found = vumi_testkit::python_with("pika");
    if found.is_none() {
        vumi_testkit::skip("no Python with pika (scripts/setup test installs it)");
    }
    found
}

/// A program that goes with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The application of the example.
fn application(python: &Path, url: &str, connector: &str) -> Program {
    application_with(python, &[("VUMI_BROKER_URL", url)], connector)
}

/// The same, which gets the broker in parts, as from the Secret of a cluster.
fn application_of_a_cluster(python: &Path, url: &str, connector: &str) -> Program {
    let (user, place) = url
        .strip_prefix("amqp://")
        .unwrap()
        .split_once('@')
        .unwrap();
    let (username, password) = user.split_once(':').unwrap();
    let (host, vhost) = place.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    let parts = [
        ("VUMI_BROKER_HOST", host),
        ("VUMI_BROKER_PORT", port),
        ("VUMI_BROKER_USERNAME", username),
        ("VUMI_BROKER_PASSWORD", password),
        ("VUMI_BROKER_VHOST", vhost),
        // The parts count: this leads to another virtual host.
        (
            "VUMI_BROKER_URL",
            "amqp://guest:guest@127.0.0.1:1/elsewhere",
        ),
    ];
    application_with(python, &parts, connector)
}

fn application_with(python: &Path, broker: &[(&str, &str)], connector: &str) -> Program {
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(python)
        .arg(example().join("app.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("VUMI_BROKER_URL")
        .envs(broker.iter().copied())
        .env("VUMI_TRANSPORT_NAME", connector)
        .stdin(Stdio::null())
        .spawn();
    Program(child.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_answers_a_user_of_our_transport() {
    let Some(url) = vhost("custom-python").await else {
        return;
    };
    let Some(python) = python() else { return };
    let campaign = Campaign::example("custom-python", &[9015]);
    let admin = format!("127.0.0.1:{}", vumi_testkit::free_port().unwrap());
    let mut process = campaign.run(&["--broker", &url, "--admin", &admin]);
    // It speaks once the application runs, too: messages wait for it.
    let mut user = wait_for("telnet is there", PATIENCE, || async {
        Telnet::connect(campaign.port(9015))
            .await
            .map_err(|e| e.to_string())
    })
    .await;
    let mut program = application(&python, &url, "talk");
    let greeting = "Hello. What is on your mind?";
    assert_eq!(user.hear(PATIENCE).await.as_deref(), Some(greeting));
    let asked = user.ask("I am tired of waiting", PATIENCE).await;
    let answer = "How long have you been tired of waiting?";
    assert_eq!(asked.as_deref(), Some(answer));
    // What is said while it is not there is answered by the next one, which knows the broker by its parts.
    program.0.kill().unwrap();
    program.0.wait().unwrap();
    user.say("My work is hard").await.unwrap();
    let _next = application_of_a_cluster(&python, &url, "talk");
    let heard = user.hear(PATIENCE).await;
    assert_eq!(heard.as_deref(), Some("Tell me more about your work."));
    process.assert_running();
}

/// `vumi conformance` on a command; its exit code, verdicts, and everything it said.
async fn examined(arguments: &[&str], worker: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut examining = command(folder.path());
    examining
        .args(["conformance", "--format", "json"])
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("VUMI_EXAMPLE", example());
    if !worker.is_empty() {
        examining.arg("--").args(worker);
    }
    let output = tokio::task::spawn_blocking(move || examining.output().unwrap());
    let output = output.await.unwrap();
    let verdicts = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), verdicts, said(&output))
}

fn with(verdicts: &[Value], outcome: &str) -> Vec<String> {
    let these = verdicts.iter().filter(|v| v["outcome"] == outcome);
    these
        .map(|v| v["case"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_meets_every_demand() {
    let Some(url) = vhost("conformance-example").await else {
        return;
    };
    let Some(python) = python() else { return };
    let app = example().join("app.py");
    let worker = [python.to_str().unwrap(), app.to_str().unwrap()];
    let role = ["--as", "application", "--broker", &url, "--strict"];
    let (code, verdicts, said) = examined(&role, &worker).await;
    assert_eq!(code, Some(0), "{said}");
    // There is no text on which it fails; the one below knows one.
    assert_eq!(with(&verdicts, "skipped"), ["handling-fails"], "{said}");
    let passed = with(&verdicts, "passed").len();
    assert_eq!(passed, verdicts.len() - 1, "{said}");
    assert!(passed >= 24, "{said}");
    let failing = ["-c", WITH_A_FLAW];
    let worker = [&[python.to_str().unwrap()][..], &failing].concat();
    let only = ["--only", "handling-fails", "--failing", "break"];
    let (code, verdicts, said) = examined(&[&role[..], &only].concat(), &worker).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(with(&verdicts, "passed"), ["handling-fails"], "{said}");
}

/// The application of the example with a text on which it fails.
const WITH_A_FLAW: &str = "
import os, sys
sys.path.insert(0, os.environ['VUMI_EXAMPLE'])
import app, vumi_worker

def answer(message):
    if message['content'] == 'break':
        raise KeyError(message['content'])
    return app.answer(message)

vumi_worker.Application('listener', answer).run()
";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_runs_already_is_checked_as_far_as_that_goes() {
    let Some(url) = vhost("conformance-attached").await else {
        return;
    };
    let Some(python) = python() else { return };
    let _running = application(&python, &url, "survey");
    let named = ["--as", "application", "--transport-name", "survey"];
    let running = ["--broker", &url, "--strict", "--running"];
    let (code, verdicts, said) = examined(&[&named[..], &running].concat(), &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let skipped = with(&verdicts, "skipped");
    assert!(skipped.contains(&"confirm-before-ack".to_owned()), "{said}");
    let passed = with(&verdicts, "passed");
    for case in [
        "flow",
        "messages",
        "replies",
        "sessions",
        "order",
        "garbage",
        "odd-fields",
        "no-id",
    ] {
        assert!(passed.contains(&case.to_owned()), "{case}: {said}");
    }
    // What others use is not touched.
    let (code, _, said) = examined(&[&named[..], &["--broker", &url]].concat(), &["true"]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("use a transport name"), "{said}");
}

/// A check of nothing is not passed, and what cannot be checked is said at once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_check_is_an_error() {
    let nowhere = ["--as", "application", "--broker", "amqp://127.0.0.1:1/"];
    let ends = async |arguments: &[&str], worker: &[&str]| {
        let (code, _, said) = examined(&[&nowhere[..], arguments].concat(), worker).await;
        (code, said)
    };
    let (code, said) = ends(&[], &[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("which worker?"), "{said}");
    let (code, said) = ends(&["--running", "--only", "window"], &[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing would be checked"), "{said}");
    let (code, said) = ends(&["--only", "handling-fails"], &["true"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--failing"), "{said}");
    let (code, said) = ends(&["--running"], &["true"]).await;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = ends(&["--patience", "0s"], &["true"]).await;
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = ends(&[], &["no-such-program"]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no-such-program"), "{said}");
    let (code, said) = ends(&[], &["true"]).await;
    assert_eq!(code, Some(3), "nobody is at the broker's address: {said}");
}

/// The broker's URL as people write it: without a virtual host, and with the slash alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_url_without_a_virtual_host_is_that_of_the_first_one() {
    let Some(url) = vhost("conformance-rooted").await else {
        return;
    };
    let Some(python) = python() else { return };
    let app = example().join("app.py");
    let worker = [python.to_str().unwrap(), app.to_str().unwrap()];
    let (place, _) = url.rsplit_once('/').unwrap();
    for url in [place.to_owned(), format!("{place}/")] {
        let named = ["--as", "application", "--transport-name", "rooted"];
        let only = ["--broker", &url, "--only", "queues"];
        let (code, verdicts, said) = examined(&[named, only].concat(), &worker).await;
        assert_eq!(code, Some(0), "{url}: {said}");
        assert_eq!(with(&verdicts, "passed"), ["queues"], "{said}");
    }
}

/// A worker that does not start is one finding and no reason for advice.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_start_is_said_once() {
    let Some(url) = vhost("conformance-absent").await else {
        return;
    };
    let role = ["--as", "application", "--broker", &url, "--patience", "2s"];
    let (code, verdicts, said) = examined(&role, &["false"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(with(&verdicts, "failed"), ["queues"], "{said}");
    assert_eq!(verdicts.len(), 1, "{said}");
    assert!(said.contains("never consumed its queues"), "{said}");
    // Whatever the level of the case.
    let only = ["--only", "opening"];
    let (code, _, said) = examined(&[&role[..], &only].concat(), &["false"]).await;
    assert_eq!(code, Some(1), "{said}");
}

/// Each flaw of an application, and the cases that find it.
const APPLICATIONS: &[(&str, &[&str])] = &[
    ("none", &[]),
    (
        "acks-first",
        &["confirm-before-ack", "publication-troubles"],
    ),
    (
        "no-confirms",
        &["confirm-before-ack", "publication-troubles"],
    ),
    ("not-mandatory", &["unroutable-kept"]),
    ("no-prefetch", &["window"]),
    ("does-not-bind", &["queues"]),
    ("transient", &["messages"]),
    ("forgets-in-reply-to", &["flow", "replies"]),
    ("leaves-out-fields", &["flow", "messages"]),
    ("loses-transport-metadata", &["metadata"]),
    ("loses-helper-metadata", &["helper-metadata"]),
    ("answers-the-end", &["sessions"]),
    ("random-ids", &["equal-ids"]),
    ("skips-repeats", &["crash-before-ack", "broker-away"]),
    ("forgets-the-third", &["order"]),
    ("dies-of-garbage", &["garbage"]),
    ("drops-garbage", &["garbage-parked", "odd-fields-parked"]),
    ("trusts-fields", &["odd-fields", "no-id"]),
    ("long-properties", &["odd-fields"]),
    ("writes-infinity", &["odd-fields"]),
    ("dies-of-errors", &["handling-fails"]),
    ("drops-failures", &["handling-fails"]),
    ("stays-away", &["broker-away"]),
    ("does-not-stop", &["stop-bounded"]),
];

/// Each flaw of a transport, and the cases that find it.
const TRANSPORTS: &[(&str, &[&str])] = &[
    ("none", &[]),
    ("acks-first", &["confirm-before-ack"]),
    ("acks-twice", &["outcomes"]),
    ("dies-of-errors", &["handling-fails"]),
    ("drops-failures", &["handling-fails"]),
    ("tells-nothing", &["flow", "outcomes"]),
    ("names-another", &["flow", "outcomes"]),
    ("names-no-peer-id", &["messages"]),
    ("random-ids", &["equal-ids"]),
];

/// Demands that each flaw is found by the cases meant for it, and a worker without any by none.
async fn flaws_are_found(role: &str, flaws: &[(&str, &[&str])]) {
    let Some(python) = python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/flawed_worker.py");
    let mut wrong = Vec::new();
    for (flaw, cases) in flaws {
        let Some(url) = vhost(&format!("flawed-{role}-{flaw}")).await else {
            return;
        };
        let worker = [
            python.to_str().unwrap(),
            script.to_str().unwrap(),
            role,
            flaw,
        ];
        let mut arguments = vec!["--as", role, "--broker", &url, "--strict"];
        arguments.extend(["--failing", "fail"]);
        // What is missing is missing on purpose.
        let patience = if cases.is_empty() { "20s" } else { "5s" };
        arguments.extend(["--patience", patience]);
        arguments.extend(cases.iter().flat_map(|case| ["--only", case]));
        let (code, verdicts, said) = examined(&arguments, &worker).await;
        let failed = with(&verdicts, "failed");
        let found = failed == *cases && code == Some(i32::from(!cases.is_empty()));
        if !found || verdicts.is_empty() {
            wrong.push(format!("{flaw}: exit code {code:?}, {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flaw_of_an_application_is_found() {
    flaws_are_found("application", APPLICATIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_flaw_of_a_transport_is_found() {
    flaws_are_found("transport", TRANSPORTS).await;
}

/// However it ends, the worker that it started ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_leaves_nothing_behind() {
    let Some(url) = vhost("conformance-interrupted").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", pid.display());
    let mut examining = command(folder.path())
        .args(["conformance", "--as", "application", "--broker", &url, "--"])
        .args(["sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let worker: u32 = wait_for("its worker runs", PATIENCE, || async {
        let text = std::fs::read_to_string(&pid).map_err(|e| e.to_string())?;
        text.trim().parse().map_err(|_| text)
    })
    .await;
    let interrupt = examining.id().to_string();
    let told = Command::new("kill").args(["-INT", &interrupt]).status();
    assert!(told.unwrap().success());
    let status = tokio::task::spawn_blocking(move || examining.wait().unwrap());
    assert_eq!(status.await.unwrap().code(), Some(130));
    wait_for("its worker is gone", Duration::from_secs(5), || async {
        let state = std::fs::read_to_string(format!("/proc/{worker}/stat"));
        match state {
            Err(_) => Ok(()),
            Ok(state) => Err(state),
        }
    })
    .await;
}
