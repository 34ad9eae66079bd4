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
        let answered = move |method: Method, path: String| {
            let supervisor = Arc::clone(&supervisor);
            async move { answer(&method, &path, &supervisor).await }
        };
        serve(self.listener, answered).await;
    }
}

/// Serves an admin port until the future is dropped; `answer` says what a method and a path get.
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Method, String) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    converse(stream, answer).await;
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

async fn converse<A, F>(stream: TcpStream, answer: A)
where
    A: Fn(Method, String) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let answer = answer(request.method().clone(), path);
        async move { Ok::<_, Infallible>(answer.await) }
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
    if let Some(refusal) = refused(method) {
        return refusal;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX.into()),
        "/healthz" => judged(supervisor.live().await),
        "/readyz" => judged(supervisor.ready().await),
        "/readyz/listen" => judged(supervisor.listening().await),
        "/metrics" => {
            // Gauges of readiness follow the snapshots.
            supervisor.snapshots().await;
            metrics(supervisor.telemetry().render())
        }
        _ => text(StatusCode::NOT_FOUND, INDEX.into()),
    }
}

/// What a method gets that is not served.
pub fn refused(method: &Method) -> Option<Response<Full<Bytes>>> {
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, allowed);
    Some(response)
}

/// Metrics in Prometheus text format.
pub fn metrics(rendered: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, rendered);
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, prometheus);
    response
}

/// 200 `ok`, or 503 with the reason.
pub fn judged(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// A plain text, never to be cached.
pub fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
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
