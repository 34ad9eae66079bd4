//! The HTTP API on the engine, with real connections and a stand-in for the worker runtime's engine.

use crate::engine::Engine;
use crate::http_api::{Api, Def};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port, WorkerConfig};
use vumi_core::codes;
use vumi_core::conformance::stand_in::{PATIENCE, StandIn, resource};
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::holding::{self, Holder};
use vumi_core::message::{Event, EventType, Message, SessionEvent, UserMessage};
use vumi_core::status::StatusLevel;
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};
use vumi_http::Limits;

mod bad_input;
mod held;
mod intake;

struct Server {
    engine: Arc<StandIn>,
    worker: Arc<dyn Worker>,
    closing: CancellationToken,
    address: SocketAddr,
    running: tokio::task::JoinHandle<Result<(), WorkError>>,
}

/// Builds the worker of a spec; errors are those of the build.
async fn built(
    engine: &Arc<StandIn>,
    instance: &str,
    spec: Value,
) -> Result<
    (
        Arc<dyn Worker>,
        Arc<vumi_core::worker::WorkerContext>,
        CancellationToken,
    ),
    WorkError,
> {
    let manifest = json!({"kind": "Transport", "metadata": {"name": "api"}, "spec": spec});
    let resource = resource(&manifest).unwrap();
    let config = vumi_api::transports::HttpApi::pick(&resource)
        .unwrap()
        .clone();
    let closing = CancellationToken::new();
    let cx = engine.context(resource, instance, closing.clone());
    let worker = Def::build(config, Arc::clone(&cx)).await?;
    Ok((worker, cx, closing))
}

/// The reply queue to hand a message on to, seen from a replica.
fn elsewhere(worker: &dyn Worker, instance: &str, message: &UserMessage) -> Option<String> {
    let own = holding::reply_queue("api", instance);
    match Holder::of(message, "api", &own, worker) {
        Holder::Elsewhere(queue) => Some(queue),
        Holder::Here | Holder::Unsaid => None,
    }
}

/// `http` is merged into the listener settings.
fn spec(config: Value, http: Value) -> Value {
    let mut listener = json!({"host": "127.0.0.1", "port": 8080});
    for (key, value) in http.as_object().unwrap() {
        listener[key] = value.clone();
    }
    json!({"httpApi": config, "http": listener})
}

/// A running transport.
async fn server(config: Value, http: Value) -> Server {
    let engine = StandIn::new();
    let built = built(&engine, "one", spec(config, http)).await.unwrap();
    started(engine, built).await
}

/// The same, to which a head and a body must come within this time.
async fn hurried_server(config: Value, http: Value, limit: Duration) -> Server {
    let engine = StandIn::new();
    let manifest =
        json!({"kind": "Transport", "metadata": {"name": "api"}, "spec": spec(config, http)});
    let resource = resource(&manifest).unwrap();
    let config = vumi_api::transports::HttpApi::pick(&resource)
        .unwrap()
        .clone();
    let closing = CancellationToken::new();
    let cx = engine.context(resource, "one", closing.clone());
    let limits = Limits {
        head_timeout: limit,
        body_timeout: limit,
        ..Limits::default()
    };
    let api = Arc::new(Api::new(config, &cx).unwrap());
    let worker = Engine::within(limits, api, Arc::clone(&cx)).unwrap();
    started(engine, (worker, cx, closing)).await
}

async fn started(
    engine: Arc<StandIn>,
    (worker, cx, closing): (Arc<dyn Worker>, Arc<WorkerContext>, CancellationToken),
) -> Server {
    let runs = Arc::clone(&worker);
    let running = tokio::spawn(async move { runs.run(cx).await });
    let address = engine.address().await.unwrap();
    Server {
        engine,
        worker,
        closing,
        address,
        running,
    }
}

/// A parsed answer.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn says_json(&self) -> bool {
        self.head.contains("content-type: application/json")
    }

    /// What the answer calls its error; it must have this status.
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.says_json(), "{}", self.head);
        assert!(self.json()["message"].is_string(), "{}", self.body);
        self.json()["error"].as_str().unwrap().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn parse(bytes: &[u8]) -> Got {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Got {
        status: status.unwrap_or_else(|| panic!("no answer in {text:?}")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

async fn read_all(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    parse(&bytes)
}

/// Reads one answer with `Content-Length`, leaving the connection open.
async fn read_one(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            bytes.push(stream.read_u8().await.unwrap());
            if bytes.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = parse(&bytes).head;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse::<usize>().unwrap());
        for _ in 0..length {
            bytes.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
    parse(&bytes)
}

/// The bytes of a request that closes its connection.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let head =
        format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}{length}\r\n");
    [head.as_bytes(), body].concat()
}

impl Server {
    async fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn call(&self, line: &str, headers: &str, body: &[u8]) -> Got {
        let mut stream = self.open(&request(line, headers, body)).await;
        read_all(&mut stream).await
    }

    async fn get(&self, target: &str) -> Got {
        self.call(&format!("GET {target}"), "", b"").await
    }

    /// The `index`-th published message, which must be inbound.
    async fn inbound(&self, index: usize) -> UserMessage {
        let output = self.engine.output(index).await.unwrap();
        let port = Port::new("api", Flow::Inbound);
        assert_eq!(output.port, port);
        let Message::User(message) = output.message else {
            panic!("not a user message");
        };
        message
    }

    async fn outbound(&self, message: &UserMessage) -> Output {
        handle(&self.worker, message).await
    }

    async fn pending(&self) -> u64 {
        self.get("/health").await.json()["pending_requests"]
            .as_u64()
            .unwrap()
    }

    async fn stop(self) {
        self.closing.cancel();
        let ran = tokio::time::timeout(PATIENCE, self.running).await;
        ran.unwrap().unwrap().unwrap();
        tokio::time::timeout(PATIENCE, self.worker.close())
            .await
            .unwrap();
    }
}

async fn handle(worker: &Arc<dyn Worker>, message: &UserMessage) -> Output {
    let input = Input {
        port: Port::new("api", Flow::Outbound),
        message: message.clone().into(),
        attempt: 1,
    };
    let mut outputs = worker.handle(input).await.unwrap();
    assert_eq!(outputs.len(), 1, "one outbound, one outcome");
    outputs.remove(0)
}

/// The event of an outcome.
fn event(output: Output) -> Event {
    assert_eq!(output.port, Port::new("api", Flow::Event));
    match output.message {
        Message::Event(event) => event,
        Message::User(_) => panic!("not an event"),
    }
}
