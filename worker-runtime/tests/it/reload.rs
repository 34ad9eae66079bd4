//! Every reload case with real workers on the embedded broker: the test plays the application, the callers and the
//! person who edits the manifests.

use async_trait::async_trait;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use vumi::registry;
use vumi_api::manifest::load;
use vumi_api::{Resource, Target};
use vumi_core::backoff::Backoff;
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{
    Access, Broker, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe,
    Subscription,
};
use vumi_core::engine::StopLimits;
use vumi_core::error::WorkError;
use vumi_core::message::UserMessage;
use vumi_core::secrets::Secrets;
use vumi_core::supervisor::engine::Registered;
use vumi_core::supervisor::services::{BrokerSource, NoState};
use vumi_core::supervisor::{Options, Restart, Supervisor};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two brokers, and which of them the campaign is on.
#[derive(Clone)]
struct Sites {
    brokers: [Arc<dyn Broker>; 2],
    current: Arc<Mutex<usize>>,
}

#[async_trait]
impl BrokerSource for Sites {
    fn identity(&self, _: &Resource) -> Result<String, WorkError> {
        Ok(format!("site {}", *self.current.lock().unwrap()))
    }

    async fn open(&self, _: &Resource) -> Result<Arc<dyn Broker>, WorkError> {
        Ok(Arc::clone(&self.brokers[*self.current.lock().unwrap()]))
    }
}

struct Campaign {
    supervisor: Arc<Supervisor>,
    sites: Sites,
}

impl Campaign {
    fn new(drain: Duration) -> Self {
        let open = || EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let sites = Sites {
            brokers: [open(), open()],
            current: Arc::default(),
        };
        let supervisor = Supervisor::new(
            Registered::new(registry::all()),
            sites.clone(),
            NoState,
            Arc::new(Secrets::default()),
            Arc::default(),
            Options {
                instance: "test-1".into(),
                system_id: "test".into(),
                limits: StopLimits {
                    drain,
                    flush: Duration::from_secs(2),
                    close: Duration::from_secs(1),
                },
                restart: Restart {
                    backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(30)),
                    ..Restart::default()
                },
                recheck: Duration::from_millis(200),
                outside: Default::default(),
                sweep: Duration::from_secs(60),
            },
        );
        Self { supervisor, sites }
    }

    fn broker(&self, site: usize) -> &Arc<dyn Broker> {
        &self.sites.brokers[site]
    }

    async fn apply(&self, documents: &[String]) -> BTreeMap<String, String> {
        let manifests = load(&[("set.yaml", documents.concat())], Target::Local);
        assert!(!manifests.has_errors(), "{:?}", manifests.findings);
        let resources = manifests.resources.into_iter().map(|l| l.resource);
        self.supervisor.apply(resources.collect()).await.not_applied
    }

    /// Applies in the background, and waits until the old intake is closed or the new worker runs: `began` says so.
    fn applying(&self, documents: &[String]) -> tokio::task::JoinHandle<BTreeMap<String, String>> {
        let other = Self {
            supervisor: Arc::clone(&self.supervisor),
            sites: self.sites.clone(),
        };
        let documents = documents.to_vec();
        tokio::spawn(async move { other.apply(&documents).await })
    }

    async fn ready(&self) {
        until("ready", async || {
            self.supervisor.ready().await.is_ok() && self.supervisor.listening().await.is_ok()
        })
        .await;
    }
}

fn telnet(name: &str, port: u16, clients: u32) -> String {
    document(
        "Transport",
        name,
        &format!("{{telnet: {{host: 127.0.0.1, port: {port}, maxClients: {clients}}}}}"),
    )
}

fn http(port: u16, seconds: u32, auth: &str) -> String {
    document(
        "Transport",
        "http",
        &format!(
            "{{httpApi: {{replyExpected: true}}, http: {{host: 127.0.0.1, port: {port}, requestTimeout: {seconds}s{auth}}}}}"
        ),
    )
}

fn echo(connector: &str, hold: u32) -> String {
    document(
        "Application",
        "echo",
        &format!("{{echo: {{}}, transportName: {connector}, holdLimit: {hold}s}}"),
    )
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: vumi.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn free_port() -> u16 {
    vumi_testkit::free_port().unwrap()
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The application, played by the test.
struct Application {
    inbox: Subscription,
    broker: Arc<dyn Broker>,
}

impl Application {
    async fn on(broker: &Arc<dyn Broker>, connector: &str) -> Self {
        let inbox = broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data(format!("{connector}.inbound")),
                prefetch: 100,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        Self {
            inbox,
            broker: Arc::clone(broker),
        }
    }

    /// The next message that has content.
    async fn next(&mut self) -> UserMessage {
        loop {
            let delivery = tokio::time::timeout(PATIENCE, self.inbox.deliveries.recv());
            let delivery = delivery
                .await
                .expect("a message in time")
                .expect("a message");
            self.inbox
                .acker
                .ack(delivery.generation, delivery.tag, false);
            let message = UserMessage::decode(&delivery.body).expect("readable");
            if message.content().is_some_and(|text| !text.is_empty()) {
                return message;
            }
        }
    }

    async fn reply(&self, to: &UserMessage, content: &str) {
        let reply = to.reply("application/test", 0, Some(content), false);
        let queue = format!("{}.outbound", to.transport_name().unwrap());
        publish(&self.broker, &queue, &reply).await;
    }
}

async fn publish(broker: &Arc<dyn Broker>, queue: &str, message: &UserMessage) {
    let receipt = broker
        .publish(Publication {
            exchange: EXCHANGE.into(),
            routing_key: queue.into(),
            body: message.encode(),
            message_id: None,
            class: PublicationClass::Data,
        })
        .await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
}

/// Asks the HTTP API; status and body. A refused connection fails the test.
fn ask(port: u16, content: &str) -> tokio::task::JoinHandle<(u16, String)> {
    let content = content.to_owned();
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("the connection is not refused");
        let request = format!(
            "GET /?content={content}&from_addr=27820000001&to_addr=12345 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer in time")
            .expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    })
}

/// Asks again while it is told to: a connection that was taken just before the intake closed gets a 503.
fn ask_until_taken(port: u16, content: &'static str) -> tokio::task::JoinHandle<(u16, String)> {
    tokio::spawn(async move {
        loop {
            match ask(port, content).await.expect("not refused") {
                (503, _) => tokio::time::sleep(Duration::from_millis(5)).await,
                answer => return answer,
            }
        }
    })
}

/// Reads until `wanted` has come; everything that was read.
async fn hear(stream: &mut TcpStream, wanted: &str) -> String {
    let mut heard = Vec::new();
    let listening = async {
        let mut bytes = [0; 1024];
        loop {
            let read = stream.read(&mut bytes).await.expect("readable");
            heard.extend_from_slice(&bytes[..read]);
            let text = String::from_utf8_lossy(&heard);
            if text.contains(wanted) {
                return text.into_owned();
            }
            assert!(read > 0, "ended without {wanted:?}: {text:?}");
        }
    };
    tokio::time::timeout(PATIENCE, listening)
        .await
        .expect(wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_http_requests_are_answered_and_new_ones_accepted_meanwhile() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    campaign.apply(&[http(port, 60, "")]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "http").await;
    let before = ask(port, "before");
    let held = application.next().await;

    let reload = campaign.applying(&[http(port, 61, "")]);
    // The old worker still holds its request; the new one takes others on the same port.
    let during = ask_until_taken(port, "during");
    let taken = application.next().await;
    assert_eq!(taken.content(), Some("during"));
    application.reply(&taken, "to during").await;
    assert_eq!(during.await.unwrap(), (200, "to during".into()));
    assert!(!reload.is_finished(), "the old worker waits for its reply");
    application.reply(&held, "to before").await;
    assert_eq!(before.await.unwrap(), (200, "to before".into()));
    assert!(reload.await.unwrap().is_empty());
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_while_a_worker_is_replaced_again_and_again() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    let set = |seconds| [http(port, seconds, ""), echo("http", 30)];
    campaign.apply(&set(60)).await;
    campaign.ready().await;
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            tokio::spawn(async move {
                let (mut answered, mut restarting) = (0, 0);
                for n in 0..60 {
                    let text = format!("c{caller}n{n}");
                    match ask(port, &text).await.expect("not refused") {
                        (200, body) if body == text => answered += 1,
                        // Its connection was taken just before the intake closed.
                        (503, _) => restarting += 1,
                        other => panic!("{text}: {other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (answered, restarting)
            })
        })
        .collect();
    for seconds in 61..67 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(campaign.apply(&set(seconds)).await.is_empty());
    }
    for caller in callers {
        let (answered, restarting) = caller.await.unwrap();
        assert_eq!(answered + restarting, 60);
        assert!(answered >= 50, "{restarting} of 60 were told to come again");
    }
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telnet_line_gets_its_answer_before_the_session_ends() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    campaign.apply(&[telnet("telnet", port, 10)]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "telnet").await;
    let mut old = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    old.write_all(b"question\r\n").await.unwrap();
    let question = application.next().await;

    let reload = campaign.applying(&[telnet("telnet", port, 11)]);
    // Who calls now is served by the new version while the old one waits for the answer. Before that the old one may take
    // the caller, or say goodbye.
    let holder = |message: &UserMessage| {
        let metadata = message.transport_metadata().cloned().unwrap_or_default();
        metadata["vumi_holder"].clone()
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut new, next) = loop {
        assert!(Instant::now() < deadline, "nobody new takes callers");
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let mut new = stream.expect("not refused");
        let _ = new.write_all(b"next question\r\n").await;
        tokio::select! {
            next = application.next() => {
                if holder(&next) != holder(&question) {
                    break (new, next);
                }
                application.reply(&next, "by the old one").await;
            }
            _ = hear(&mut new, "Goodbye") => {}
            // The old one took the caller and did not read on: the goodbye comes at its end.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    assert_eq!(next.content(), Some("next question"));
    application.reply(&next, "next answer").await;
    hear(&mut new, "next answer").await;
    assert!(!reload.is_finished(), "the old one still waits");
    application.reply(&question, "the answer").await;
    // Both may come in one piece.
    let heard = hear(&mut old, "Goodbye").await;
    assert!(heard.contains("the answer"), "{heard:?}");
    assert!(reload.await.unwrap().is_empty());
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_exchanged() {
    // Nobody answers the lines of this test.
    let campaign = Campaign::new(Duration::from_secs(1));
    let (one, two) = (free_port(), free_port());
    campaign
        .apply(&[telnet("a", one, 10), telnet("b", two, 10)])
        .await;
    campaign.ready().await;
    let mut a = Application::on(campaign.broker(0), "a").await;
    let mut b = Application::on(campaign.broker(0), "b").await;
    let say = async |port: u16, line: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("not refused");
        stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await
            .unwrap();
        stream
    };
    let _first = say(one, "to a").await;
    assert_eq!(a.next().await.content(), Some("to a"));
    campaign
        .apply(&[telnet("a", two, 10), telnet("b", one, 10)])
        .await;
    let _second = say(one, "to b").await;
    assert_eq!(b.next().await.content(), Some("to b"));
    let _third = say(two, "to a again").await;
    assert_eq!(a.next().await.content(), Some("to a again"));
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_build_leaves_the_old_one_running() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    campaign
        .apply(&[http(port, 60, ""), echo("http", 30)])
        .await;
    campaign.ready().await;
    assert_eq!(ask(port, "one").await.unwrap(), (200, "one".into()));
    // The new version needs a Secret that is not there.
    let auth = ", auth: {username: u, password: {secretKeyRef: {name: api, key: password}}}";
    let held = campaign
        .apply(&[http(port, 60, auth), echo("http", 31)])
        .await;
    assert_eq!(held.keys().collect::<Vec<_>>(), ["transport/http"]);
    assert_eq!(ask(port, "two").await.unwrap(), (200, "two".into()));
    let snapshots = campaign.supervisor.snapshots().await;
    let http_state = snapshots
        .iter()
        .find(|s| s.key == "transport/http")
        .unwrap();
    assert!(
        http_state.ready && http_state.why.contains("\"api\""),
        "{http_state:?}"
    );
    // With the Secret the edit takes effect, although nobody edits again.
    let secret = BTreeMap::from([("password".to_owned(), "hunter2".to_owned())]);
    campaign
        .supervisor
        .secrets_changed(BTreeMap::from([("api".to_owned(), secret)]))
        .await;
    until("the password is asked for", async || {
        ask(port, "three").await.unwrap().0 == 401
    })
    .await;
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_one_that_never_drains_is_bounded() {
    let campaign = Campaign::new(Duration::from_millis(300));
    let port = free_port();
    campaign.apply(&[http(port, 60, "")]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "http").await;
    let forgotten = ask(port, "forgotten");
    application.next().await;
    let began = Instant::now();
    assert!(campaign.apply(&[http(port, 61, "")]).await.is_empty());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let (status, _) = forgotten.await.unwrap();
    assert!(status >= 500, "told that there is no reply: {status}");
    let next = ask(port, "next");
    let message = application.next().await;
    application.reply(&message, "answered").await;
    assert_eq!(next.await.unwrap(), (200, "answered".into()));
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_in_flight_is_lost() {
    let campaign = Campaign::new(PATIENCE);
    let broker = Arc::clone(campaign.broker(0));
    campaign.apply(&[echo("t", 30)]).await;
    campaign.ready().await;
    let mut answers = broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data("t.outbound".into()),
            prefetch: 1000,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    let producer = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            for n in 0..2000 {
                let mut message =
                    UserMessage::new("telnet", Some("1"), Some(&format!("{}", n % 50)));
                message.set_transport_name("t");
                message.set_content(Some(&n.to_string()));
                publish(&broker, "t.inbound", &message).await;
                if n % 100 == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
    };
    let reloads = {
        async {
            for seconds in 31..37 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                assert!(campaign.apply(&[echo("t", seconds)]).await.is_empty());
            }
        }
    };
    let collect = async {
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        while seen.len() < 2000 {
            let delivery = tokio::time::timeout(PATIENCE, answers.deliveries.recv());
            let delivery = delivery
                .await
                .unwrap_or_else(|_| panic!("lost: only {} of 2000 came", seen.len()))
                .expect("open");
            answers.acker.ack(delivery.generation, delivery.tag, false);
            let message = UserMessage::decode(&delivery.body).unwrap();
            let content = message.content().unwrap_or_default().to_owned();
            let number: u32 = content.parse().unwrap();
            // A repeat has the same id, and first occurrences keep the order of their user.
            let id = ids
                .entry(content)
                .or_insert_with(|| message.message_id().to_owned());
            assert_eq!(id, message.message_id());
            if seen.insert(number) {
                let before = last.insert(message.to_addr().unwrap().to_owned(), number);
                assert!(
                    before.is_none_or(|before| before < number),
                    "{before:?} {number}"
                );
            }
        }
    };
    let ((), (), produced) = tokio::join!(collect, reloads, producer);
    produced.unwrap();
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_broker_address_moves_the_campaign_and_answers_what_is_held() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    let set = [http(port, 60, "")];
    campaign.apply(&set).await;
    campaign.ready().await;
    let mut first = Application::on(campaign.broker(0), "http").await;
    let held = ask(port, "held");
    let message = first.next().await;
    *campaign.sites.current.lock().unwrap() = 1;
    let mut second = Application::on(campaign.broker(1), "http").await;
    // The manifests are the same; the supervisor sees the new address by itself. New requests go to the new broker,
    // and the held one still gets its reply over the old.
    until("the old worker takes no more", async || {
        campaign.supervisor.describe_brokers().len() == 2
            && campaign.supervisor.listening().await.is_ok()
    })
    .await;
    let next = ask_until_taken(port, "next");
    let message_on_second = second.next().await;
    second.reply(&message_on_second, "over the new one").await;
    assert_eq!(next.await.unwrap(), (200, "over the new one".into()));
    first.reply(&message, "over the old one").await;
    assert_eq!(held.await.unwrap(), (200, "over the old one".into()));
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_cannot_listen_hurts_nobody_and_recovers() {
    let campaign = Campaign::new(PATIENCE);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port();
    let port = free_port();
    campaign
        .apply(&[
            telnet("blocked", taken, 10),
            http(port, 60, ""),
            echo("http", 30),
        ])
        .await;
    until("the neighbours listen", async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    until("the neighbours work", async || {
        ask(port, "fine").await.unwrap() == (200, "fine".into())
    })
    .await;
    let why = campaign
        .supervisor
        .listening()
        .await
        .expect_err("one cannot listen");
    assert!(why.contains("transport/blocked"), "{why}");
    drop(other);
    until("it listens", async || {
        campaign.supervisor.listening().await.is_ok()
    })
    .await;
    let status =
        vumi_core::supervisor::status::ProcessStatus::of(&campaign.supervisor, "t", "1").await;
    let json: Value = serde_json::to_value(&status).unwrap();
    assert_eq!(json["workers"].as_array().unwrap().len(), 3);
    campaign.supervisor.shutdown().await;
}
