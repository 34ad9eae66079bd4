//! Two replicas of one worker on one RabbitMQ: replies reach the replica that holds the request (R19), a standby takes
//! over when the holder of the fence dies (R2), and order per user survives it.

use crate::harness::amqp::{Amqp, reply_to};
use crate::harness::campaign::Campaign;
use crate::harness::http;
use crate::harness::process::Process;
use crate::harness::telnet::{Telnet, greeted};
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::Value;
use std::time::{Duration, Instant};
use vumi_testkit::redis::{self, Redis};

const ANSWER: Duration = Duration::from_secs(20);
/// Less than a replica that is told to stop waits for answers.
const AT_ONCE: Duration = Duration::from_secs(10);

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

/// Callers of the second of two telnet replicas, and the application whose replies the first one reads.
struct Roll {
    _campaign: Campaign,
    application: Amqp,
    first: Process,
    _second: Process,
    /// Of the first replica: as long as it has no answer, that one does not end by itself.
    waiting: (Telnet, Value),
    callers: Vec<(Telnet, Value)>,
    /// Replies so far, for ids and texts.
    said: usize,
}

impl Roll {
    /// Two replicas, the second of which starts while the first is the reader; `more` are arguments for both.
    async fn begins(url: &str, more: &[&str]) -> Self {
        let campaign = Campaign::empty();
        let (one, two) = ports();
        let application = Amqp::connect(url).await;
        let start = |name: &str, port| {
            campaign.place(name, &telnet(port));
            campaign.alone(["worker", "--manifests"], name, url, more)
        };
        let first = start("one", one);
        let waiting = caller(&application, one, "waits").await;
        let second = start("two", two);
        let mut callers = Vec::new();
        for n in 0..3 {
            callers.push(caller(&application, two, &format!("caller {n}")).await);
        }
        Self {
            _campaign: campaign,
            application,
            first,
            _second: second,
            waiting,
            callers,
            said: 0,
        }
    }

    /// Says so many things to each caller, one after the other; what they are to hear.
    async fn reply(&mut self, each: usize) -> Vec<(usize, String)> {
        let mut said = Vec::new();
        for _ in 0..each {
            for (n, (_, message)) in self.callers.iter().enumerate() {
                let text = format!("reply {}", self.said);
                let reply = reply_to(message, &text, &text).to_string();
                let publish = self
                    .application
                    .publish("telnet.outbound", reply.as_bytes());
                publish.await;
                said.push((n, text));
                self.said += 1;
            }
        }
        said
    }

    /// Every caller hears what was said, in order, once.
    async fn heard(&mut self, said: &[(usize, String)]) {
        for (n, text) in said {
            let heard = self.callers[*n].0.hear(AT_ONCE).await;
            assert_eq!(heard.as_ref(), Some(text), "caller {n}");
        }
        for (telnet, _) in &mut self.callers {
            assert_eq!(telnet.hear(Duration::from_millis(300)).await, None);
        }
    }

    /// One reply to each caller, which is heard at once; how long the slowest one took.
    async fn round(&mut self) -> Duration {
        let began = Instant::now();
        let said = self.reply(1).await;
        for (n, text) in &said {
            let heard = self.callers[*n].0.hear(AT_ONCE).await;
            assert_eq!(heard.as_ref(), Some(text), "caller {n}");
        }
        began.elapsed()
    }
}

/// A caller who has said something, and the message that it made.
async fn caller(application: &Amqp, port: u16, line: &str) -> (Telnet, Value) {
    let telnet = wait_for("a replica listens", PATIENCE, || async {
        Telnet::connect(port).await.map_err(|e| e.to_string())
    });
    let mut telnet = telnet.await;
    telnet.say(line).await.unwrap();
    wait_for("the replica has declared its queues", PATIENCE, || async {
        let ready = application.ready("telnet.inbound").await;
        ready.ok_or_else(|| "there is no queue yet".to_owned())
    })
    .await;
    loop {
        let message = application.next("telnet.inbound", ANSWER).await;
        if message["content"] == line {
            return (telnet, message);
        }
    }
}

/// A roll: the second replica takes callers while the first still reads the replies, and then drains. Nobody waits for
/// the end of that.
#[tokio::test(flavor = "multi_thread")]
async fn callers_of_a_new_replica_are_answered_while_the_old_one_drains() {
    let Some(url) = vhost("replicas-roll").await else {
        return;
    };
    let mut roll = Roll::begins(&url, &[]).await;
    let mut took = Vec::new();
    for _ in 0..5 {
        took.push(roll.round().await);
    }
    roll.first.signal("TERM");
    roll.first.expect_end();
    for _ in 0..5 {
        took.push(roll.round().await);
    }
    took.sort();
    println!("a reply to each of three callers took {took:?}");
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    // The old one ends among replies, and the new one reads the rest.
    let before = roll.reply(20).await;
    let answer = reply_to(&roll.waiting.1, "the last", "the last").to_string();
    let publish = roll
        .application
        .publish("telnet.outbound", answer.as_bytes());
    publish.await;
    let after = roll.reply(40).await;
    roll.heard(&[before, after].concat()).await;
    let last = roll.waiting.0.hear(AT_ONCE).await;
    assert_eq!(last.as_deref(), Some("the last"), "it drains");
    assert_eq!(roll.first.ends(PATIENCE).await.code(), Some(143));
    roll.round().await;
}

/// The replica that reads the replies is killed among them: those to callers of the other one all arrive, in order, once.
#[tokio::test(flavor = "multi_thread")]
async fn replies_to_callers_of_another_replica_survive_the_reader() {
    let Some(url) = vhost("replicas-reader").await else {
        return;
    };
    let mut roll = Roll::begins(&url, &[]).await;
    roll.round().await;
    let before = roll.reply(60).await;
    roll.first.kill();
    let after = roll.reply(60).await;
    roll.heard(&[before, after].concat()).await;
    roll.round().await;
}

/// An application that does not bring back who holds the session: the store knows, and without one the sender is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_lost_the_name_of_its_holder_is_looked_up() {
    let options = redis::Options::default();
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let store = redis.url(0);
    for (name, more) in [
        ("replicas-nameless", &["--redis", &store][..]),
        ("replicas-nameless-none", &[]),
    ] {
        let Some(url) = vhost(name).await else {
            return;
        };
        let mut roll = Roll::begins(&url, more).await;
        for (_, message) in &mut roll.callers {
            let metadata = message["transport_metadata"].as_object_mut().unwrap();
            assert!(metadata.remove("vumi_holder").is_some());
        }
        if !more.is_empty() {
            roll.round().await;
            let said = roll.reply(5).await;
            roll.heard(&said).await;
            continue;
        }
        let said = roll.reply(1).await;
        for _ in &said {
            let event = roll.application.next("telnet.event", PATIENCE).await;
            let fate = &event["helper_metadata"]["fate"];
            assert_eq!(fate["code"], "reply.no_client", "{event}");
        }
    }
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
