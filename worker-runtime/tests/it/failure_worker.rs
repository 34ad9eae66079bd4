//! A transport that leaves its retries to a failure worker of Vumi, over RabbitMQ and Redis. The test stands in for that worker:
//! it takes failure records, and publishes messages again as Vumi's does.

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::operator::Operator;
use crate::harness::{PATIENCE, http, vhost, wait_for};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_http::{Answer, Head, Reply, Request, Service, StatusCode};
use vumi_testkit::redis::{Append, Options, Redis};

const FAILURES: &str = "net.failures";

/// A provider that fails the first requests for each text; all of them for `never`.
struct Provider {
    fails: usize,
    /// Requests by text.
    asked: Mutex<BTreeMap<String, usize>>,
}

struct Door(Arc<Provider>);

#[async_trait]
impl Service for Door {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        let text = request
            .head
            .query
            .split('&')
            .find_map(|p| p.strip_prefix("msg="));
        let text = text.unwrap_or_default().to_owned();
        let count = {
            let mut asked = self.0.asked.lock().unwrap();
            let count = asked.entry(text.clone()).or_default();
            *count += 1;
            *count
        };
        let status = match count <= self.0.fails || text == "never" {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::OK,
        };
        Answer::text(status, "").into()
    }
}

impl Provider {
    async fn open(fails: usize) -> (Arc<Self>, u16) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = Mutex::default();
        let provider = Arc::new(Self { fails, asked });
        let door = Arc::new(Door(Arc::clone(&provider)));
        http::serve(socket, door, CancellationToken::new());
        (provider, port)
    }

    fn asked(&self, text: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.get(text).copied().unwrap_or_default()
    }
}

/// What Vumi's failure worker does with a failure that is temporary, once its time has come.
async fn give_back(amqp: &Amqp, failure: &Value) {
    assert_eq!(failure["message_type"], "failure_message");
    assert_eq!(failure["failure_code"], "temporary", "{failure}");
    let mut message = failure["message"].clone();
    let before = message["retry_metadata"]["retries"].as_u64();
    message["retry_metadata"] = json!({"retries": before.unwrap_or(0) + 1, "delay": 1});
    amqp.publish("net.outbound", message.to_string().as_bytes())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_worker_of_vumi_makes_the_later_attempts_and_without_it_they_are_made_here() {
    let options = Options {
        append: Append::EverySec,
        ..Options::default()
    };
    let Some(url) = vhost("failure-worker").await else {
        return;
    };
    let Some(redis) = Redis::start_or_skip(options).await else {
        return;
    };
    let (provider, port) = Provider::open(2).await;
    let campaign = Campaign::empty();
    let listens = vumi_testkit::free_port().unwrap();
    campaign.write(
        "net.yaml",
        &format!(
            "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {{name: net}}\nspec:\n  \
             mediafone: {{url: \"http://127.0.0.1:{port}/send\", username: u, \
             password: {{secretKeyRef: {{name: s, key: p}}}}}}\n  \
             http: {{host: 127.0.0.1, port: {listens}}}\n  legacyFailures: true\n  \
             retry: {{external: true, maxAttempts: 4, backoff: {{initial: 50ms, max: 100ms}}}}\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{p: x}}\n"
        ),
    );
    let store = redis.url(0);
    let mut process = campaign.run(&["--broker", &url, "--redis", &store, "--admin", "none"]);
    let operator = Operator::new(&campaign, &[]);
    let amqp = Amqp::connect(&url).await;
    campaign.until_ready(&[], "transport/net").await;
    amqp.tap("told", "net.event").await;
    let send = async |id: &str| {
        let message = user_message(id, "net", id);
        amqp.publish("net.outbound", message.to_string().as_bytes())
            .await;
    };
    let told = async || amqp.next("told", PATIENCE).await;

    // No failure worker has ever been here.
    send("one").await;
    let event = told().await;
    assert_eq!(
        (&event["event_type"], provider.asked("one")),
        (&json!("ack"), 3)
    );
    assert!(!amqp.exists(FAILURES).await, "its reader declares it");

    // It is there.
    amqp.copy(FAILURES, FAILURES).await;
    send("two").await;
    for attempt in 1..=2 {
        let failure = amqp.next(FAILURES, PATIENCE).await;
        assert_eq!(provider.asked("two"), attempt);
        // Until its delivery is acknowledged it is in hand.
        wait_for("an audit finds it", PATIENCE, || async {
            let audit = operator.done(&["ledger", "audit"])?;
            let said = "net: 1 messages are with Vumi's failure worker";
            audit.contains(said).then_some(()).ok_or(audit)
        })
        .await;
        give_back(&amqp, &failure).await;
    }
    let event = told().await;
    assert_eq!(event["user_message_id"], "two");
    assert_eq!(
        (&event["event_type"], provider.asked("two")),
        (&json!("ack"), 3)
    );
    let why = operator.done(&["why", "two"]).unwrap();
    assert!(why.contains("given to Vumi's failure worker"), "{why}");

    // Its attempts are counted, and the last is told as one that failed for good.
    send("never").await;
    for _ in 1..4 {
        let failure = amqp.next(FAILURES, PATIENCE).await;
        give_back(&amqp, &failure).await;
    }
    let last = amqp.next(FAILURES, PATIENCE).await;
    assert_eq!(last["failure_code"], "permanent", "{last}");
    let event = told().await;
    assert_eq!(event["event_type"], "nack", "{event}");
    let fate = &event["helper_metadata"]["fate"];
    assert_eq!((&fate["attempt"], provider.asked("never")), (&json!(4), 4));

    // Sent again by a person it has all its attempts again.
    let said = operator.done(&["ledger", "resend", "never", "--yes"]);
    assert_eq!(said.unwrap(), "1 sent again\n");
    let failure = amqp.next(FAILURES, PATIENCE).await;
    assert_eq!(failure["failure_code"], "temporary", "{failure}");
    assert_eq!(failure["message"]["retry_metadata"], Value::Null);
    assert_eq!(process.stop(PATIENCE).await, Some(143));
}
