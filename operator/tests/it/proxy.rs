//! A proxy between the operator and a real API server: it counts requests and makes some of them fail.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a request gets instead of its answer.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// This status.
    Status(u16),
    /// No answer, while the connection stays open.
    Stall,
}

/// A request, as far as it is counted.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
}

impl Seen {
    /// Whether it changes something; the lease is written all the time (K16).
    pub fn is_write(&self) -> bool {
        self.method != Method::GET && !self.path.contains("/leases")
    }
}

/// For a request, the fault that it meets.
type Rule = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

struct Shared {
    upstream: kube::Client,
    seen: Mutex<Vec<Seen>>,
    rule: Mutex<Option<Rule>>,
    injected: Mutex<BTreeMap<String, usize>>,
    cut: tokio::sync::watch::Sender<()>,
}

/// The proxy. It ends when this is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Before the server of this client.
    pub async fn before(upstream: kube::Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            seen: Mutex::default(),
            rule: Mutex::new(None),
            injected: Mutex::default(),
            cut: tokio::sync::watch::Sender::new(()),
        });
        let serving = Arc::clone(&shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, Arc::clone(&serving)));
            }
        });
        Self {
            port,
            shared,
            _serving: tasks,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Requests since the last time.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap())
    }

    /// Lets requests meet faults.
    pub fn inject(&self, rule: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *self.shared.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Ends every connection of now.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// No faults any more. Returns how many there were, by kind.
    pub fn mend(&self) -> BTreeMap<String, usize> {
        *self.shared.rule.lock().unwrap() = None;
        std::mem::take(&mut *self.shared.injected.lock().unwrap())
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    tokio::select! {
        // Clients go whenever they want.
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        _ = cut.changed() => {}
    }
}

type Answer = Response<Either<Body, Full<Bytes>>>;

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Answer, kube::Error> {
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
    };
    shared.seen.lock().unwrap().push(seen.clone());
    let fault = shared
        .rule
        .lock()
        .unwrap()
        .as_mut()
        .and_then(|rule| rule(&seen));
    if let Some(fault) = fault {
        *shared
            .injected
            .lock()
            .unwrap()
            .entry(format!("{fault:?}"))
            .or_default() += 1;
        match fault {
            Fault::Stall => return std::future::pending().await,
            Fault::Status(code) => {
                let text = format!(
                    r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","code":{code},"reason":"","message":"injected","details":{{"retryAfterSeconds":1}}}}"#
                );
                let body = Either::Right(Full::new(Bytes::from(text)));
                return Ok(Response::builder().status(code).body(body).unwrap());
            }
        }
    }
    let (mut parts, body) = request.into_parts();
    let bytes = body
        .collect()
        .await
        .map_err(kube::Error::HyperError)?
        .to_bytes();
    parts.headers.remove(http::header::HOST);
    parts.headers.remove(http::header::AUTHORIZATION);
    let request = Request::from_parts(parts, Body::from(bytes));
    shared
        .upstream
        .send(request)
        .await
        .map(|response| response.map(Either::Left))
}
