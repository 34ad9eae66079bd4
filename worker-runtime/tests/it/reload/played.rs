//! The application and the callers, played by the test.

use super::PATIENCE;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use vumi_core::broker::{
    Access, Broker, Confirmation, EXCHANGE, Publication, PublicationClass, QueueSpec, Subscribe,
    Subscription,
};
use vumi_core::message::UserMessage;

/// The application, played by the test.
pub(super) struct Application {
    inbox: Subscription,
    broker: Arc<dyn Broker>,
}

impl Application {
    pub(super) async fn on(broker: &Arc<dyn Broker>, connector: &str) -> Self {
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
    pub(super) async fn next(&mut self) -> UserMessage {
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

    pub(super) async fn reply(&self, to: &UserMessage, content: &str) {
        let reply = to.reply("application/test", 0, Some(content), false);
        let queue = format!("{}.outbound", to.transport_name().unwrap());
        publish(&self.broker, &queue, &reply).await;
    }
}

pub(super) async fn publish(broker: &Arc<dyn Broker>, queue: &str, message: &UserMessage) {
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
pub(super) fn ask(port: u16, content: &str) -> JoinHandle<(u16, String)> {
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
pub(super) fn ask_until_taken(port: u16, content: &'static str) -> JoinHandle<(u16, String)> {
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
pub(super) async fn hear(stream: &mut TcpStream, wanted: &str) -> String {
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
