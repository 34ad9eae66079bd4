//! `telnet`: a line-based TCP server, one session per connection. Every line is a message, every outbound message is
//! written to the connection whose address it names.

mod clients;
mod codec;
mod peer;
mod session;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use clients::{Client, Clients};
pub(crate) use peer::TelnetPeer;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use vumi_api::transports::Telnet;
use vumi_core::codes;
use vumi_core::conformance::Fixture;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Actor, FailureClass, SessionEvent, UserMessage};
use vumi_core::outcome::Refusal;
use vumi_core::reasons::{self, Reason};
use vumi_core::status::{StatusLevel, StatusReport};
use vumi_core::worker::{Input, Listener, Output, Traffic, Worker, WorkerContext, WorkerType};

/// What the transport itself says to a user.
mod notice {
    pub(super) const BUSY: &[u8] = b"Busy, please try again.\r\n";
    pub(super) const REFUSED: &[u8] = b"This message was not accepted.\r\n";
    pub(super) const IDLE: &[u8] = b"Closed because nothing was typed. Goodbye.\r\n";
    pub(super) const TOO_LONG: &[u8] = b"This line is too long and was dropped.\r\n";
    pub(super) const NOT_TEXT: &[u8] = b"This line is not UTF-8 text and was dropped.\r\n";
    pub(super) const GOODBYE: &[u8] = b"The service is closing this connection. Goodbye.\r\n";
}

pub(crate) struct Def;

struct TelnetServer {
    config: Telnet,
    cx: Arc<WorkerContext>,
    clients: Arc<Clients>,
    shared: OnceLock<Arc<Shared>>,
    /// Connections, until the end of their session is published.
    connections: TaskTracker,
    /// Connections whose lines are still accepted.
    intake: TaskTracker,
}

/// What all sessions use.
struct Shared {
    cx: Arc<WorkerContext>,
    clients: Arc<Clients>,
    to_addr: String,
    transport_type: String,
    idle_timeout: Duration,
    max_line: usize,
    places: Arc<Semaphore>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = Telnet;

    async fn build(config: Telnet, cx: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(line_server(config, cx))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: telnet}\nspec:\n  telnet: {host: 127.0.0.1, port: {port}}\n",
            peer: Some(|port| Box::new(TelnetPeer::new(port))),
        }
    }
}

/// The server as it is, for this type and for types that begin as a line protocol.
pub(crate) fn line_server(config: Telnet, cx: Arc<WorkerContext>) -> Arc<dyn Worker> {
    Arc::new(TelnetServer {
        config,
        cx,
        clients: Arc::default(),
        shared: OnceLock::new(),
        connections: TaskTracker::new(),
        intake: TaskTracker::new(),
    })
}

impl TelnetServer {
    fn shared(&self, listener: &Listener) -> Result<Arc<Shared>, WorkError> {
        let config = &self.config;
        let address = listener.local_addr().map_err(|e| listen_failed(&e))?;
        let shared = self.shared.get_or_init(|| {
            let places = config.max_clients.unwrap_or(1000) as usize;
            let max_line = config.max_line.map_or(4096, |size| size.0);
            Arc::new(Shared {
                cx: Arc::clone(&self.cx),
                clients: Arc::clone(&self.clients),
                to_addr: config.to_addr.clone().unwrap_or(address.to_string()),
                transport_type: config.transport_type.clone().unwrap_or("telnet".into()),
                idle_timeout: config
                    .idle_timeout
                    .map_or(Duration::from_secs(1800), |d| d.0),
                max_line: usize::try_from(max_line).unwrap_or(usize::MAX),
                places: Arc::new(Semaphore::new(places)),
            })
        });
        Ok(Arc::clone(shared))
    }

    fn welcome(&self, shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            // Nothing was written before, so this fits the socket's buffer.
            let _ = stream.try_write(notice::BUSY);
            return;
        };
        let _ = stream.set_nodelay(true);
        let address = SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string();
        let (reader, writer) = stream.into_split();
        let client = Client::new(address, writer);
        self.clients.add(Arc::clone(&client));
        let session = session::Session::new(Arc::clone(shared), client);
        let intake = self.intake.token();
        self.connections.spawn(async move {
            session.run(reader, intake).await;
            drop(place);
        });
    }

    fn report(&self, level: StatusLevel, reason: Reason, message: String) {
        self.cx
            .report(StatusReport::new("listener", level, reason, message));
    }
}

fn listen_failed(error: &std::io::Error) -> WorkError {
    WorkError::new(
        ErrorClass::Connect,
        codes::LISTEN_FAILED,
        format!("cannot use the listening socket: {error}"),
    )
}

#[async_trait]
impl Worker for TelnetServer {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let message = input.to_deliver()?;
        let nack = |class, code, text: &str, who| {
            let refusal = Refusal::new(class, code, text, who);
            Ok(vec![self.cx.nack(message, input.attempt, refusal)])
        };
        let Some(address) = message.to_addr() else {
            let text = "Missing fields: to_addr";
            return nack(
                FailureClass::Content,
                codes::REPLY_FIELDS,
                text,
                Actor::Campaign,
            );
        };
        let Some(client) = self.clients.get(address) else {
            let text = "Unknown address: no client is connected under it.";
            return nack(
                FailureClass::Recipient,
                codes::REPLY_NO_CLIENT,
                text,
                Actor::Nobody,
            );
        };
        let id = message.message_id();
        if !client.was_written(id) {
            let wire = codec::encode(message.content().unwrap_or_default());
            if client.write(&wire).await.is_err() {
                let text = "The connection ended before the message was written.";
                return nack(
                    FailureClass::Recipient,
                    codes::SESSION_CLOSED,
                    text,
                    Actor::Nobody,
                );
            }
            self.cx.traffic(Traffic::Outbound);
            client.note_written(id, message.in_reply_to());
        }
        if message.session_event() == Some(SessionEvent::Close) {
            client.gone.cancel();
        }
        Ok(vec![self.cx.ack(message, id)])
    }

    fn holds(&self, message: &UserMessage) -> bool {
        let client = message
            .to_addr()
            .and_then(|address| self.clients.get(address));
        client.is_some_and(|client| client.said(message.in_reply_to().unwrap_or_default()))
    }

    async fn run(&self, cx: Arc<WorkerContext>) -> Result<(), WorkError> {
        let host = self.config.host.as_deref().unwrap_or("0.0.0.0");
        let listener = match cx.listen(host, self.config.port).await {
            Ok(listener) => listener,
            Err(error) => {
                self.report(StatusLevel::Down, reasons::LISTEN_FAILED, error.to_string());
                return Err(error);
            }
        };
        let shared = self.shared(&listener)?;
        let listening = format!("listening on {host}:{}", self.config.port);
        self.report(StatusLevel::Ok, reasons::LISTENING, listening.clone());
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = cx.closing().cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut failing) {
                        self.report(StatusLevel::Ok, reasons::LISTENING, listening.clone());
                    }
                    self.welcome(&shared, stream, peer);
                }
                // Too many open files, or a connection that vanished: the socket itself is still good.
                Err(error) => {
                    failing = true;
                    let text = format!("a connection could not be taken: {error}");
                    self.report(StatusLevel::Degraded, reasons::ACCEPT_FAILED, text);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Ours only: the supervisor decides whether a successor goes on with the socket.
        drop(listener);
        self.intake.close();
        self.intake.wait().await;
        Ok(())
    }

    async fn drained(&self) {
        for client in self.clients.all() {
            client.all_answered().await;
        }
    }

    async fn close(&self) {
        for client in self.clients.all() {
            self.connections.spawn(async move {
                let _ = client.write(notice::GOODBYE).await;
                client.gone.cancel();
            });
        }
        self.connections.close();
        self.connections.wait().await;
    }
}
