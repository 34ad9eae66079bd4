//! The admin port: health checks for a kubelet, metrics for Prometheus.

use crate::health::Health;
use crate::metrics::Metrics;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use std::sync::Arc;
use tokio::net::TcpListener;
use vumi_core::admin::{self, judged, refused, text};

const INDEX: &str = "\
/healthz  the loops of this operator turn
/readyz   everything is watched, and the CRDs are as new as this operator
/metrics  metrics in Prometheus text format
";

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, health: Arc<Health>, metrics: Metrics) {
    let answered = move |method: Method, path: String| {
        std::future::ready(answer(&method, &path, &health, &metrics))
    };
    admin::serve(listener, answered).await;
}

fn answer(
    method: &Method,
    path: &str,
    health: &Health,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    if let Some(refusal) = refused(method) {
        return refusal;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX.into()),
        "/healthz" => judged(health.live()),
        "/readyz" => judged(health.ready()),
        "/metrics" => admin::metrics(metrics.render()),
        _ => text(StatusCode::NOT_FOUND, INDEX.into()),
    }
}
