//! `vumi tap`: what it shows of a connector, and that it takes nothing away.

use super::*;
use crate::harness::shared_broker;
use std::io::BufRead;
use vumi_testkit::forwarder::Forwarder;

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
async fn a_tap_says_that_the_broker_was_away() {
    let (Some(server), Some(url)) = (shared_broker().await, vhost("tap_away").await) else {
        return;
    };
    let campaign = Campaign::empty();
    let proxy = Forwarder::to(&[server.port()]).await.unwrap();
    let through = proxy.through(&url);
    for (format, line) in [
        (
            "table",
            "… the broker was away; what passed meanwhile is not shown",
        ),
        ("json", r#"{"interrupted":true}"#),
    ] {
        let name = format!("tap_{format}");
        let arguments = ["tap", "t", "--broker", &through, "--format", format];
        let seen = Process::start(campaign.path(), &name, &arguments);
        says(&seen, FOLLOWING).await;
        proxy.cut();
        says(&seen, line).await;
    }
}

/// As in a pod, where the input ends with the connection of whoever looks on.
#[tokio::test(flavor = "multi_thread")]
async fn a_tap_ends_with_its_input_if_it_is_told_so() {
    let (campaign, _run) = echo(&[]).await;
    let mut tap = command(campaign.path())
        .args(["tap", "--until-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(tap.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), FOLLOWING);
    // No message passes, and it goes on until the input ends.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(tap.try_wait().unwrap().is_none());
    drop(tap.stdin.take());
    let ended = wait_for("the tap to end", PATIENCE, || {
        let ended = tap.try_wait().unwrap();
        async move { ended.ok_or_else(|| "not yet".to_owned()) }
    });
    assert_eq!(ended.await.code(), Some(0));
}
