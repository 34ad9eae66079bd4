//! `kubectl vumi purge`: what it deletes and what it keeps.

use crate::place::{NAMESPACE, Place, TELNET};
use serde_json::json;
use std::time::Duration;
use vumi_core::broker::amqp::{AmqpConfig, Remover};
use vumi_testkit::rabbitmq::RabbitMq;

/// A connection that makes queues and looks at them.
struct Queues(lapin::Connection);

impl Queues {
    async fn open(rabbit: &RabbitMq) -> Self {
        let url = rabbit.url("/");
        let connected = lapin::Connection::connect(&url, Default::default());
        Self(connected.await.unwrap())
    }

    async fn declare(&self, queue: &str, kind: &str) {
        let channel = self.0.create_channel().await.unwrap();
        let mut arguments = lapin::types::FieldTable::default();
        let kind = lapin::types::AMQPValue::LongString(kind.into());
        arguments.insert("x-queue-type".into(), kind);
        let options = lapin::options::QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let declared = channel.queue_declare(queue.into(), options, arguments);
        declared.await.unwrap();
    }

    async fn publish(&self, queue: &str) {
        let channel = self.0.create_channel().await.unwrap();
        let confirm = channel.confirm_select(Default::default());
        confirm.await.unwrap();
        let published = channel.basic_publish(
            "".into(),
            queue.into(),
            Default::default(),
            b"kept",
            Default::default(),
        );
        published.await.unwrap().await.unwrap();
    }

    async fn depth(&self, queue: &str) -> Option<u32> {
        let channel = self.0.create_channel().await.unwrap();
        let options = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let asked = channel.queue_declare(queue.into(), options, Default::default());
        asked.await.ok().map(|queue| queue.message_count())
    }
}

pub async fn takes_what_nobody_needs(place: &Place, rabbit: &RabbitMq) {
    let queues = Queues::open(rabbit).await;
    // One of them takes no conditions.
    queues.declare("telnet.outbound", "quorum").await;
    queues.declare("telnet.outbound.parked", "classic").await;
    queues.declare("telnet.inbound", "classic").await;
    queues.publish("telnet.outbound.parked").await;
    let depth = async |queue: &str| queues.depth(queue).await;
    // The echo application is still there and may work.
    let asked = place.vumi(&["purge", "application/echo", "--yes"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.err.contains("kubectl vumi drain"), "{asked:?}");
    // The transport is drained. Nothing happens unless it is said.
    let asked = place.vumi(&["purge", "transport/telnet"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.out.contains("would be deleted"), "{asked:?}");
    assert!(
        asked.out.contains("would be kept: messages wait"),
        "{asked:?}"
    );
    assert_eq!(depth("telnet.outbound").await, Some(0));
    let asked = place.vumi(&["purge", "transport/telnet", "--yes"]);
    assert_eq!(asked.code, 1, "{asked:?}");
    assert_eq!(depth("telnet.outbound").await, None);
    assert_eq!(depth("telnet.outbound.parked").await, Some(1));
    // Its resource is gone, and the manifest says what is meant.
    place.delete(TELNET);
    place.until("the transport to be gone", |place| {
        place.get(TELNET).is_null()
    });
    let manifest = place.telnet();
    // Its last pod has messages in hand.
    let pod = place.pod("last", "Transport", "telnet");
    let arguments = ["purge", "-f", &manifest, "--yes", "--with-messages"];
    let asked = place.vumi(&arguments);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.err.contains("transport/telnet still has pods"),
        "{asked:?}"
    );
    assert_eq!(depth("telnet.outbound.parked").await, Some(1));
    // It has ended for good, and only stands there.
    place.merge(
        &format!("{pod}/status"),
        &json!({"status": {"phase": "Failed"}}),
    );
    let asked = place.vumi(&arguments);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert_eq!(depth("telnet.outbound.parked").await, None);
    // The rows of what was lost are named.
    let close = "vumi ledger close --transport telnet";
    assert!(asked.err.contains(close), "{asked:?}");
    // What it publishes to is the application's.
    assert_eq!(depth("telnet.inbound").await, Some(0));
    let asked = place.vumi(&["purge", "-f", &manifest, "--yes"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(
        asked.err.contains("there is no queue of these"),
        "{asked:?}"
    );
    assert!(!asked.out.contains(NAMESPACE));
}

/// A worker without pods reads nothing, and needs what waits for it.
pub async fn leaves_what_others_are_to_read(place: &Place, rabbit: &RabbitMq) {
    let queues = Queues::open(rabbit).await;
    let resource = |name: &str, namespace: &str| {
        json!({
            "apiVersion": "vumi.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"echo": {}, "transportName": "telnet", "suspend": true},
        })
    };
    let secret = |vhost: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "vumi-broker", "namespace": "elsewhere"},
            "stringData": {"connection_string": rabbit.url(vhost)},
        })
    };
    let asked = place.vumi(&["drain", "application/echo", "--timeout", "60s"]);
    assert_eq!(asked.code, 0, "{asked:?}");
    place.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}));
    place.put(&secret("/"));
    place.put(&resource("echo2", NAMESPACE));
    place.put(&resource("echo3", "elsewhere"));
    let arguments = ["purge", "application/echo", "--yes", "--with-messages"];
    let kept = async |holder: &str| {
        let asked = place.vumi(&arguments);
        assert_eq!(asked.code, 1, "{asked:?}");
        assert!(asked.out.contains(&format!("kept: {holder}")), "{asked:?}");
        assert_eq!(queues.depth("telnet.inbound").await, Some(0));
    };
    kept("application/echo2 in campaign is to read it").await;
    let path = |namespace: &str, name: &str| {
        format!("/apis/vumi.dev/v1alpha1/namespaces/{namespace}/applications/{name}")
    };
    place.delete(&path(NAMESPACE, "echo2"));
    kept("application/echo3 in elsewhere is to read a queue of this name").await;
    // What has the same name in another virtual host is another queue.
    place.put(&secret("other"));
    let asked = place.vumi(&arguments);
    assert_eq!(asked.code, 0, "{asked:?}");
    assert_eq!(queues.depth("telnet.inbound").await, None);
}

/// Between a look and the deletion somebody may come.
pub async fn is_refused_by_the_broker_once_somebody_uses_a_queue(rabbit: &RabbitMq) {
    let queues = Queues::open(rabbit).await;
    let config = AmqpConfig::from_url(&rabbit.url("/")).unwrap();
    let mut remover = Remover::open(&config).await.unwrap();
    for kind in ["classic", "quorum"] {
        queues.declare(kind, kind).await;
        let channel = queues.0.create_channel().await.unwrap();
        let consumer = channel.basic_consume(
            kind.into(),
            "reader".into(),
            Default::default(),
            Default::default(),
        );
        let consumer = consumer.await.unwrap();
        assert_eq!(remover.delete(kind, true).await.unwrap(), None, "{kind}");
        let cancelled = channel.basic_cancel("reader".into(), Default::default());
        cancelled.await.unwrap();
        drop(consumer);
        queues.publish(kind).await;
        assert_eq!(remover.delete(kind, false).await.unwrap(), None, "{kind}");
        assert_eq!(queues.depth(kind).await, Some(1), "{kind}");
        // It hears a little later that nobody reads it any more.
        let mut gone = None;
        for _ in 0..50 {
            gone = remover.delete(kind, true).await.unwrap();
            if gone.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(gone, Some(1), "{kind}");
    }
    remover.close().await;
}
