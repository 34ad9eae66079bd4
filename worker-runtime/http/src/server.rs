//! An HTTP/1 server on a lent socket: bounded in connections, head, bodies and time; ends in two stages, intake first.

use crate::answer::{Answer, Reply};
use crate::body::{Bodies, Room};
use crate::connection::{AnswerBody, Shared, Socket};
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vumi_core::reasons::{self, Reason};
use vumi_core::worker::Listener;

/// After the intake closed, a connection is given so long to ask once more, and to be told to come again.
const LAST_REQUEST: Duration = Duration::from_millis(500);

/// What the server puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of a request's head; larger ones get 431. A connection may hold as many until its answer is there.
    pub max_head: usize,
    /// Largest body in bytes; larger ones get 413, and the rest is not read.
    pub max_body: usize,
    /// Most bytes of bodies that are held at one time, of all requests together; further ones get 503. A request holds its
    /// own as long as it, a copy of it or its [`Request::room`] is there.
    pub max_bodies: usize,
    /// Longest wait for a whole request head, from its first byte.
    pub head_timeout: Duration,
    /// Longest wait for the first byte of a request, on a new or a kept connection. Longer than load balancers keep idle
    /// connections (60 s, most of them), so that none sends a request into a connection that is being closed.
    pub idle_timeout: Duration,
    /// Longest wait for a whole body; then 408.
    pub body_timeout: Duration,
    /// Longest wait for a caller to take its whole answer, once it is slower than we are; then the connection is closed.
    pub write_timeout: Duration,
    /// Most connections at one time; further ones get 503.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head: 16 << 10,
            max_body: 1 << 20,
            max_bodies: 64 << 20,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
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
    /// When its head was whole.
    pub began: Instant,
    /// What the body takes of the bytes that may be held.
    pub(crate) room: Option<Room>,
}

/// What a body takes of the bytes that may be held, until it is dropped.
#[derive(Clone, Debug)]
pub struct BodyRoom {
    _room: Option<Room>,
}

impl Request {
    /// Its room, for whoever holds on to what stood in the body and lets go of the request itself.
    pub fn room(&self) -> BodyRoom {
        BodyRoom {
            _room: self.room.clone(),
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this answer.
    Answered(StatusCode),
    /// Without one: its caller was gone, too slow, or broke off.
    Gone,
}

/// What answers requests.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers by the head alone, before any body is read: wrong path or method, missing credentials, health.
    fn by_head(&self, head: &Head) -> Option<Reply>;

    /// Answers a request. Dropped midway when the caller goes away.
    async fn answer(&self, request: Request) -> Reply;

    /// Hears of what was refused before it was a whole request, and of callers that did not stay for the answer.
    fn trouble(&self, trouble: &Trouble) {
        let _ = trouble;
    }

    /// Hears of the end of every request, whole or not, but of those that [`Reply::uncounted`] answers.
    fn ended(&self, ended: Ended, took: Duration) {
        let _ = (ended, took);
    }
}

/// What went wrong with a caller. It has its answer, where one was possible.
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
    /// 503.
    #[error("the bodies of all requests together have more than {0} bytes")]
    TooMuch(usize),
    /// The connection ended, in both directions or in the caller's, before the answer was there.
    #[error("a caller closed its connection before its answer was there")]
    Left,
    /// The answer was not read in time.
    #[error("a caller does not read its answer")]
    NotRead,
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
            Trouble::TooMuch(_) => reasons::TOO_MUCH_AT_ONCE,
            Trouble::Left => reasons::CALLER_LEFT,
            Trouble::NotRead => reasons::ANSWER_NOT_READ,
        }
    }
}

/// The connections of one worker.
pub struct Server {
    limits: Limits,
    places: Arc<Semaphore>,
    bodies: Bodies,
    connections: TaskTracker,
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    service: Arc<dyn Service>,
    limits: Limits,
    bodies: Bodies,
    closing: CancellationToken,
}

impl Server {
    /// A server that serves nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Arc::new(Semaphore::new(limits.max_connections)),
            bodies: Bodies::new(limits.max_bodies),
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
            bodies: self.bodies.clone(),
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
            let busy = Ended::Answered(StatusCode::SERVICE_UNAVAILABLE);
            desk.service.ended(busy, Duration::ZERO);
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
    let limits = desk.limits;
    let (head, write) = (limits.head_timeout, limits.write_timeout);
    let socket = Socket::new(stream, Arc::clone(&shared), head, write);
    let closing = desk.closing.clone();
    let (seen, hears) = (Arc::clone(&shared), Arc::clone(&desk.service));
    let service = service_fn(move |request| respond(request, desk.clone(), Arc::clone(&shared)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(limits.max_head)
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
    let Err(error) = ended else { return };
    tracing::debug!(%error, "connection ended early");
    if seen.was_not_read() {
        // The request itself ended with its answer.
        hears.trouble(&Trouble::NotRead);
    } else if !seen.has_left() && seen.was_reading() && seen.tells() {
        let (trouble, ended) = match () {
            () if error.is_parse() => (Trouble::NotHttp, Ended::Answered(StatusCode::BAD_REQUEST)),
            () if error.is_timeout() || seen.was_slow() => (Trouble::TooSlow, Ended::Gone),
            () => (Trouble::Broken, Ended::Gone),
        };
        hears.trouble(&trouble);
        if !seen.is_serving() {
            hears.ended(ended, head);
        }
    }
}

/// Notices a request that ends without an answer: its future is dropped when the connection ends.
struct Watch {
    desk: Desk,
    shared: Arc<Shared>,
    began: Instant,
    answered: bool,
}

impl Watch {
    fn answered(&mut self, reply: &Reply) {
        self.answered = true;
        if !reply.uncounted {
            let ended = Ended::Answered(reply.status());
            self.desk.service.ended(ended, self.began.elapsed());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if self.shared.tells() {
            self.desk.service.trouble(&Trouble::Left);
        }
        self.desk.service.ended(Ended::Gone, self.began.elapsed());
    }
}

async fn respond(
    request: http::Request<Incoming>,
    desk: Desk,
    shared: Arc<Shared>,
) -> Result<http::Response<AnswerBody>, Infallible> {
    shared.begins();
    let mut watch = Watch {
        desk: desk.clone(),
        shared: Arc::clone(&shared),
        began: Instant::now(),
        answered: false,
    };
    let reply = judge(request, &desk, &shared, watch.began).await;
    watch.answered(&reply);
    shared.ends();
    let Reply {
        answer, written, ..
    } = reply;
    let mut response = http::Response::new(AnswerBody::new(answer.body, written, shared));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if desk.closing.is_cancelled() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

async fn judge(
    request: http::Request<Incoming>,
    desk: &Desk,
    shared: &Shared,
    began: Instant,
) -> Reply {
    let (parts, body) = request.into_parts();
    let head = Head {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
    };
    let limit = desk.limits.max_body;
    let early = match desk.service.by_head(&head) {
        Some(reply) => Some(reply),
        None if desk.closing.is_cancelled() => Some(stopping().into()),
        None if body.size_hint().lower() > limit as u64 => {
            Some(refused(&Trouble::TooLarge(limit), desk))
        }
        None => None,
    };
    if let Some(reply) = early {
        if !body.is_end_stream() {
            shared.leave_unread();
        }
        return reply;
    }
    let reading = desk.bodies.read(body, limit);
    let read = match tokio::time::timeout(desk.limits.body_timeout, reading).await {
        Ok(read) => read,
        Err(_) => Err(Trouble::TooSlow),
    };
    match read {
        // A body may take its time, and the intake close meanwhile.
        Ok(_) if desk.closing.is_cancelled() => stopping().into(),
        Ok((body, room)) => {
            shared.waits();
            let request = Request {
                head,
                body,
                began,
                room,
            };
            desk.service.answer(request).await
        }
        Err(trouble) => {
            shared.leave_unread();
            refused(&trouble, desk)
        }
    }
}

/// The answer to a request that is not taken as a whole, which is told as well.
fn refused(trouble: &Trouble, desk: &Desk) -> Reply {
    desk.service.trouble(trouble);
    let error = |status, text: &str| closing(Answer::error(status, text));
    let answer = match trouble {
        Trouble::TooLarge(limit) => {
            let text = format!("The request body is larger than {limit} bytes.");
            error(StatusCode::PAYLOAD_TOO_LARGE, &text)
        }
        Trouble::TooMuch(_) => {
            let text = "Too much is being taken over at one time; please try again.";
            error(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1)
        }
        Trouble::TooSlow => {
            let text = "The request body did not arrive in time.";
            error(StatusCode::REQUEST_TIMEOUT, text)
        }
        _ => {
            let text = "The request body could not be read.";
            error(StatusCode::BAD_REQUEST, text)
        }
    };
    answer.into()
}

/// 503: the intake is closed; another worker, or this one after its restart, will take the request.
fn stopping() -> Answer {
    let text = "The service is restarting; please try again.";
    closing(Answer::error(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1))
}

fn closing(answer: Answer) -> Answer {
    answer.with(CONNECTION, HeaderValue::from_static("close"))
}
