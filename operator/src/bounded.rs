//! What stands around every call to the API server, watches included: a deadline, and a count. Nothing is repeated here.

use crate::metrics::Metrics;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use kube::client::Body;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::{BoxError, Service};

/// How long calls may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Any call, and the beginning of a watch.
    pub call: Duration,
    /// A page of a list.
    pub list: Duration,
}

impl Deadlines {
    /// By the time that a call may take: pages of lists have three times of it.
    pub fn of(call: Duration) -> Self {
        let list = call * 3;
        Self { call, list }
    }
}

/// There was no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
pub struct TimedOut(pub Duration);

/// What stands outside of every call: its deadline and its count.
pub struct Bounded<S> {
    inner: S,
    deadlines: Deadlines,
    metrics: Metrics,
}

impl<S> Bounded<S> {
    /// Around a service that speaks HTTP.
    pub fn new(inner: S, deadlines: Deadlines, metrics: Metrics) -> Self {
        Self {
            inner,
            deadlines,
            metrics,
        }
    }
}

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<B, Full<Bytes>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = Call::of(request.method(), request.uri());
        let deadline = match call.verb {
            "list" => self.deadlines.list,
            _ => self.deadlines.call,
        };
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let began = Instant::now();
            let whole = async {
                let response = answer.await.map_err(Into::<BoxError>::into)?;
                if call.verb == "watch" && response.status() == StatusCode::OK {
                    // Its events come while it lasts; the watcher ends one that says nothing.
                    return Ok::<_, BoxError>(response.map(Either::Left));
                }
                let (parts, body) = response.into_parts();
                let bytes = body
                    .collect()
                    .await
                    .map_err(Into::<BoxError>::into)?
                    .to_bytes();
                Ok(Response::from_parts(parts, Either::Right(Full::new(bytes))))
            };
            let result = match tokio::time::timeout(deadline, whole).await {
                Ok(result) => result,
                Err(_) => Err(BoxError::from(TimedOut(deadline))),
            };
            let code = match &result {
                Ok(response) => response.status().as_u16().to_string(),
                Err(error) if error.is::<TimedOut>() => "deadline".into(),
                Err(_) => "connection".into(),
            };
            metrics.called(call.verb, &call.resource, &code, began.elapsed());
            result
        })
    }
}

/// What a request asks, in Kubernetes' words.
struct Call {
    verb: &'static str,
    resource: String,
}

impl Call {
    fn of(method: &Method, uri: &http::Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        // /api/v1/…, /apis/GROUP/VERSION/…; then namespaces/NAME/, if it is not about these themselves.
        let rest: Vec<&str> = match parts.next() {
            Some("api") => parts.skip(1).collect(),
            Some("apis") => parts.skip(2).collect(),
            other => vec![other.unwrap_or("root")],
        };
        let rest = match rest.as_slice() {
            ["namespaces", _, below @ ..] if !below.is_empty() => below,
            all => all,
        };
        let resource = match rest {
            [resource, _, "status", ..] => format!("{resource}/status"),
            [resource, ..] => (*resource).to_owned(),
            [] => "discovery".to_owned(),
        };
        let verb = match *method {
            Method::GET if query.contains("watch=true") => "watch",
            Method::GET if rest.len() == 1 && uri.path().starts_with("/api") => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        Self { verb, resource }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_as_kubernetes_names_them() {
        for (method, uri, verb, resource) in [
            (
                Method::GET,
                "/api/v1/namespaces/n/secrets/vumi-broker",
                "get",
                "secrets",
            ),
            (
                Method::GET,
                "/api/v1/services?&limit=100",
                "list",
                "services",
            ),
            (
                Method::GET,
                "/api/v1/namespaces/n/pods?&watch=true&timeoutSeconds=290",
                "watch",
                "pods",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/n/deployments/d?force=true",
                "patch",
                "deployments",
            ),
            (
                Method::PATCH,
                "/apis/vumi.dev/v1alpha1/namespaces/n/transports/t/status",
                "patch",
                "transports/status",
            ),
            (Method::GET, "/openapi/v3", "get", "openapi"),
            (
                Method::GET,
                "/apis/gateway.networking.k8s.io/v1",
                "get",
                "discovery",
            ),
        ] {
            let call = Call::of(&method, &uri.parse().unwrap());
            assert_eq!(
                (call.verb, call.resource.as_str()),
                (verb, resource),
                "{uri}"
            );
        }
    }
}
