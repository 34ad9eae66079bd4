//! The admin port: health checks for a kubelet, metrics for Prometheus.

use crate::health::Health;
use crate::metrics::Metrics;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at one time; further ones wait.
const MAX_CONNECTIONS: usize = 32;
/// Longest wait for a request on an open connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

const INDEX: &str = "\
/healthz  the loops of this operator turn
/readyz   everything is watched, and the CRDs are as new as this operator
/metrics  metrics in Prometheus text format
";

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (health, metrics) = (Arc::clone(&health), metrics.clone());
                tokio::spawn(async move {
                    converse(stream, health, metrics).await;
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

async fn converse(stream: TcpStream, health: Arc<Health>, metrics: Metrics) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &health, &metrics);
        async move { Ok::<_, Infallible>(answer) }
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

fn answer(
    method: &Method,
    path: &str,
    health: &Health,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
    }
    match path {
        "/" => text(StatusCode::OK, INDEX.into()),
        "/healthz" => judged(health.live()),
        "/readyz" => judged(health.ready()),
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics.render());
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
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
