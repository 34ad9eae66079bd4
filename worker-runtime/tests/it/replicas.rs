//! Two replicas of one worker on one RabbitMQ: replies reach the replica that holds the request (R19), a standby takes
//! over when the holder of the fence dies (R2), and order per user survives it.

use crate::harness::amqp::{Amqp, reply_to};
use crate::harness::campaign::Campaign;
use crate::harness::http;
use crate::harness::telnet::{Telnet, greeted};
use crate::harness::{PATIENCE, vhost, wait_for};
use std::time::{Duration, Instant};

const ANSWER: Duration = Duration::from_secs(20);

fn api(port: u16) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: api}}\n\
         spec:\n  httpApi: {{replyExpected: true}}\n  http: {{host: 127.0.0.1, port: {port}, requestTimeout: 50s}}\n"
    )
}

fn telnet(port: u16) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: telnet}}\n\
         spec:\n  telnet: {{host: 127.0.0.1, port: {port}}}\n"
    )
}

fn echo(connector: &str) -> String {
    format!(
        "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {{name: echo}}\n\
         spec:\n  echo: {{}}\n  transportName: {connector}\n"
    )
}

fn ports() -> (u16, u16) {
    let port = || vumi_testkit::free_port().unwrap();
    (port(), port())
}

async fn listens(port: u16) {
    wait_for("the HTTP API listens", PATIENCE, || async {
        let health = http::get(port, "/health", ANSWER).await;
        health.map_err(|error| format!("{error:?}"))
    })
    .await;
}

/// Both replicas take replies from one queue, so about half of them must travel to the other replica.
#[tokio::test(flavor = "multi_thread")]
async fn replies_reach_the_replica_that_holds_the_request() {
    let Some(url) = vhost("replicas-api").await else {
        return;
    };
    let campaign = Campaign::empty();
    let (one, two) = ports();
    let _one = campaign.worker_with("one", &api(one), &url);
    let _two = campaign.worker_with("two", &api(two), &url);
    let _echo = campaign.worker_with("echo", &echo("api"), &url);
    listens(one).await;
    listens(two).await;
    let asked = (0..40).flat_map(|n| [(one, n), (two, n)]).map(|(port, n)| {
        tokio::spawn(async move {
            let path = format!("/?content=to-{port}-{n}&from_addr={n}&to_addr=2");
            let answer = http::get(port, &path, PATIENCE).await.unwrap();
            assert_eq!(answer, (200, format!("to-{port}-{n}")));
        })
    });
    for request in asked.collect::<Vec<_>>() {
        request.await.unwrap();
    }
}

/// The holder dies with its request open: whoever gets the reply says that nobody can have it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_whose_holder_is_gone_is_answered_by_a_nack() {
    let Some(url) = vhost("replicas-gone").await else {
        return;
    };
    let campaign = Campaign::empty();
    let (one, two) = ports();
    let mut holder = campaign.worker_with("one", &api(one), &url);
    let _other = campaign.worker_with("two", &api(two), &url);
    listens(one).await;
    listens(two).await;
    let application = Amqp::connect(&url).await;
    let request = tokio::spawn(async move {
        http::get(one, "/?content=hold&from_addr=1&to_addr=2", PATIENCE).await
    });
    wait_for("the request is on the broker", PATIENCE, || async {
        match application.ready("api.inbound").await {
            Some(1) => Ok(()),
            other => Err(format!("{other:?} messages")),
        }
    })
    .await;
    let message = application.next("api.inbound", ANSWER).await;
    let named = message["transport_metadata"]["vumi_holder"]
        .as_str()
        .unwrap();
    assert!(named.starts_with("api.reply."), "its holder: {named}");
    assert!(application.exists(named).await);
    holder.kill();
    assert!(
        request.await.unwrap().is_err(),
        "the caller lost its server"
    );
    wait_for("the broker notices", ANSWER, || async {
        match application.exists(named).await {
            false => Ok(()),
            true => Err("the reply queue is still there".into()),
        }
    })
    .await;
    let reply = reply_to(&message, "too-late", "nobody is there");
    application
        .publish("api.outbound", reply.to_string().as_bytes())
        .await;
    let event = application.next("api.event", PATIENCE).await;
    assert_eq!(event["event_type"], "nack");
    assert_eq!(event["user_message_id"], "too-late");
    let fate = &event["helper_metadata"]["fate"];
    assert_eq!(fate["code"], "reply.holder_gone", "{event}");
    assert_eq!(fate["class"], "ours");
}

/// A second telnet replica stands by for the fence on the replies; its users are served as soon as the first is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_transport_takes_over_after_a_kill() {
    let Some(url) = vhost("replicas-telnet").await else {
        return;
    };
    let campaign = Campaign::empty();
    let (one, two) = ports();
    let _echo = campaign.worker_with("echo", &echo("telnet"), &url);
    let mut first = campaign.worker_with("one", &telnet(one), &url);
    let mut user = greeted(one, PATIENCE).await;
    let _second = campaign.worker_with("two", &telnet(two), &url);
    wait_for("the second replica listens", PATIENCE, || async {
        Telnet::connect(two).await.map_err(|e| e.to_string())
    })
    .await;
    assert_eq!(user.ask("one", ANSWER).await.as_deref(), Some("one"));
    first.kill();
    assert_eq!(user.hear(ANSWER).await, None, "its users are cut off");
    greeted(two, PATIENCE).await;
}

/// One user keeps talking while the application's holder is killed and a standby goes on, several times.
#[tokio::test(flavor = "multi_thread")]
async fn order_per_user_survives_a_takeover() {
    const LINES: usize = 1200;
    let Some(url) = vhost("replicas-echo").await else {
        return;
    };
    let campaign = Campaign::empty();
    let (port, _) = ports();
    let _transport = campaign.worker_with("telnet", &telnet(port), &url);
    let mut holder = campaign.worker_with("echo-0", &echo("telnet"), &url);
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(greeted(port, PATIENCE).await);
    }
    let mut standby = campaign.worker_with("echo-1", &echo("telnet"), &url);
    let talking: Vec<_> = users
        .into_iter()
        .map(|mut user| {
            tokio::spawn(async move {
                // Up to 50 lines are under way, so that a kill hits messages in every state.
                let (mut said, mut heard) = (0, 0);
                while heard < LINES {
                    while said < LINES && said < heard + 50 {
                        user.say(&format!("line {said}")).await.unwrap();
                        said += 1;
                    }
                    let line = user.hear(PATIENCE).await;
                    assert_eq!(line, Some(format!("line {heard}")), "in order, none lost");
                    heard += 1;
                }
            })
        })
        .collect();
    let mut kills = 0;
    let began = Instant::now();
    while !talking.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(began.elapsed() < PATIENCE * 2, "the conversations end");
        tokio::time::sleep(Duration::from_millis(700)).await;
        if kills < 4 {
            kills += 1;
            holder.kill();
            let name = format!("echo-{}", kills + 1);
            let next = campaign.worker_with(&name, &echo("telnet"), &url);
            holder = std::mem::replace(&mut standby, next);
        }
    }
    for user in talking {
        user.await.unwrap();
    }
    assert!(kills > 0);
}
