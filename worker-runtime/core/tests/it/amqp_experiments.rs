//! What RabbitMQ does that decided where waiting messages are kept: in a journal, and not in queues whose messages expire
//! into others.

use crate::amqp::{channel, vhost};
use lapin::BasicProperties;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use std::time::{Duration, Instant};
use vumi_testkit::rabbitmq::Version;

/// A queue of retries, and the queue to which a message goes when its time is over.
struct Retries {
    _connection: lapin::Connection,
    channel: lapin::Channel,
}

impl Retries {
    async fn declare(url: &str) -> Self {
        let (connection, channel) = channel(url).await;
        let text = |value: &str| AMQPValue::LongString(value.into());
        let mut over = FieldTable::default();
        over.insert("x-dead-letter-exchange".into(), text(""));
        over.insert("x-dead-letter-routing-key".into(), text("work"));
        for (queue, arguments) in [("work", FieldTable::default()), ("retries", over)] {
            let declared = QueueDeclareOptions::durable();
            let declared = channel.queue_declare(queue.into(), declared, arguments);
            declared.await.expect("queue");
        }
        Self {
            _connection: connection,
            channel,
        }
    }

    /// Publishes as carefully as a publisher can: persistent, mandatory, confirmed.
    async fn publish(&self, body: &str, expires: Duration) {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_expiration(expires.as_millis().to_string().into());
        let published = self.channel.basic_publish(
            "".into(),
            "retries".into(),
            options,
            body.as_bytes(),
            properties,
        );
        let confirmed = published.await.expect("published").await;
        let confirmed = confirmed.expect("confirmed");
        assert!(matches!(confirmed, lapin::Confirmation::Ack(None)), "taken");
    }

    async fn get(&self, queue: &str) -> Option<Vec<u8>> {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true });
        got.await.expect("get").map(|got| got.delivery.data.clone())
    }

    /// The next message of `work`, and how long it took.
    async fn next(&self, since: Instant) -> (Vec<u8>, Duration) {
        loop {
            if let Some(body) = self.get("work").await {
                return (body, since.elapsed());
            }
            assert!(since.elapsed() < Duration::from_secs(60), "nothing comes");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_second_waits_behind_one_of_four_in_a_queue_that_expires() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let retries = Retries::declare(&url).await;
        let began = Instant::now();
        retries.publish("four", Duration::from_secs(4)).await;
        retries.publish("one", Duration::from_secs(1)).await;
        let (first, _) = retries.next(began).await;
        let (second, after) = retries.next(began).await;
        assert_eq!((&first[..], &second[..]), (&b"four"[..], &b"one"[..]));
        assert!(after >= Duration::from_secs(4), "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_message_is_gone_when_the_queue_it_expires_to_is_away() {
    for version in [Version::V3_10, Version::V4_0] {
        let Some(url) = vhost(version, None).await else {
            return;
        };
        let retries = Retries::declare(&url).await;
        let delete = retries
            .channel
            .queue_delete("work".into(), QueueDeleteOptions::default());
        delete.await.expect("deleted");
        retries
            .publish("confirmed", Duration::from_millis(100))
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let again = retries.channel.queue_declare(
            "work".into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        );
        again.await.expect("queue");
        tokio::time::sleep(Duration::from_secs(1)).await;
        for queue in ["work", "retries"] {
            assert_eq!(retries.get(queue).await, None, "{queue}");
        }
    }
}
