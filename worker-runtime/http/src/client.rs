//! Calls to a provider: connections are kept and used again, every wait and every answer has a limit, redirects are not
//! followed. On hyper-util's client with rustls: small, and it tells what was never sent from what may have arrived.

use crate::answer::Answer;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;
use vumi_api::shared::HttpClient;
use vumi_core::clock;
use vumi_core::codes::{self, Code};
use vumi_core::error::{Classify, ErrorClass, WorkError, chain};
use vumi_core::outside::Outside;
use vumi_core::secrets::Secrets;

/// An idle connection is closed after this, where the manifest does not say: sooner than the common servers do (Apache and
/// Node.js after 5 s). A message that is written to a connection which its server closes at that moment is neither sent nor
/// not sent, and for a text message that is worse than a new connection.
const IDLE: Duration = Duration::from_secs(4);
/// A connection that is not there ends by its own limit; this is for what may lie around it.
const SLACK: Duration = Duration::from_secs(1);

/// That this machine trusts nobody.
const NO_ROOTS: &str = "this machine knows no certificate authority: install its package ca-certificates, or name the server's authority in client.tls.caSecretRef";

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

    /// Whether an answer may lack its end: it is as large as is read at all.
    fn leaves_out(&self, answer: &Answer) -> bool {
        let _ = answer;
        false
    }
}

/// Calls over real connections.
pub struct Client {
    client: legacy::Client<Connector, Full<Bytes>>,
    connector: Connector,
    connect_timeout: Duration,
    outside: Outside,
    answer_timeout: Duration,
    /// Why no `https` server can be known, if none can.
    no_roots: Option<String>,
    max_answer: usize,
}

impl Client {
    /// A client with these settings, whose calls go where `outside` lets them; opens nothing.
    ///
    /// # Errors
    /// The private certificate authority or our own certificate is missing or cannot be read.
    pub fn new(
        settings: &HttpClient,
        secrets: &Secrets,
        outside: Outside,
    ) -> Result<Self, WorkError> {
        let connect_timeout = settings
            .connect_timeout
            .map_or(Duration::from_secs(5), |d| d.0);
        let Trust { tls, no_roots } = trust(settings, secrets)?;
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connector = Connector {
            connector,
            limit: connect_timeout,
        };
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout.map_or(IDLE, |d| d.0))
            .pool_max_idle_per_host(settings.idle_connections.unwrap_or(32) as usize)
            .build(connector.clone());
        let max_answer = settings.max_answer.map_or(256 << 10, |size| size.0);
        Ok(Self {
            client,
            connector,
            connect_timeout,
            no_roots,
            outside,
            answer_timeout: settings
                .answer_timeout
                .map_or(Duration::from_secs(15), |d| d.0),
            max_answer: usize::try_from(max_answer).unwrap_or(usize::MAX),
        })
    }

    /// Makes a connection to where `url` leads, name and TLS included, and sends nothing over it.
    ///
    /// # Errors
    /// None can be made.
    pub async fn reach(&self, url: &Uri) -> Result<(), CallError> {
        let call = Call {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let url = sent_to(&self.outside, call)?.url;
        self.knows_servers(&url)?;
        let unreachable = |error: Box<dyn std::error::Error + Send + Sync>| {
            CallError::Unreachable(chain(&*error))
        };
        let mut connector = self.connector.clone();
        std::future::poll_fn(|cx| connector.poll_ready(cx))
            .await
            .map_err(unreachable)?;
        connector.call(url).await.map(drop).map_err(unreachable)
    }

    /// Whether a server can be known at all, where it has to be.
    fn knows_servers(&self, url: &Uri) -> Result<(), CallError> {
        match (&self.no_roots, url.scheme_str()) {
            (Some(why), Some("https")) => Err(CallError::Unreachable(why.clone())),
            _ => Ok(()),
        }
    }
}

/// Makes connections, names and TLS included, within a time: what takes longer was never sent.
#[derive(Clone)]
struct Connector {
    connector: HttpsConnector<HttpConnector>,
    limit: Duration,
}

type Connecting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.connector.call(uri), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("not within {limit:?}").into()),
            }
        })
    }
}

/// What TLS goes by.
struct Trust {
    tls: rustls::ClientConfig,
    no_roots: Option<String>,
}

fn trust(settings: &HttpClient, secrets: &Secrets) -> Result<Trust, WorkError> {
    let wrong = |text: String| WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text);
    let key = |name: &str, key: &str| secrets.required(name, key);
    let settings = settings.tls.clone().unwrap_or_default();
    let mut roots = RootCertStore::empty();
    if let Some(secret) = &settings.ca_secret_ref {
        let pem = key(&secret.name, "ca.crt")?;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let added = certificate.map_err(|e| e.to_string());
            let added = added.and_then(|der| roots.add(der).map_err(|e| e.to_string()));
            added.map_err(|e| wrong(format!("ca.crt of Secret {:?}: {e}", secret.name)))?;
        }
        if roots.is_empty() {
            let text =
                "holds no certificate: write the authority's into it (PEM, BEGIN CERTIFICATE)";
            return Err(wrong(format!("ca.crt of Secret {:?} {text}", secret.name)));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    // Whoever calls `http` alone does without.
    let no_roots = roots.is_empty().then(|| NO_ROOTS.to_owned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    let config = config.with_root_certificates(roots);
    let Some(secret) = &settings.certificate_secret_ref else {
        let tls = config.with_no_client_auth();
        return Ok(Trust { tls, no_roots });
    };
    let (chain, private) = (key(&secret.name, "tls.crt")?, key(&secret.name, "tls.key")?);
    let bad = |key: &str, why: String| wrong(format!("{key} of Secret {:?}: {why}", secret.name));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| bad("tls.crt", e.to_string()))?;
    let private = PrivateKeyDer::from_pem_slice(private.as_bytes())
        .map_err(|e| bad("tls.key", e.to_string()))?;
    let tls = config
        .with_client_auth_cert(chain, private)
        .map_err(|e| bad("tls.crt and tls.key", e.to_string()))?;
    Ok(Trust { tls, no_roots })
}

#[async_trait]
impl Caller for Client {
    fn leaves_out(&self, answer: &Answer) -> bool {
        answer.body.len() >= self.max_answer
    }

    async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let call = sent_to(&self.outside, call)?;
        self.knows_servers(&call.url)?;
        let lost = |text: String| CallError::Lost(text);
        let mut request = http::Request::new(Full::new(call.body));
        *request.method_mut() = call.method;
        *request.uri_mut() = call.url;
        *request.headers_mut() = call.headers;
        let mut connection = capture_connection(&mut request);
        let calling = async {
            let response = self.client.request(request).await.map_err(|error| {
                let text = chain(&error);
                match error.is_connect() {
                    true => CallError::Unreachable(text),
                    false => lost(format!("the connection ended before the answer: {text}")),
                }
            })?;
            let (head, mut body) = response.into_parts();
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|e| lost(format!("the answer broke off: {}", chain(&e))))?;
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
        tokio::pin!(calling);
        // Until there is a connection nothing is sent: that time is the connection's, and not the answer's.
        let connected = async {
            connection.wait_for_connection_metadata().await;
        };
        tokio::select! {
            biased;
            called = &mut calling => return called,
            () = connected => {}
            () = tokio::time::sleep(self.connect_timeout + SLACK) => {
                let limit = self.connect_timeout;
                return Err(CallError::Unreachable(format!("not within {limit:?}")));
            }
        }
        let limit = self.answer_timeout;
        tokio::time::timeout(limit, calling)
            .await
            .unwrap_or_else(|_| Err(lost(format!("no answer within {limit:?}"))))
    }
}

/// The call as it leaves this process. One that goes elsewhere still says in `Host` for whom it is meant.
fn sent_to(outside: &Outside, mut call: Call) -> Result<Call, CallError> {
    let unreachable = |why: &dyn std::fmt::Display| CallError::Unreachable(why.to_string());
    let Some(instead) = outside.way(&call.url).map_err(|why| unreachable(&why))? else {
        return Ok(call);
    };
    let instead = Uri::from_maybe_shared(instead).map_err(|why| unreachable(&why))?;
    if let Some(meant) = call.url.authority()
        && !call.headers.contains_key(http::header::HOST)
    {
        let whole = meant.as_str();
        // RFC 9110, section 7.2: without the credentials before it.
        let host = whole.rsplit_once('@').map_or(whole, |(_, host)| host);
        let host = HeaderValue::from_str(host).map_err(|why| unreachable(&why))?;
        call.headers.insert(http::header::HOST, host);
    }
    call.url = instead;
    Ok(call)
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

/// `Retry-After` as seconds or as a date (RFC 9110, section 10.2.3): at least a second, so that nobody is hammered, and at
/// most an hour.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(clock::now()).unwrap_or_default()
        }
    };
    Some(wait.clamp(Duration::from_secs(1), Duration::from_secs(3600)))
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
        assert_eq!(class(429, Some("0")), Some(wait(1)), "nobody is hammered");
        assert_eq!(class(503, Some("99999999")), Some(wait(3600)));
        assert_eq!(class(503, None), Some(ErrorClass::RemoteTemporary));
        assert_eq!(class(504, None), Some(ErrorClass::Timeout));
    }

    #[tokio::test]
    async fn without_any_authority_https_is_not_tried_and_says_why() {
        let settings = HttpClient::default();
        let mut client = Client::new(&settings, &Secrets::default(), Outside::default()).unwrap();
        client.no_roots = Some(NO_ROOTS.to_owned());
        let call = |url: &str| Call {
            method: Method::GET,
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let error = client.call(call("https://127.0.0.1:9/")).await.unwrap_err();
        assert_eq!(error, CallError::Unreachable(NO_ROOTS.to_owned()));
        let error = client.call(call("http://127.0.0.1:9/")).await.unwrap_err();
        assert!(!error.to_string().contains("authority"), "{error}");
    }

    #[test]
    fn a_date_says_how_long_to_wait() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        let soon = httpdate::fmt_http_date(clock::now() + Duration::from_secs(90));
        let wait = after(&soon).unwrap();
        assert!((85..=90).contains(&wait.as_secs()), "{wait:?}");
        let past = after("Fri, 31 Dec 1999 23:59:59 GMT");
        assert_eq!(past, Some(Duration::from_secs(1)));
        let far = after("Fri, 31 Dec 2100 23:59:59 GMT");
        assert_eq!(far, Some(Duration::from_secs(3600)));
        assert_eq!(after("Sometime, 31 Foo 2100"), None);
    }
}
