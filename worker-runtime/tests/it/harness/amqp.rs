//! The test's own AMQP client: what any other program on the broker would see and do.

use futures::StreamExt;
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Connection and channel in confirm mode.
pub struct Amqp {
    connection: Connection,
    channel: Channel,
}

impl Amqp {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap()
    }

    /// Connects, if it can.
    pub async fn try_connect(url: &str) -> Result<Self, lapin::Error> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// Declares a durable queue with `arguments`.
    pub async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), options, arguments)
            .await
            .unwrap();
    }

    /// A queue that gets copies of everything published with `key`; it goes with the connection.
    pub async fn tap(&self, queue: &str, key: &str) {
        self.tap_of("vumi", queue, key).await;
    }

    /// The same, on another of Vumi's exchanges.
    pub async fn tap_of(&self, exchange: &str, queue: &str, key: &str) {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .unwrap();
        self.bind(exchange, queue, key).await;
    }

    /// A durable queue that gets copies of everything published with `key`, as a second consumer of it would.
    pub async fn copy(&self, queue: &str, key: &str) {
        self.declare(queue, FieldTable::default()).await;
        self.bind("vumi", queue, key).await;
    }

    /// Binds a queue to an exchange, which workers declare a little later than they listen.
    async fn bind(&self, exchange: &str, queue: &str, key: &str) {
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default();
        self.channel
            .exchange_declare(exchange.into(), ExchangeKind::Direct, durable, none.clone())
            .await
            .unwrap();
        let bind = QueueBindOptions::default();
        self.channel
            .queue_bind(queue.into(), exchange.into(), key.into(), bind, none)
            .await
            .unwrap();
    }

    /// Deletes a queue.
    pub async fn delete(&self, queue: &str) {
        self.channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .unwrap();
    }

    /// Messages ready in a queue; none if it does not exist. On a channel of its own, which a missing queue closes.
    pub async fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self.connection.create_channel().await.ok()?;
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .ok()?;
        Some(queue.message_count())
    }

    /// Whether a queue exists, be it someone else's alone.
    pub async fn exists(&self, queue: &str) -> bool {
        let channel = self.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asked = channel.queue_declare(queue.into(), passive, FieldTable::default());
        match asked.await.map_err(|error| error.kind().clone()) {
            Err(lapin::ErrorKind::ProtocolError(error)) => error.get_id() != 404,
            Err(other) => panic!("{queue}: {other:?}"),
            Ok(_) => true,
        }
    }

    /// Publishes a persistent message on exchange `vumi` and waits until a queue has it.
    pub async fn publish(&self, queue: &str, body: &[u8]) {
        assert!(
            self.offer(queue, body).await.unwrap(),
            "{queue} took no message"
        );
    }

    /// The same; whether a queue has it.
    pub async fn offer(&self, queue: &str, body: &[u8]) -> Result<bool, lapin::Error> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirmation = self
            .channel
            .basic_publish("vumi".into(), queue.into(), options, body, properties)
            .await?
            .await?;
        Ok(matches!(confirmation, Confirmation::Ack(None)))
    }

    /// The next message of a queue.
    pub async fn next(&self, queue: &str, limit: Duration) -> Value {
        super::wait_for(&format!("a message in {queue}"), limit, || async {
            self.take(queue).await.ok_or_else(|| "empty".to_owned())
        })
        .await
    }

    /// The first message of a queue, if there is one.
    pub async fn take(&self, queue: &str) -> Option<Value> {
        let options = BasicGetOptions { no_ack: true };
        let got = self
            .channel
            .basic_get(queue.into(), options)
            .await
            .unwrap()?;
        Some(serde_json::from_slice(&got.delivery.data).unwrap())
    }

    /// Consumes a queue with prefetch `window`: each body goes to `saw`, with whether the broker delivered it before, and
    /// is acknowledged afterwards, several at once. Nobody else consumes it meanwhile, not even an earlier reader whose
    /// connection has not ended yet: what that was given and did not read would come later.
    /// Ends with the connection, or after `silence` without a message.
    pub async fn consume(
        self,
        queue: &str,
        window: u16,
        silence: Duration,
        mut saw: impl FnMut(&[u8], bool),
    ) -> Result<(), lapin::Error> {
        self.channel
            .basic_qos(window, BasicQosOptions::default())
            .await?;
        let options = BasicConsumeOptions {
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let none = FieldTable::default();
        let mut consumer = self
            .channel
            .basic_consume(queue.into(), "observer".into(), options, none)
            .await?;
        let all = BasicAckOptions { multiple: true };
        let mut last = None;
        while let Ok(Some(delivery)) = tokio::time::timeout(silence, consumer.next()).await {
            let delivery = delivery?;
            saw(&delivery.data, delivery.redelivered);
            let tag = delivery.delivery_tag;
            last = Some(tag);
            if tag % u64::from(window / 5).max(1) == 0 {
                self.channel.basic_ack(tag, all).await?;
            }
        }
        if let Some(tag) = last {
            self.channel.basic_ack(tag, all).await?;
        }
        self.connection.close(200, "silence".into()).await
    }
}

/// A user message as any Vumi worker would write it.
pub fn user_message(id: &str, transport: &str, content: &str) -> Value {
    json!({
        "message_version": "20110921", "message_type": "user_message", "message_id": id,
        "timestamp": "2026-01-02 03:04:05.000006", "to_addr": "12345", "from_addr": "27820000001",
        "content": content, "session_event": null, "in_reply_to": null, "group": null, "provider": null,
        "transport_name": transport, "transport_type": "http_api", "transport_metadata": {},
        "helper_metadata": {}, "routing_metadata": {}, "from_addr_type": null, "to_addr_type": null,
    })
}

/// The reply of an application to `message`.
pub fn reply_to(message: &Value, id: &str, content: &str) -> Value {
    let mut reply = message.clone();
    reply["message_id"] = id.into();
    reply["in_reply_to"] = message["message_id"].clone();
    reply["content"] = content.into();
    reply["to_addr"] = message["from_addr"].clone();
    reply["from_addr"] = message["to_addr"].clone();
    reply["session_event"] = Value::Null;
    reply
}
