//! `vumi doctor`: what it finds wrong with a broker, a store and processes.

use super::*;

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
    let (campaign, run_of_one) = echo(&[]).await;
    let ended = run(campaign.path(), &["doctor", "--redis", &redis.url(3)]);
    let text = said(&ended);
    assert_eq!(ended.status.code(), Some(0), "{text}");
    for part in [
        "we may write and run scripts",
        "its clock and ours are",
        "process echo: its worker is ready",
        "durability",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    wait_for("the process counts its worker", PATIENCE, || async {
        let log = run_of_one.log();
        match log.contains("1 worker of echo on embedded") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
}
