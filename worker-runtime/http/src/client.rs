//! Calls to a provider: connections are kept and used again, every wait and every answer has a limit, redirects are not
//! followed. On hyper-util's client with rustls: small, and it tells what was never sent from what may have arrived.

use crate::answer::Answer;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::shared::HttpClient;
use vumi_core::codes::{self, Code};
use vumi_core::error::{Classify, ErrorClass, WorkError};
use vumi_core::secrets::Secrets;

/// An idle connection is closed after this: sooner than servers do, so that no message is written to one that is closing.
const IDLE: Duration = Duration::from_secs(4);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Where to: `http` or `https`.
    pub url: Uri,
    /// Headers; `Host` and `Content-Length` are added.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Why there is no answer. The texts name no URL: it may hold credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: no connection could be made.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// It was sent, or began to be, and no whole answer came.
    #[error("{0}")]
    Lost(String),
}

impl Classify for CallError {
    fn class(&self) -> ErrorClass {
        match self {
            CallError::Unreachable(_) => ErrorClass::Connect,
            CallError::Lost(_) => ErrorClass::Timeout,
        }
    }

    fn code(&self) -> Code {
        match self {
            CallError::Unreachable(_) => codes::PEER_UNREACHABLE,
            CallError::Lost(_) => codes::PEER_TIMEOUT,
        }
    }
}

/// What makes calls: a [`Client`], or a provider that tests make up.
#[async_trait]
pub trait Caller: Send + Sync {
    /// Makes one call and reads its answer, up to the limit: the rest of a larger one is left out.
    async fn call(&self, call: Call) -> Result<Answer, CallError>;
}

/// Calls over real connections.
pub struct Client {
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    answer_timeout: Duration,
    max_answer: usize,
}

impl Client {
    /// A client with these settings; opens nothing.
    ///
    /// # Errors
    /// The private certificate authority is missing or cannot be read.
    pub fn new(settings: &HttpClient, secrets: &Secrets) -> Result<Self, WorkError> {
        let connect_timeout = settings
            .connect_timeout
            .map_or(Duration::from_secs(5), |d| d.0);
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(connect_timeout));
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(settings, secrets)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.idle_connections.unwrap_or(32) as usize)
            .build(connector);
        let max_answer = settings.max_answer.map_or(256 << 10, |size| size.0);
        Ok(Self {
            client,
            answer_timeout: settings
                .answer_timeout
                .map_or(Duration::from_secs(15), |d| d.0),
            max_answer: usize::try_from(max_answer).unwrap_or(usize::MAX),
        })
    }
}

fn tls(settings: &HttpClient, secrets: &Secrets) -> Result<rustls::ClientConfig, WorkError> {
    let wrong = |text: String| WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text);
    let mut roots = RootCertStore::empty();
    let authority = settings
        .tls
        .as_ref()
        .and_then(|tls| tls.ca_secret_ref.as_ref());
    if let Some(secret) = authority {
        let pem = secrets.get(&secret.name, "ca.crt").ok_or_else(|| {
            let text = format!("Secret {:?} has no key \"ca.crt\"", secret.name);
            WorkError::new(ErrorClass::Config, codes::SECRET_MISSING, text)
        })?;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let added = certificate.map_err(|e| e.to_string());
            let added = added.and_then(|der| roots.add(der).map_err(|e| e.to_string()));
            added.map_err(|e| wrong(format!("ca.crt of Secret {:?}: {e}", secret.name)))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[async_trait]
impl Caller for Client {
    async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let lost = |text: String| CallError::Lost(text);
        let mut request = http::Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.url;
        *request.headers_mut() = call.headers;
        let calling = async {
            let response = self.client.request(request).await.map_err(|error| {
                let text = told(&error);
                match error.is_connect() {
                    true => CallError::Unreachable(text),
                    false => lost(format!("the connection ended before the answer: {text}")),
                }
            })?;
            let (head, mut body) = response.into_parts();
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|e| lost(format!("the answer broke off: {}", told(&e))))?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                let room = self.max_answer - read.len();
                read.extend_from_slice(&data[..data.len().min(room)]);
                if read.len() == self.max_answer {
                    break;
                }
            }
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: read.freeze(),
            })
        };
        let limit = self.answer_timeout;
        tokio::time::timeout(limit, calling)
            .await
            .unwrap_or_else(|_| Err(lost(format!("no answer within {limit:?}"))))
    }
}

/// An error with its causes, in one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

/// What the status of an answer means where nothing else says it.
pub fn class_of(answer: &Answer) -> Option<ErrorClass> {
    let after = || retry_after(&answer.headers);
    Some(match answer.status {
        status if status.is_success() => return None,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorClass::Auth,
        StatusCode::TOO_MANY_REQUESTS => ErrorClass::Throttled(after()),
        StatusCode::SERVICE_UNAVAILABLE if after().is_some() => ErrorClass::Throttled(after()),
        StatusCode::REQUEST_TIMEOUT => ErrorClass::RemoteTemporary,
        // The provider's own gateway lost the answer.
        StatusCode::GATEWAY_TIMEOUT => ErrorClass::Timeout,
        status if status.is_server_error() => ErrorClass::RemoteTemporary,
        _ => ErrorClass::RemotePermanent,
    })
}

/// `Retry-After` in seconds (RFC 9110, section 10.2.3), at most an hour; a date is not read.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_to_try_again() {
        let class = |status: u16, after: Option<&'static str>| {
            let mut answer = Answer::text(StatusCode::from_u16(status).unwrap(), "");
            if let Some(after) = after {
                let value = http::HeaderValue::from_static(after);
                answer = answer.with(http::header::RETRY_AFTER, value);
            }
            class_of(&answer)
        };
        let wait = |seconds| ErrorClass::Throttled(Some(Duration::from_secs(seconds)));
        assert_eq!(class(202, None), None);
        assert_eq!(class(302, None), Some(ErrorClass::RemotePermanent));
        assert_eq!(class(400, None), Some(ErrorClass::RemotePermanent));
        assert_eq!(class(401, None), Some(ErrorClass::Auth));
        assert_eq!(class(429, Some("7")), Some(wait(7)));
        assert_eq!(class(429, Some("soon")), Some(ErrorClass::Throttled(None)));
        assert_eq!(class(503, Some("99999999")), Some(wait(3600)));
        assert_eq!(class(503, None), Some(ErrorClass::RemoteTemporary));
        assert_eq!(class(504, None), Some(ErrorClass::Timeout));
    }
}
