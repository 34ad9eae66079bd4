//! `kubectl vumi` where there are pods: what needs a kubelet. The rest is tested before an API server alone.

use crate::operator::{ECHO, TELNET, call, campaign};
use serde_json::{Value, json};
use std::process::Output;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use vumi_e2e::{Namespace, Operator, RabbitMq};

/// Exit code, output and errors.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Exact figures, looking at messages and logs, new pods, a stop, and the queues that are left.
#[test]
fn the_plugin_taps_logs_restarts_drains_and_purges() {
    let here = Namespace::create("plugin");
    let operator = Operator::start(&[&here]);
    here.client();
    here.rabbitmq(RabbitMq::V4_0);
    campaign(&here);
    here.settled(&[TELNET, ECHO], 240);
    let (code, out, err) = said(&here.vumi(&["status"]));
    assert_eq!(code, Some(0), "{out}{err}");
    let doctor = ["doctor", "--operator-namespace", &operator.place.name];
    // The workers may have found the broker before the operator does.
    let out = here.wait_for("the doctor finds no fault", 60, || {
        let (code, out, err) = said(&here.vumi(&doctor));
        (code == Some(0)).then_some(out.clone()).ok_or(out + &err)
    });
    assert!(out.contains("the operator reads it"), "{out}");

    counts(&here);
    taps(&here);
    logs(&here);
    restarts(&here);
    drains_and_purges(&here);
}

/// Exact figures of both workers, from their pods, while somebody talks to them.
fn counts(here: &Namespace) {
    let (mut ann, _) = call(here, TELNET);
    let (talk, ended) = mpsc::channel::<()>();
    let talking = std::thread::spawn(move || {
        let pause = Duration::from_millis(100);
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            ann.send("counted");
        }
    });
    here.wait_for("figures of both workers", 60, || {
        let (_, out, err) = said(&here.vumi(&["status", "--live", "--format", "json"]));
        let all: Vec<Value> = serde_json::from_str(&out).unwrap_or_default();
        let counted = |worker: &Value| {
            let live = &worker["live"];
            let moves = |rate: &str| live[rate].as_f64().is_some_and(|rate| rate > 0.0);
            let depths = ["queued", "waiting", "inFlight", "parked"];
            let known = depths.iter().all(|name| live[name].is_u64());
            let known = known && live["oldestSeconds"].is_f64() && live["notes"] == json!([]);
            known && moves("inPerSecond") && moves("outPerSecond")
        };
        let done = all.len() == 2 && all.iter().all(counted);
        done.then_some(()).ok_or(out + &err)
    });
    drop(talk);
    talking.join().unwrap();
    let (code, out, err) = said(&here.vumi(&["status", TELNET, "--live"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("QUEUE  WAIT  FLIGHT"), "{out}");
}

fn taps(here: &Namespace) {
    let (mut ann, _) = call(here, TELNET);
    for (more, shown) in [(None, false), (Some("--show"), true)] {
        let mut tap = vec!["tap", TELNET, "--kind", "inbound"];
        tap.extend(more);
        let mut tap = here.follow(&tap);
        // It hears what is said once its queue is bound.
        let mut lines = (0..60).filter_map(|_| {
            ann.send("a secret word");
            tap.overhear(1)
        });
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("the tap hears nothing"));
        assert!(line.contains("inbound"), "{line}");
        assert_eq!(line.contains("a secret word"), shown, "{line}");
    }
    let (code, out, err) = said(&here.vumi(&["tap", TELNET, "nothing.of.it", "--count", "1"]));
    assert_eq!(code, Some(2), "{out}{err}");
}

fn logs(here: &Namespace) {
    let old = here.pods(ECHO)[0].name.clone();
    let (code, out, err) = said(&here.vumi(&["logs", ECHO, "--tail", "3"]));
    assert_eq!(code, Some(0), "{err}");
    assert!((1..=3).contains(&out.lines().count()), "{out}");
    assert!(out.lines().all(|line| line.starts_with('{')), "{out}");
    // A pod that comes later is followed as well.
    let mut follow = here.follow(&["logs", ECHO, "--follow"]);
    let first = follow.hear(30).unwrap();
    assert!(first.starts_with(&format!("{old} ")), "{first}");
    here.succeed(&["delete", "pod", &old, "--wait=false"], "");
    let later = (0..2000).find_map(|_| {
        let line = follow.hear(60).unwrap();
        (!line.starts_with(&old)).then_some(line)
    });
    assert!(later.is_some_and(|line| line.starts_with("application-echo-")));
    here.settled(&[ECHO], 120);
}

fn restarts(here: &Namespace) {
    let before = here.pods(ECHO);
    let (code, out, err) = said(&here.vumi(&["restart", ECHO, "--wait", "--timeout", "3m"]));
    assert_eq!(code, Some(0), "{out}{err}");
    let after = here.pods(ECHO);
    assert!(
        after
            .iter()
            .all(|pod| before.iter().all(|old| old.uid != pod.uid)),
        "{before:?} {after:?}"
    );
    here.settled(&[ECHO], 120);
    // Server-side apply takes nothing back: no pod is replaced once more, and there is no difference.
    let (code, out, err) = said(&here.vumi(&["diff", ECHO]));
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert_eq!(here.pods(ECHO), after);
}

fn drains_and_purges(here: &Namespace) {
    let (mut ann, _) = call(here, TELNET);
    let (code, out, err) = said(&here.vumi(&["drain", ECHO, "--timeout", "3m"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("no pod is left"), "{out}");
    assert!(here.pods(ECHO).is_empty());
    let (_, out, err) = said(&here.vumi(&["status", ECHO, "--live"]));
    assert!(out.contains("no pod runs"), "{out}{err}");
    // What comes meanwhile waits, and is answered afterwards.
    ann.send("patience");
    let (code, out, err) = said(&here.vumi(&["drain", ECHO, "--undo"]));
    assert_eq!(code, Some(0), "{out}{err}");
    let heard = (0..10).find_map(|_| ann.hear(180).filter(|line| !line.is_empty()));
    assert_eq!(heard.as_deref(), Some("patience"));
    let (code, _, err) = said(&here.vumi(&["purge", ECHO, "--yes"]));
    assert_eq!(code, Some(2), "{err}");
    // Through a port of the broker's pod, since nothing of this machine reaches the Service.
    let echo = here.get(ECHO).unwrap();
    here.succeed(&["delete", ECHO], "");
    here.wait_for("the pods are gone", 120, || {
        let pods = here.pods(ECHO);
        pods.is_empty().then_some(()).ok_or(format!("{pods:?}"))
    });
    let manifest = json!({
        "apiVersion": echo["apiVersion"], "kind": echo["kind"],
        "metadata": {"name": "echo"}, "spec": echo["spec"],
    });
    let file = std::env::temp_dir().join(format!("{}.json.yaml", here.name));
    std::fs::write(&file, manifest.to_string()).unwrap();
    let path = file.to_string_lossy();
    let purged = here.wait_for("the queues are gone", 60, || {
        let (code, out, err) =
            said(&here.vumi(&["purge", "-f", &path, "--yes", "--with-messages"]));
        // The broker may not have seen yet that nobody reads them.
        match code {
            Some(0) => Ok(out),
            _ => Err(format!("{out}{err}")),
        }
    });
    assert!(purged.contains("telnet.inbound"), "{purged}");
    // What it published to is the transport's.
    assert!(!purged.contains("telnet.outbound"), "{purged}");
    let (code, out, err) = said(&here.vumi(&["purge", "-f", &path, "--yes"]));
    let _ = std::fs::remove_file(&file);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(err.contains("there is no queue of these"), "{err}");
}
