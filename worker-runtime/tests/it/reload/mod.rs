//! Every reload case with real workers on the embedded broker: the test plays the application, the callers and the
//! person who edits the manifests.

mod callers;
mod played;

use async_trait::async_trait;
use played::{Application, ask, ask_until_taken, publish};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use vumi::registry;
use vumi_api::manifest::load;
use vumi_api::{Resource, Target};
use vumi_core::backoff::Backoff;
use vumi_core::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use vumi_core::broker::{Access, Broker, QueueSpec, Subscribe};
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
