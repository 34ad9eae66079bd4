//! A small HTTP client: one connection at a time, opened when needed; and an endpoint that workers call.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use vumi_core::worker::Listener;
use vumi_http::{Limits, Server, Service};

/// A client of one server.
pub struct Client {
    port: u16,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nobody listens.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection ended, or no answer came in time.
    #[error("broken: {0}")]
    Broken(String),
}

impl Client {
    /// A client of the server on `port` of this machine.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            connection: None,
        }
    }

    /// GETs `path` (with query); status and body.
    pub async fn get(&mut self, path: &str, limit: Duration) -> Result<(u16, String), Failed> {
        let answer = tokio::time::timeout(limit, self.ask(path)).await;
        let result =
            answer.unwrap_or_else(|_| Err(Failed::Broken(format!("no answer in {limit:?}"))));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn ask(&mut self, path: &str) -> Result<(u16, String), Failed> {
        let broken = |error: hyper::Error| Failed::Broken(error.to_string());
        let mut connection = match self.connection.take() {
            Some(open) if !open.is_closed() => open,
            _ => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))
                    .await
                    .map_err(|error| Failed::Refused(error.to_string()))?;
                let _ = stream.set_nodelay(true);
                let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
                tokio::spawn(driver);
                sender
            }
        };
        connection.ready().await.map_err(broken)?;
        let request = hyper::Request::get(path)
            .header("host", "localhost")
            .body(Empty::new())
            .unwrap();
        let response = connection.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(broken)?;
        self.connection = Some(connection);
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        ))
    }
}

/// One request on a connection of its own.
pub async fn get(port: u16, path: &str, limit: Duration) -> Result<(u16, String), Failed> {
    Client::new(port).get(path, limit).await
}

/// Serves `service` until `closing`.
pub fn serve(socket: TcpListener, service: Arc<dyn Service>, closing: CancellationToken) {
    tokio::spawn(async move {
        let server = Server::new(Limits::default());
        let listener = Listener::new(Arc::new(socket));
        server.serve(listener, &closing, service, |_| {}).await;
    });
}
