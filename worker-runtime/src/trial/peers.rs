//! Fake peers of a campaign: programs that send it requests, servers that it calls, users that type lines. All of them
//! are on this machine.

use super::answers::{Answer, Script};
use super::file::{Request, Sign};
use crate::error::CliError;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use vumi_api::transports::generic_http::SignatureEncoding;
use vumi_http::webhook::signing_key;
use vumi_http::{Encoding, Signed};

/// Largest body that is kept.
const MAX_BODY: usize = 4 << 20;

/// A list that tasks add to and the test reads.
pub type Shared<T> = Arc<Mutex<Vec<T>>>;

/// Reads or changes a shared list.
pub fn with<T, R>(list: &Shared<T>, look: impl FnOnce(&mut Vec<T>) -> R) -> R {
    look(&mut list.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A request that a fake server got.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the server.
    pub server: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body.
    pub body: String,
}

/// A response, or why there is none.
#[derive(Clone, Debug)]
pub struct Response {
    /// Name of the request.
    pub of: String,
    /// Status, header fields and body.
    pub outcome: Result<(u16, BTreeMap<String, String>, String), String>,
}

/// A fake HTTP server; it ends when it is dropped.
pub struct FakeServer {
    /// Where it listens: `http://127.0.0.1:PORT`.
    pub origin: String,
    /// What it answers.
    pub script: Script<Answer>,
    task: AbortHandle,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeServer {
    /// Opens one; what it gets is added to `calls`.
    pub async fn open(
        name: &str,
        answers: &[Answer],
        calls: Shared<Call>,
    ) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| {
            CliError::environment(format!("the fake server {name} cannot listen: {error}"))
        };
        Self::open_at(0, name, answers, calls).await.map_err(failed)
    }

    /// The same on a port of 127.0.0.1; 0 is any.
    pub async fn open_at(
        port: u16,
        name: &str,
        answers: &[Answer],
        calls: Shared<Call>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let script = Script::new(answers);
        let (name, given) = (name.to_owned(), script.clone());
        let task = tokio::spawn(async move {
            // The connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (name, script, calls) = (name.clone(), given.clone(), Arc::clone(&calls));
                let service = service_fn(move |request| {
                    let (name, script, calls) = (name.clone(), script.clone(), Arc::clone(&calls));
                    async move { Ok::<_, Infallible>(served(request, &name, &script, &calls).await) }
                });
                connections.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self {
            origin: format!("http://{address}"),
            script,
            task: task.abort_handle(),
        })
    }
}

async fn served(
    request: http::Request<Incoming>,
    name: &str,
    script: &Script<Answer>,
    calls: &Shared<Call>,
) -> http::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map_or_else(
        |error| format!("(unreadable: {error})"),
        |body| String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    );
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let call = Call {
        server: name.to_owned(),
        method: head.method.to_string(),
        path: path.to_owned(),
        headers: fields(&head.headers),
        body,
    };
    with(calls, |calls| calls.push(call));
    let answer = script.next();
    if let Some(delay) = answer.delay {
        tokio::time::sleep(delay.0).await;
    }
    let text = match (&answer.json, &answer.body) {
        (Some(json), _) => json.to_string(),
        (None, Some(body)) => body.clone(),
        (None, None) => String::new(),
    };
    let mut response = http::Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    if answer.json.is_some() {
        let json = HeaderValue::from_static("application/json");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, json);
    }
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn fields(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    headers.iter().map(field).collect()
}

/// Sends a request to a port of this machine; the response is added to `responses` when it comes.
pub fn send(request: &Request, port: u16, responses: Shared<Response>) -> Result<(), String> {
    let (kind, body) = match (&request.json, &request.form, &request.body) {
        (Some(json), _, _) => (Some("application/json"), Some(json.to_string())),
        (_, Some(form), _) => (
            Some("application/x-www-form-urlencoded"),
            Some(encoded(form)),
        ),
        (_, _, body) => (None, body.clone()),
    };
    let method = match (&request.method, &body) {
        (Some(method), _) => method
            .parse::<Method>()
            .map_err(|_| format!("{method:?} is no method"))?,
        (None, Some(_)) => Method::POST,
        (None, None) => Method::GET,
    };
    let mut built = http::Request::builder()
        .method(method)
        .uri(&request.path)
        .header(http::header::HOST, format!("127.0.0.1:{port}"));
    if let Some(kind) = kind
        && !request
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"))
    {
        built = built.header(http::header::CONTENT_TYPE, kind);
    }
    for (name, value) in &request.headers {
        built = built.header(name, value);
    }
    if let Some(sign) = &request.sign {
        let said = body.as_deref().unwrap_or_default();
        for (name, value) in signed(sign, &request.headers, said)? {
            built = built.header(name, value);
        }
    }
    let built = built
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| format!("this is no request: {error}"))?;
    let of = request.named.clone().unwrap_or_else(|| request.to.clone());
    tokio::spawn(async move {
        let outcome = exchange(built, port).await;
        with(&responses, |responses| {
            responses.push(Response { of, outcome })
        });
    });
    Ok(())
}

async fn exchange(
    request: http::Request<Full<Bytes>>,
    port: u16,
) -> Result<(u16, BTreeMap<String, String>, String), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(|e| text(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|e| text(&e))?;
    connection.abort();
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok((head.status.as_u16(), fields(&head.headers), body))
}

/// The headers of a signature.
fn signed(
    sign: &Sign,
    headers: &BTreeMap<String, String>,
    body: &str,
) -> Result<Vec<(String, String)>, String> {
    let id = match &sign.id_header {
        Some(name) => {
            let mut given = headers.iter();
            let given = given.find(|(given, _)| given.eq_ignore_ascii_case(name));
            let missing = || format!("sign: headers have no {name}");
            Some(given.ok_or_else(missing)?.1.as_str())
        }
        None => None,
    };
    let age = sign.age.map_or(Duration::ZERO, |age| age.0);
    let at = vumi_core::clock::now().checked_sub(age);
    let at = at.ok_or("sign: age is longer than time")?;
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = at.as_secs().to_string();
    let what = Signed {
        id,
        timestamp: sign.timestamp_header.as_ref().map(|_| at.as_str()),
        body: body.as_bytes(),
    };
    let encoding = match sign.encoding {
        SignatureEncoding::Hex => Encoding::Hex,
        SignatureEncoding::Base64 => Encoding::Base64,
    };
    let key = signing_key(&sign.secret).unwrap_or_else(|_| sign.secret.clone().into_bytes());
    let signature = format!("{}{}", sign.prefix, what.sign(&key, encoding));
    let time = sign.timestamp_header.clone().map(|name| (name, at));
    Ok([(sign.header.clone(), signature)]
        .into_iter()
        .chain(time)
        .collect())
}

/// A form as browsers send it.
fn encoded(form: &BTreeMap<String, String>) -> String {
    let escaped = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                    char::from(byte).to_string()
                }
                b' ' => "+".to_owned(),
                byte => format!("%{byte:02X}"),
            })
            .collect::<String>()
    };
    let pairs: Vec<String> = form
        .iter()
        .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
        .collect();
    pairs.join("&")
}

/// What a user heard.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    closed: bool,
}

/// A user who types lines.
pub struct LineUser {
    writer: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
}

impl LineUser {
    /// Connects to a port of this machine.
    pub async fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hears = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut reader = BufReader::new(reader);
            loop {
                let mut line = Vec::new();
                let read = reader.read_until(b'\n', &mut line).await;
                let mut heard = hears.lock().unwrap_or_else(PoisonError::into_inner);
                let text = String::from_utf8_lossy(&line);
                let text = text.trim_end_matches(['\r', '\n']);
                if !text.is_empty() {
                    heard.lines.push(text.to_owned());
                }
                if !matches!(read, Ok(read) if read > 0) {
                    heard.closed = true;
                    return;
                }
            }
        });
        Ok(Self { writer, heard })
    }

    /// Types a line.
    pub async fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.writer
            .write_all(format!("{text}\r\n").as_bytes())
            .await
    }

    /// Ends the connection.
    pub async fn hang_up(&mut self) {
        let _ = self.writer.shutdown().await;
    }

    /// Lines heard so far; they are kept.
    pub fn lines(&self) -> Vec<String> {
        self.heard().lines.clone()
    }

    /// Forgets the first lines.
    pub fn forget(&self, count: usize) {
        self.heard().lines.drain(..count);
    }

    /// Whether the other side ended the connection.
    pub fn is_closed(&self) -> bool {
        self.heard().closed
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_server_answers_in_turn_and_remembers_what_it_was_asked() {
        let (runtime, clock) = super::super::clock::runtime().unwrap();
        runtime.block_on(async {
            let calls = Shared::default();
            let answers: Vec<Answer> =
                serde_yaml::from_str("[{status: 503, delay: 1h}, {json: {ok: true}}]").unwrap();
            let server = FakeServer::open("crm", &answers, Arc::clone(&calls))
                .await
                .unwrap();
            let port: u16 = server.origin.rsplit(':').next().unwrap().parse().unwrap();
            let responses = Shared::default();
            let request: Request =
                serde_yaml::from_str("{to: crm, path: '/a?b=1', json: {hello: you}}").unwrap();
            for _ in 0..2 {
                send(&request, port, Arc::clone(&responses)).unwrap();
                clock.settle().await;
            }
            let statuses = || {
                with(&responses, |responses| {
                    let outcome = |response: &Response| response.outcome.clone().unwrap();
                    responses
                        .iter()
                        .map(outcome)
                        .map(|(status, _, body)| (status, body))
                        .collect::<Vec<_>>()
                })
            };
            assert_eq!(
                statuses(),
                [(200, "{\"ok\":true}".to_owned())],
                "the first one takes an hour"
            );
            clock.advance(std::time::Duration::from_secs(3600)).await;
            assert_eq!(statuses()[1].0, 503);
            let calls = with(&calls, |calls| calls.clone());
            assert_eq!((&*calls[0].method, &*calls[0].path), ("POST", "/a?b=1"));
            assert_eq!(calls[0].body, "{\"hello\":\"you\"}");
            assert_eq!(calls[0].headers["content-type"], "application/json");
        });
    }

    #[test]
    fn a_request_is_signed_as_a_transport_verifies_it() {
        let request: Request = serde_yaml::from_str(
            "{to: t, path: /, headers: {x-id: d-1}, body: hello, sign: {secret: s3cret, header: X-Signature, prefix: v1=, idHeader: X-Id, timestampHeader: X-Time, age: 1m}}",
        )
        .unwrap();
        let sign = request.sign.unwrap();
        let headers = signed(&sign, &request.headers, "hello").unwrap();
        let headers: BTreeMap<String, String> = headers.into_iter().collect();
        let verify = |body: &str, seconds: u64| {
            let what = Signed {
                id: Some("d-1"),
                timestamp: Some(&headers["X-Time"]),
                body: body.as_bytes(),
            };
            what.verify(
                &headers["X-Signature"],
                "v1=",
                Encoding::Hex,
                &["s3cret"],
                Duration::from_secs(seconds),
                vumi_core::clock::now(),
            )
        };
        assert_eq!(verify("hello", 90), Ok(()));
        assert!(verify("hello", 30).is_err(), "a minute ago");
        assert!(verify("hallo", 90).is_err());
        let none = BTreeMap::new();
        assert!(signed(&sign, &none, "hello").is_err_and(|why| why.contains("X-Id")));
    }

    #[test]
    fn a_form_is_encoded() {
        let form = [("a b", "1&2"), ("ü", "x")];
        let form = form.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(encoded(&BTreeMap::from(form)), "a+b=1%262&%C3%BC=x");
    }
}
