//! An HTTP/1 server on a lent socket: bounded in connections, head, body and time; ends in two stages, intake first.

use crate::answer::{Answer, Reply};
use crate::connection::{AnswerBody, Shared, Socket};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vumi_core::reasons::{self, Reason};
use vumi_core::worker::Listener;

/// After the intake closed, a connection is given so long to ask once more, and to be told to come again.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// What the server puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest body in bytes; larger ones get 413, and the rest is not read.
    pub max_body: usize,
    /// Longest wait for a whole request head, and for the next request of a kept connection.
    pub head_timeout: Duration,
    /// Longest wait for a whole body; then 408.
    pub body_timeout: Duration,
    /// Most connections at one time; further ones get 503.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 1 << 20,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            max_connections: 10_000,
        }
    }
}

/// Everything of a request but its body.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Path as sent, escapes included.
    pub path: String,
    /// Query string as sent, without the question mark; empty if there is none.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
}

impl Head {
    /// Media type of the body without its parameters; empty if none is given.
    pub fn content_type(&self) -> &str {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .map_or("", str::trim)
    }
}

/// A whole request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its head.
    pub head: Head,
    /// Its body; empty if there is none.
    pub body: Bytes,
}

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers by the head alone, before any body is read: wrong path or method, missing credentials, health.
    fn by_head(&self, head: &Head) -> Option<Answer>;

    /// Answers a request. Dropped midway when the caller goes away.
    async fn answer(&self, request: Request) -> Reply;

    /// Hears of what was refused before it was a whole request.
    fn trouble(&self, trouble: &Trouble) {
        let _ = trouble;
    }
}

/// What a caller sent that was no whole request. The caller has its answer, where one was possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// 413.
    #[error("a request has a body of more than {0} bytes")]
    TooLarge(usize),
    /// 408, or a head that did not end in time.
    #[error("a request did not arrive in time")]
    TooSlow,
    /// The connection ended in the middle of a request.
    #[error("a connection ended in the middle of a request")]
    Broken,
    /// 400, or 431 for a head that is too large.
    #[error("what a caller sent is not HTTP")]
    NotHttp,
    /// 503.
    #[error("there are more than {0} connections")]
    TooMany(usize),
}

impl Trouble {
    /// As a status has it.
    pub fn reason(&self) -> Reason {
        match self {
            Trouble::TooLarge(_) => reasons::REQUEST_TOO_LARGE,
            Trouble::TooSlow => reasons::REQUEST_TOO_SLOW,
            Trouble::Broken => reasons::REQUEST_BROKEN_OFF,
            Trouble::NotHttp => reasons::NOT_HTTP,
            Trouble::TooMany(_) => reasons::TOO_MANY_CONNECTIONS,
        }
    }
}

/// The connections of one worker.
pub struct Server {
    limits: Limits,
    places: Arc<Semaphore>,
    connections: TaskTracker,
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    service: Arc<dyn Service>,
    limits: Limits,
    closing: CancellationToken,
}

impl Server {
    /// A server that serves nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Arc::new(Semaphore::new(limits.max_connections)),
            connections: TaskTracker::new(),
        }
    }

    /// Serves connections until `closing` fires, and lets go of the socket. After that, new requests on open
    /// connections get 503 with `Retry-After` and `Connection: close`, idle connections are closed half a second later, and
    /// requests in progress are finished. `trouble` hears of each connection that could not be taken, and with `None`
    /// that it works again.
    pub async fn serve(
        &self,
        listener: Listener,
        closing: &CancellationToken,
        service: Arc<dyn Service>,
        trouble: impl Fn(Option<std::io::Error>) + Send + Sync,
    ) {
        let desk = Desk {
            service,
            limits: self.limits,
            closing: closing.clone(),
        };
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    if std::mem::take(&mut failing) {
                        trouble(None);
                    }
                    self.take(stream, desk.clone());
                }
                Err(error) => {
                    failing = true;
                    trouble(Some(error));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, desk: Desk) {
        let _ = stream.set_nodelay(true);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            // Nothing was written before, so this fits the socket's buffer.
            let _ = stream.try_write(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            );
            let limit = desk.limits.max_connections;
            desk.service.trouble(&Trouble::TooMany(limit));
            return;
        };
        self.connections.spawn(async move {
            converse(stream, desk).await;
            drop(place);
        });
    }

    /// After `closing`: waits until every connection has ended, each after its answer in progress.
    pub async fn close(&self) {
        self.connections.close();
        self.connections.wait().await;
    }
}

async fn converse(stream: TcpStream, desk: Desk) {
    let shared = Arc::new(Shared::default());
    let socket = Socket::new(stream, Arc::clone(&shared));
    let closing = desk.closing.clone();
    let head_timeout = desk.limits.head_timeout;
    let (seen, hears) = (Arc::clone(&shared), Arc::clone(&desk.service));
    let service = service_fn(move |request| respond(request, desk.clone(), Arc::clone(&shared)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(64 * 1024)
        .serve_connection(socket, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            // A caller who came just before the end may still be sending: it is told to come again, not hung up on.
            match tokio::time::timeout(LAST_REQUEST, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
        if seen.was_reading() {
            hears.trouble(&match () {
                () if error.is_parse() => Trouble::NotHttp,
                () if error.is_timeout() => Trouble::TooSlow,
                () => Trouble::Broken,
            });
        }
    }
}

async fn respond(
    request: http::Request<Incoming>,
    desk: Desk,
    shared: Arc<Shared>,
) -> Result<http::Response<AnswerBody>, Infallible> {
    shared.is_between();
    let reply = judge(request, &desk, &shared).await;
    shared.is_between();
    let Reply { answer, written } = reply;
    let mut response = http::Response::new(AnswerBody::new(answer.body, written, shared));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if desk.closing.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

async fn judge(request: http::Request<Incoming>, desk: &Desk, shared: &Shared) -> Reply {
    let (parts, body) = request.into_parts();
    let head = Head {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
    };
    let early = match desk.service.by_head(&head) {
        Some(answer) => Some(answer),
        None if desk.closing.is_cancelled() => Some(stopping()),
        None if body.size_hint().lower() > desk.limits.max_body as u64 => {
            desk.service
                .trouble(&Trouble::TooLarge(desk.limits.max_body));
            Some(too_large(desk.limits.max_body))
        }
        None => None,
    };
    if let Some(answer) = early {
        if !body.is_end_stream() {
            shared.leave_unread();
        }
        return answer.into();
    }
    let limited = Limited::new(body, desk.limits.max_body).collect();
    match tokio::time::timeout(desk.limits.body_timeout, limited).await {
        // A body may take its time, and the intake close meanwhile.
        Ok(Ok(_)) if desk.closing.is_cancelled() => stopping().into(),
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            desk.service.answer(Request { head, body }).await
        }
        Ok(Err(error)) => {
            shared.leave_unread();
            if error.is::<LengthLimitError>() {
                desk.service
                    .trouble(&Trouble::TooLarge(desk.limits.max_body));
                too_large(desk.limits.max_body).into()
            } else {
                desk.service.trouble(&Trouble::Broken);
                let text = "The request body could not be read.";
                closing(Answer::error(StatusCode::BAD_REQUEST, text)).into()
            }
        }
        Err(_) => {
            shared.leave_unread();
            desk.service.trouble(&Trouble::TooSlow);
            let text = "The request body did not arrive in time.";
            closing(Answer::error(StatusCode::REQUEST_TIMEOUT, text)).into()
        }
    }
}

/// 503: the intake is closed; another worker, or this one after its restart, will take the request.
fn stopping() -> Answer {
    let text = "The service is restarting; please try again.";
    closing(Answer::error(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1))
}

fn too_large(limit: usize) -> Answer {
    let text = format!("The request body is larger than {limit} bytes.");
    closing(Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &text))
}

fn closing(answer: Answer) -> Answer {
    answer.with(CONNECTION, HeaderValue::from_static("close"))
}
