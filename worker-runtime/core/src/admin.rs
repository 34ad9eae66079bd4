//! The admin server of a process: health checks for a kubelet, metrics for Prometheus. It answers while everything else
//! is in trouble, and carries nothing that is confidential.

use crate::supervisor::Supervisor;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The fixed admin port (K27).
pub const PORT: u16 = 9464;

/// Connections at one time; further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request on an open connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

const INDEX: &str = "\
/healthz        the loops of this process turn
/readyz         every worker is ready: consuming, standing by, or paused on purpose
/readyz/listen  every listening worker accepts connections
/metrics        metrics in Prometheus text format
";

/// An open admin port.
pub struct AdminServer {
    listener: TcpListener,
}

impl AdminServer {
    /// Opens the port.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, supervisor: Arc<Supervisor>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let supervisor = Arc::clone(&supervisor);
                    tokio::spawn(async move {
                        converse(stream, supervisor).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin port could not take a connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, supervisor: Arc<Supervisor>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let supervisor = Arc::clone(&supervisor);
        async move {
            let answer = answer(request.method(), request.uri().path(), &supervisor).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the admin port ended early");
    }
}

async fn answer(method: &Method, path: &str, supervisor: &Supervisor) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX.into()),
        "/healthz" => judged(supervisor.live().await),
        "/readyz" => judged(supervisor.ready().await),
        "/readyz/listen" => judged(supervisor.listening().await),
        "/metrics" => {
            // Gauges of readiness follow the snapshots.
            supervisor.snapshots().await;
            let mut response = text(StatusCode::OK, supervisor.telemetry().render());
            let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, prometheus);
            response
        }
        _ => text(StatusCode::NOT_FOUND, INDEX.into()),
    }
}

fn judged(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
