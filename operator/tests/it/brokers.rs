//! Listening to real brokers and reading them.

use crate::cluster::until;
use crate::world::{NAMESPACE, World};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use vumi_api::Kind;
use vumi_core::broker::amqp::{AmqpBroker, AmqpConfig};
use vumi_core::broker::{
    Access, Broker, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe, Subscription,
};
use vumi_core::message::TransportStatus;
use vumi_operator::brokers::{Link, Place, keep};
use vumi_operator::engine::claims;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::store::Key;
use vumi_plan::Unread;
use vumi_testkit::rabbitmq::{Options, RabbitMq, Version};

/// A broker with its management API; none where it is not installed.
pub async fn rabbit(version: Version) -> Option<RabbitMq> {
    let options = Options {
        management: true,
        ..Options::default()
    };
    RabbitMq::start_or_skip(version, options).await
}

/// A worker, as far as its broker and the operator see it.
pub struct Worker {
    broker: Arc<dyn Broker>,
    connector: String,
    instance: String,
    reads: Vec<Subscription>,
}

impl Worker {
    /// One that reads the outbound queue of a connector.
    pub async fn start(url: &str, connector: &str, pod: &str) -> Self {
        let broker = AmqpBroker::connect(AmqpConfig::from_url(url).unwrap());
        let read = broker
            .subscribe(Subscribe {
                queue: QueueSpec::Data(format!("{connector}.outbound")),
                prefetch: 10,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await;
        Self {
            broker,
            connector: connector.to_owned(),
            instance: format!("{pod}-1"),
            reads: vec![read],
        }
    }

    /// It says the same and handles as many messages all the time, until the task is ended.
    pub fn at_work(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let mut read = self.reads.pop().unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            for turn in 0u64.. {
                tokio::select! {
                    _ = tick.tick() => {}
                    Some(raw) = read.deliveries.recv() => {
                        read.acker.ack(raw.generation, raw.tag, false);
                        continue;
                    }
                }
                if turn % 20 == 0 {
                    self.say("provider", "ok", "provider_answers").await;
                }
                let publication = Publication {
                    exchange: EXCHANGE.into(),
                    routing_key: format!("{}.outbound", self.connector),
                    body: Bytes::from_static(b"{}"),
                    message_id: None,
                    class: PublicationClass::Data,
                };
                self.broker.publish(publication).await.confirmation().await;
            }
        })
    }

    /// It says how a component is.
    pub async fn say(&self, component: &str, status: &str, reason: &str) {
        let message = json!({
            "message_type": "status_event",
            "component": component,
            "status": status,
            "type": reason,
            "message": format!("{component} is {status}"),
            "details": {"kind": "Transport", "name": self.connector, "instance": self.instance},
        });
        let publication = Publication {
            exchange: EXCHANGE.into(),
            routing_key: TransportStatus::routing_key(&self.connector),
            body: Bytes::from(message.to_string()),
            message_id: None,
            class: PublicationClass::Telemetry,
        };
        self.broker.publish(publication).await.confirmation().await;
    }
}

/// A resource with this broker; its link.
fn resource(world: &World, name: &str, broker: &Value) -> (Key, Arc<Link>) {
    let place = Place {
        namespace: NAMESPACE.into(),
        broker: serde_json::from_value(broker.clone()).unwrap(),
    };
    let key = Key {
        kind: Kind::Transport,
        namespace: NAMESPACE.into(),
        name: name.into(),
    };
    let object = json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "generation": 1},
        "spec": {"telnet": {"port": 9010}, "broker": broker},
    });
    let kind = ObjectKind::of(Kind::Transport);
    let path = kind.path(NAMESPACE, name);
    world.server.put(&path, object);
    world.tell(kind, &path);
    claims::note(&world.engine, &key);
    (key, world.engine.brokers.open(&place))
}

/// The resource is gone.
fn remove(world: &World, key: &Key) {
    let kind = ObjectKind::of(Kind::Transport);
    let held = world.engine.stores.family(key).resource.unwrap();
    let stores = &world.engine.stores;
    stores.remove(kind, key, &key.name, &held.uid);
    claims::note(&world.engine, key);
}

/// A broker by the Secret of this name, which is made.
fn broker(world: &World, secret: &str, url: &str, management: Option<&str>) -> Value {
    let data = json!({"connection_string": encoded(url)});
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{secret}");
    let object = json!({"metadata": {"name": secret}, "data": data});
    world.server.put(&path, object);
    let mut broker = json!({"secretRef": {"name": secret}});
    if let Some(url) = management {
        broker["management"] = json!({"url": url});
    }
    broker
}

fn encoded(text: &str) -> Value {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .encode(text)
        .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_read_and_workers_are_heard() {
    for version in [Version::V4_0, Version::V3_10] {
        let Some(rabbit) = rabbit(version).await else {
            return;
        };
        let world = World::new().await;
        let url = rabbit.url("/");
        let place = broker(&world, "first", &url, Some(&rabbit.management_url()));
        let (key, link) = resource(&world, "t", &place);
        let task = tokio::spawn(keep(Arc::clone(&world.engine)));
        let worker = Worker::start(&url, "t", "transport-t-0").await;
        until("a reading that sees the consumer", || {
            let (broker, _) = link.broker();
            let queue = broker.queues.get("t.outbound").copied().unwrap_or_default();
            broker.unread.is_none() && queue.consumers == Some(1)
        })
        .await;
        let (broker, _) = link.broker();
        let queue = broker.queues["t.outbound"];
        assert_eq!((queue.ready, queue.unacked), (0, Some(0)));
        assert_eq!((queue.arriving, queue.handled), (Some(0.0), Some(0.0)));
        let address = format!("127.0.0.1:{}/", rabbit.port());
        assert_eq!(broker.address.as_deref(), Some(address.as_str()));
        // It was looked at for that.
        assert_eq!(world.engine.queue.next().await, key);
        // A report is told to whom it concerns.
        let held = world.engine.stores.family(&key).resource.unwrap();
        let own = vumi_operator::engine::spec::read(&key, &held).unwrap();
        let now = || world.engine.clock.now();
        worker.say("provider", "down", "provider_unreachable").await;
        until("the report", || {
            !link.reports("t", &own, &[], now()).is_empty()
        })
        .await;
        let reports = link.reports("t", &own, &[], now());
        assert_eq!(reports[0].reason, "provider_unreachable");
        // A connector that came later is heard too.
        let (_, other) = resource(&world, "later", &place);
        let late = Worker::start(&url, "later", "transport-later-0").await;
        let mut heard = false;
        for _ in 0..100 {
            late.say("provider", "ok", "provider_answers").await;
            heard = !other.reports("later", &own, &[], now()).is_empty();
            if heard {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(heard);
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_of_two_names_is_one_and_two_of_one_name_are_two() {
    let Some(first) = rabbit(Version::V4_0).await else {
        return;
    };
    let Some(second) = rabbit(Version::V4_0).await else {
        return;
    };
    let world = World::new().await;
    let by_name = first.url("/").replace("127.0.0.1", "localhost");
    let (_, a) = resource(&world, "a", &broker(&world, "a", &first.url("/"), None));
    let (_, b) = resource(&world, "b", &broker(&world, "b", &by_name, None));
    let (_, c) = resource(&world, "c", &broker(&world, "c", &second.url("/"), None));
    let task = tokio::spawn(keep(Arc::clone(&world.engine)));
    let identities = || [&a, &b, &c].map(|link| link.identity());
    until("all of them to be known", || {
        identities().iter().all(Option::is_some)
    })
    .await;
    let [a, b, c] = identities().map(Option::unwrap);
    assert_eq!(a, b);
    assert_ne!(a, c);
    // Both call themselves the same.
    let name = |cluster: &str| cluster.split(" at ").next().unwrap().to_owned();
    assert_eq!(name(&a.cluster), name(&c.cluster));
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_tag_is_told_so_and_consumers_are_counted_all_the_same() {
    let Some(rabbit) = rabbit(Version::V4_0).await else {
        return;
    };
    rabbit.add_user("plain", "secret", &[]).await.unwrap();
    let world = World::new().await;
    let url = rabbit.url_as("plain", "secret", "/");
    let place = broker(&world, "first", &url, Some(&rabbit.management_url()));
    let (_, link) = resource(&world, "t", &place);
    resource(&world, "late", &place);
    let _worker = Worker::start(&url, "t", "transport-t-0").await;
    let task = tokio::spawn(keep(Arc::clone(&world.engine)));
    let consumers = |queue: &str| link.broker().0.queues.get(queue)?.consumers;
    until("the refusal, and the consumer", || {
        let (broker, _) = link.broker();
        matches!(&broker.unread, Some(Unread::Forbidden(why)) if why.contains("monitoring"))
            && consumers("t.outbound") == Some(1)
    })
    .await;
    assert_eq!(link.broker().0.queues["t.outbound"].unacked, None);
    // Nobody reads a queue that is not there yet.
    assert_eq!(consumers("late.outbound"), Some(0));
    let _late = Worker::start(&url, "late", "transport-late-0").await;
    until("the other consumer", || {
        consumers("late.outbound") == Some(1)
    })
    .await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_refuses_the_secret_is_no_broker_that_is_away() {
    let Some(rabbit) = rabbit(Version::V4_0).await else {
        return;
    };
    let world = World::new().await;
    let url = rabbit.url_as("guest", "planted-value", "/");
    let (_, link) = resource(&world, "t", &broker(&world, "first", &url, None));
    let task = tokio::spawn(keep(Arc::clone(&world.engine)));
    until("the sentence", || {
        matches!(&link.broker().0.unread, Some(Unread::Refused(why))
            if why.contains("refuses us") && why.contains("in the Secret first"))
    })
    .await;
    let said = format!("{:?}", link.broker().0);
    assert!(!said.contains("planted"), "{said}");
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_named_without_its_password() {
    let world = World::new().await;
    let port = vumi_testkit::free_port().unwrap();
    let url = format!("amqp://planted:planted-value@127.0.0.1:{port}/campaign");
    let (key, link) = resource(&world, "t", &broker(&world, "first", &url, None));
    let task = tokio::spawn(keep(Arc::clone(&world.engine)));
    let named = format!("the broker 127.0.0.1:{port}/campaign cannot be reached: ");
    until("the sentence", || {
        matches!(&link.broker().0.unread, Some(Unread::Broker(why))
            if why.starts_with(&named) && why.contains("the Secret first names the right host"))
    })
    .await;
    let said = format!("{:?}", link.broker().0);
    assert!(!said.contains("planted"), "{said}");
    let metrics = world.engine.metrics.render();
    let series = format!(
        "vumi_operator_broker_reads_total{{broker=\"127.0.0.1:{port}/campaign\",management=\"\",outcome=\"connection\",secret=\"campaign/first\"}}"
    );
    assert!(metrics.contains(&series), "{metrics}");
    assert!(!metrics.contains("planted"), "{metrics}");
    // Whoever does not use it any more leaves nothing behind.
    remove(&world, &key);
    until("its metrics to be gone", || {
        !world.engine.metrics.render().contains(&port.to_string())
    })
    .await;
    task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_with_the_same_credentials_share_a_session() {
    let Some(rabbit) = rabbit(Version::V4_0).await else {
        return;
    };
    let tags = ["monitoring"];
    rabbit.add_user("other", "secret", &tags).await.unwrap();
    let world = World::new().await;
    let management = rabbit.management_url();
    let found = [
        ("a", rabbit.url("/")),
        ("b", rabbit.url("/")),
        ("c", rabbit.url_as("other", "secret", "/")),
    ]
    .map(|(name, url)| {
        let place = broker(&world, name, &url, Some(&management));
        resource(&world, name, &place)
    });
    let task = tokio::spawn(keep(Arc::clone(&world.engine)));
    until("all of them to be read", || {
        let mut links = found.iter().map(|(_, link)| link);
        links.all(|link| link.broker().0.unread.is_none())
    })
    .await;
    // A session has a row, named by the Secret of its first link.
    let rows = || {
        let text = world.engine.metrics.render();
        let up = text
            .lines()
            .filter(|line| line.starts_with("vumi_operator_broker_up{"));
        up.map(str::to_owned).collect::<Vec<_>>()
    };
    let is_of = |name: &str| {
        let label = format!("secret=\"{NAMESPACE}/{name}\"");
        rows().iter().any(|row| row.contains(&label))
    };
    assert_eq!(rows().len(), 2, "{:?}", rows());
    assert!(is_of("c") && is_of("a") != is_of("b"), "{:?}", rows());
    // What a worker says reaches the link that listens to it, and no other.
    let (first, second) = match is_of("a") {
        true => (&found[0], &found[1]),
        false => (&found[1], &found[0]),
    };
    let said = |(key, link): &(Key, Arc<Link>), connector: &str| {
        let held = world.engine.stores.family(key).resource.unwrap();
        let own = vumi_operator::engine::spec::read(key, &held).unwrap();
        let now = world.engine.clock.now();
        !link.reports(connector, &own, &[], now).is_empty()
    };
    let name = second.0.name.clone();
    let url = rabbit.url("/");
    let worker = Worker::start(&url, &name, &format!("transport-{name}-0")).await;
    let mut heard = false;
    for _ in 0..100 {
        worker.say("provider", "ok", "provider_answers").await;
        heard = said(second, &name);
        if heard {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(heard && !said(first, &name));
    // Without the first one, the other has a session of its own.
    remove(&world, &first.0);
    let (_, readings) = second.1.broker();
    until("the other to be read by itself", || {
        let (broker, now) = second.1.broker();
        is_of(&name) && now > readings + 1 && broker.unread.is_none()
    })
    .await;
    assert!(!is_of(&first.0.name), "{:?}", rows());
    assert_eq!(second.1.identity(), found[2].1.identity());
    task.abort();
}
