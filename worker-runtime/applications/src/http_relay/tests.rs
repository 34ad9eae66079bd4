//! The relay against real servers: good ones, and ones that hang, redirect in circles or never stop.

use super::Def;
use crate::testing::{handle, ids};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port, WorkerConfig};
use vumi_core::conformance::stand_in::{StandIn, resource};
use vumi_core::error::WorkError;
use vumi_core::message::{DeliveryStatus, Event, Fate, Message, SessionEvent, UserMessage};
use vumi_core::secrets::Secrets;
use vumi_core::status::StatusLevel;
use vumi_core::worker::{Input, Listener, Worker, WorkerType};
use vumi_http::webhook::signing_key;
use vumi_http::{Answer, Encoding, Head, Limits, Reply, Request, Server, Service, Signed};

const PATIENCE: Duration = Duration::from_secs(20);
const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// An endpoint that answers each request alike, and keeps it.
struct Endpoint {
    answer: Mutex<Answer>,
    seen: Mutex<Vec<Request>>,
    address: SocketAddr,
    closing: CancellationToken,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

struct Answers(Arc<Endpoint>);

#[async_trait]
impl Service for Answers {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        self.0.seen.lock().unwrap().push(request);
        self.0.answer.lock().unwrap().clone().into()
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let mut answer = Answer::text(status.try_into().unwrap(), body.into());
    for (name, value) in headers {
        let name = http::HeaderName::from_static(name);
        answer = answer.with(name, value.parse().unwrap());
    }
    answer
}

impl Endpoint {
    async fn open(answer: Answer) -> Arc<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Arc::new(Self {
            answer: Mutex::new(answer),
            seen: Mutex::default(),
            address: socket.local_addr().unwrap(),
            closing: CancellationToken::new(),
        });
        let service: Arc<dyn Service> = Arc::new(Answers(Arc::clone(&endpoint)));
        let closing = endpoint.closing.clone();
        tokio::spawn(async move {
            let server = Server::new(Limits::default());
            let listener = Listener::new(Arc::new(socket));
            server.serve(listener, &closing, service, |_| {}).await;
        });
        endpoint
    }

    fn url(&self) -> String {
        format!("http://{}/in?key=1", self.address)
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A relay with what it tells the engine.
struct Relay {
    worker: Arc<dyn Worker>,
    stand_in: Arc<StandIn>,
    cx: Arc<vumi_core::worker::WorkerContext>,
}

async fn built(name: &str, config: Value) -> Result<Relay, WorkError> {
    let client = json!({"connectTimeout": "1s", "answerTimeout": "1s", "maxAnswer": "4Ki"});
    let spec = json!({"httpRelay": config, "client": client, "transportName": "ussd"});
    let manifest = json!({"kind": "Application", "metadata": {"name": name}, "spec": spec});
    let resource = resource(&manifest).unwrap();
    let config = vumi_api::applications::HttpRelay::pick(&resource)
        .unwrap()
        .clone();
    let stand_in = StandIn::new();
    let secrets = Secrets::new(secrets(OLD), None);
    let closing = CancellationToken::new();
    let cx = stand_in.context_with(resource, "one", closing, secrets);
    let worker = Def::build(config, Arc::clone(&cx)).await?;
    Ok(Relay {
        worker,
        stand_in,
        cx,
    })
}

async fn relay(config: Value) -> Relay {
    built("crm", config).await.unwrap()
}

fn secrets(signing: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let keys = [("password", "s3cret"), ("signing", signing), ("old", OLD)];
    let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
    BTreeMap::from([("crm".to_owned(), BTreeMap::from(keys))])
}

fn of(key: &str) -> Value {
    json!({"secretKeyRef": {"name": "crm", "key": key}})
}

fn message(id: &str, content: Option<&str>) -> UserMessage {
    let mut message = UserMessage::new("ussd", Some("*120#"), Some("+27820000001"));
    message.set_message_id(id);
    message.set_transport_name("ussd_real");
    message.set_content(content);
    message.set_field("customer_extension", json!({"kept": [1, null]}));
    message
}

impl Relay {
    async fn says(&self, id: &str) -> Result<Vec<String>, WorkError> {
        let said = handle(&self.worker, &message(id, Some("hello"))).await?;
        ids(&said);
        Ok(said
            .iter()
            .map(|m| m.content().unwrap().to_owned())
            .collect())
    }

    async fn event(&self, event: Event) {
        let input = Input {
            port: Port::new("ussd", Flow::Event),
            message: event.into(),
            attempt: 1,
        };
        let outputs = self.worker.handle(input).await.unwrap();
        assert!(outputs.is_empty(), "events are not answered");
    }

    fn status(&self) -> (StatusLevel, String) {
        let reports = self.stand_in.reports();
        let last = reports.last().expect("a status");
        assert_eq!(last.component, "endpoint");
        (last.level, last.reason.clone())
    }
}

fn header<'r>(request: &'r Request, name: &str) -> &'r str {
    let value = request.head.headers.get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_message_is_relayed_whole_and_the_answer_is_the_reply() {
    let reply = answer(200, &[("x-vumi-httprelay-reply", "TRUE")], " Zoë ☃\n");
    let endpoint = Endpoint::open(reply).await;
    let auth = json!({"username": "vumi", "password": of("password")});
    let relay = relay(json!({"url": endpoint.url(), "auth": auth})).await;
    let sent = message("m1", Some("hello"));
    let replies = handle(&relay.worker, &sent).await.unwrap();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].content(), Some("Zoë ☃"));
    assert_eq!(replies[0].in_reply_to(), Some("m1"));
    assert_eq!(replies[0].session_event(), None, "the session goes on");
    let seen = endpoint.take();
    let [request] = seen.as_slice() else {
        panic!("{} requests", seen.len());
    };
    assert_eq!(request.head.method, "POST");
    assert_eq!(
        (&*request.head.path, &*request.head.query),
        ("/in", "key=1")
    );
    assert_eq!(UserMessage::decode(&request.body).unwrap(), sent);
    assert_eq!(header(request, "content-type"), "application/json");
    assert_eq!(header(request, "authorization"), "Basic dnVtaTpzM2NyZXQ=");
    assert_eq!(header(request, "webhook-id").len(), 32);
    assert_eq!(header(request, "webhook-signature"), "", "nothing signs");
    assert_eq!(
        relay.status(),
        (StatusLevel::Ok, "endpoint_answered".into())
    );
    // The same once more: whoever gets it can tell, and the reply has the same id.
    let again = handle(&relay.worker, &sent).await.unwrap();
    assert_eq!(again[0].message_id(), replies[0].message_id());
    let repeated = endpoint.take();
    assert_eq!(
        header(&repeated[0], "webhook-id"),
        header(request, "webhook-id")
    );
    relay.says("m2").await.unwrap();
    let other = endpoint.take();
    assert_ne!(
        header(&other[0], "webhook-id"),
        header(request, "webhook-id")
    );
}

#[tokio::test]
async fn what_each_answer_leads_to() {
    let endpoint = Endpoint::open(answer(200, &[], "")).await;
    let relay = relay(json!({"url": endpoint.url(), "method": "PUT"})).await;
    let reply = ("x-vumi-httprelay-reply", "true");
    let large = vec![b'x'; 5000];
    let table = [
        (
            answer(200, &[reply], "pong"),
            Ok(Some("pong")),
            "endpoint_answered",
        ),
        (answer(200, &[reply], " \n"), Ok(None), "endpoint_answered"),
        (answer(200, &[], "pong"), Ok(None), "endpoint_answered"),
        (
            answer(200, &[("x-vumi-httprelay-reply", "yes")], "pong"),
            Ok(None),
            "endpoint_answered",
        ),
        (answer(201, &[reply], "pong"), Ok(None), "endpoint_answered"),
        (answer(204, &[], ""), Ok(None), "endpoint_answered"),
        (
            answer(200, &[], large.clone()),
            Ok(None),
            "endpoint_answered",
        ),
        (
            answer(200, &[reply], large),
            Err(("remote_permanent", "relay.reply_unusable")),
            "endpoint_refuses",
        ),
        (
            answer(200, &[reply], b"\xff\xfe".to_vec()),
            Err(("remote_permanent", "relay.reply_unusable")),
            "endpoint_refuses",
        ),
        (
            answer(301, &[("location", "/in")], ""),
            Err(("remote_permanent", "relay.redirected")),
            "endpoint_refuses",
        ),
        (
            answer(400, &[], ""),
            Err(("remote_permanent", "relay.refused")),
            "endpoint_refuses",
        ),
        (
            answer(404, &[], ""),
            Err(("remote_permanent", "relay.refused")),
            "endpoint_refuses",
        ),
        (
            answer(410, &[], ""),
            Err(("remote_permanent", "relay.refused")),
            "endpoint_refuses",
        ),
        (
            answer(401, &[], ""),
            Err(("auth", "peer.credentials")),
            "endpoint_credentials",
        ),
        (
            answer(403, &[], ""),
            Err(("auth", "peer.credentials")),
            "endpoint_credentials",
        ),
        (
            answer(408, &[], ""),
            Err(("remote_temporary", "peer.failed")),
            "endpoint_failed",
        ),
        (
            answer(429, &[("retry-after", "7")], ""),
            Err(("throttled", "peer.throttled")),
            "endpoint_throttles",
        ),
        (
            answer(500, &[reply], "pong"),
            Err(("remote_temporary", "peer.failed")),
            "endpoint_failed",
        ),
        (
            answer(503, &[], ""),
            Err(("remote_temporary", "peer.failed")),
            "endpoint_failed",
        ),
        (
            answer(503, &[("retry-after", "7")], ""),
            Err(("throttled", "peer.throttled")),
            "endpoint_throttles",
        ),
        (
            answer(504, &[], ""),
            Err(("timeout", "peer.timeout")),
            "endpoint_lost",
        ),
    ];
    for (n, (answer, expected, reason)) in table.into_iter().enumerate() {
        let status = answer.status;
        endpoint.answers(answer);
        let came = relay.says(&format!("m{n}")).await;
        let came = came.map_err(|error| (error.class.label(), error.code.name));
        let expected = expected
            .map(|text: Option<&str>| text.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(came, expected, "row {n}: {status}");
        assert_eq!(relay.status().1, reason, "row {n}: {status}");
        let seen = endpoint.take();
        assert_eq!(seen.len(), 1, "row {n}: one request, nothing is followed");
        assert_eq!(seen[0].head.method, "PUT");
    }
}

#[tokio::test]
async fn which_messages_and_events_are_relayed() {
    let reply = answer(200, &[("x-vumi-httprelay-reply", "true")], "not for events");
    let endpoint = Endpoint::open(reply).await;
    let events = Endpoint::open(answer(204, &[], "")).await;
    let all = json!({"url": endpoint.url(), "eventUrl": events.url()});
    let some = json!({"url": endpoint.url(), "events": ["ack", "deliveryReport"]});
    let none = json!({"url": endpoint.url(), "events": []});
    let fate = Fate {
        state: vumi_core::message::FateState::Failed,
        class: "route".into(),
        code: "1".into(),
        text: "No way leads there.".into(),
        who: "nobody".into(),
        attempt: 1,
        is_final: true,
    };
    let told = [
        Event::ack("m", "r"),
        Event::nack("m", &fate),
        Event::delivery_report("m", "r", DeliveryStatus::Delivered),
    ];
    for (config, at_events, at_url) in [(all, 3, 0), (some, 0, 2), (none, 0, 0)] {
        let relay = relay(config).await;
        for event in &told {
            relay.event(event.clone()).await;
        }
        let seen = events.take();
        assert_eq!((seen.len(), endpoint.take().len()), (at_events, at_url));
        for (request, event) in seen.iter().zip(&told) {
            let body = Message::decode(Flow::Event, &request.body).unwrap();
            assert_eq!(body, event.clone().into());
        }
    }
    let relay = relay(json!({"url": endpoint.url()})).await;
    for (session, relayed) in [
        (SessionEvent::New, 1),
        (SessionEvent::Resume, 1),
        (SessionEvent::Close, 0),
    ] {
        let mut message = message("s", None);
        message.set_session_event(Some(session));
        let said = handle(&relay.worker, &message).await.unwrap();
        assert_eq!((said.len(), endpoint.take().len()), (relayed, relayed));
    }
}

/// Whether a request has a right signature by this secret.
fn is_signed(request: &Request, secret: &str) -> bool {
    let (id, sent) = (
        header(request, "webhook-id"),
        header(request, "webhook-timestamp"),
    );
    let signed = Signed {
        id: Some(id),
        timestamp: Some(sent),
        body: &request.body,
    };
    let keys = [signing_key(secret).unwrap()];
    let given = header(request, "webhook-signature");
    let tolerance = Duration::from_secs(60);
    let now = SystemTime::now();
    let verified = signed.verify(given, "v1,", Encoding::Base64, &keys, tolerance, now);
    verified.is_ok()
}

#[tokio::test]
async fn either_secret_signs_while_one_replaces_the_other() {
    let endpoint = Endpoint::open(answer(204, &[], "")).await;
    let config = |keys: &[&str]| {
        let secrets: Vec<Value> = keys.iter().map(|key| of(key)).collect();
        json!({"url": endpoint.url(), "signing": {"secrets": secrets}})
    };
    let (one, two) = (
        relay(config(&["signing"])).await,
        relay(config(&["signing", "old"])).await,
    );
    let signed_by = async |relay: &Relay| {
        relay.says("m").await.unwrap();
        let seen = endpoint.take();
        [OLD, NEW].map(|secret| is_signed(&seen[0], secret))
    };
    assert_eq!(signed_by(&one).await, [true, false]);
    for relay in [&one, &two] {
        relay.cx.secrets().replace(secrets(NEW));
    }
    assert_eq!(signed_by(&one).await, [false, true], "without a restart");
    assert_eq!(signed_by(&two).await, [true, true]);
    // Half of a rotation: what cannot be signed waits, and is not sent without a signature.
    two.cx.secrets().replace(BTreeMap::new());
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "secret.missing")
    );
    assert_eq!(
        two.status(),
        (StatusLevel::Down, "endpoint_credentials".into())
    );
    two.cx.secrets().replace(secrets(""));
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "secret.empty")
    );
    assert!(endpoint.take().is_empty(), "nothing goes out unsigned");
    two.cx.secrets().replace(secrets("change-me"));
    let error = two.says("m").await.unwrap_err();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("auth", "config.invalid")
    );
    assert!(!error.text.contains("change-me"));
    assert!(endpoint.take().is_empty());
    // At the start it is said at once.
    let error = built("crm", config(&["password"])).await.err().unwrap();
    assert_eq!(
        (error.class.label(), error.code.name),
        ("config", "config.invalid")
    );
}

#[tokio::test]
async fn two_relays_of_one_message_are_two_deliveries() {
    let endpoint = Endpoint::open(answer(204, &[], "")).await;
    for name in ["crm", "archive"] {
        let relay = built(name, json!({"url": endpoint.url()})).await.unwrap();
        relay.says("m").await.unwrap();
    }
    let seen = endpoint.take();
    assert_ne!(
        header(&seen[0], "webhook-id"),
        header(&seen[1], "webhook-id")
    );
}

/// A server that reads a request and then does as `answer` says, on each connection.
async fn server<F: Future<Output = ()> + Send>(
    answer: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut some = [0; 4096];
                match stream.read(&mut some).await {
                    Ok(count) if count > 0 => read.extend_from_slice(&some[..count]),
                    _ => break,
                }
            }
            answer(stream).await;
        }
    });
    format!("http://{address}/")
}

/// Whatever an endpoint does, an attempt ends soon, takes little memory, and is told.
#[tokio::test]
async fn endpoints_that_hang_stop_halfway_or_never_stop() {
    let hangs = server(|stream| async move {
        std::mem::forget(stream);
    })
    .await;
    let hangs_up = server(|stream| async move { drop(stream) }).await;
    let half = server(|mut stream| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nX-Vumi-HTTPRelay-Reply: true\r\nContent-Length: 100\r\n\r\nhalf")
            .await;
    })
    .await;
    let trickles = server(|mut stream| async move {
        let head =
            b"HTTP/1.1 200 OK\r\nX-Vumi-HTTPRelay-Reply: true\r\nContent-Length: 1000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let not_http = server(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    let nobody = {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", socket.local_addr().unwrap())
    };
    for (url, class, code, status) in [
        (
            hangs,
            "timeout",
            "peer.timeout",
            (StatusLevel::Degraded, "endpoint_lost"),
        ),
        (
            hangs_up,
            "timeout",
            "peer.timeout",
            (StatusLevel::Degraded, "endpoint_lost"),
        ),
        (
            half,
            "timeout",
            "peer.timeout",
            (StatusLevel::Degraded, "endpoint_lost"),
        ),
        (
            trickles,
            "timeout",
            "peer.timeout",
            (StatusLevel::Degraded, "endpoint_lost"),
        ),
        (
            not_http,
            "timeout",
            "peer.timeout",
            (StatusLevel::Degraded, "endpoint_lost"),
        ),
        (
            nobody,
            "connect",
            "peer.unreachable",
            (StatusLevel::Down, "endpoint_unreachable"),
        ),
    ] {
        let relay = relay(json!({"url": url})).await;
        let began = Instant::now();
        let error = relay.says("m").await.unwrap_err();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert_eq!(
            (error.class.label(), error.code.name),
            (class, code),
            "{url}"
        );
        assert_eq!(relay.status(), (status.0, status.1.into()), "{url}");
        assert_eq!(relay.stand_in.reports().len(), 1, "one word of it");
        assert!(!error.text.contains("127.0.0.1"), "{}", error.text);
    }
}

#[tokio::test]
async fn of_an_answer_of_100_mb_the_beginning_is_read() {
    const SIZE: usize = 100 << 20;
    let written = Arc::new(Mutex::new(0));
    let counts = Arc::clone(&written);
    let url = server(move |mut stream| {
        let counts = Arc::clone(&counts);
        async move {
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Vumi-HTTPRelay-Reply: true\r\nContent-Length: {SIZE}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let some = vec![b'x'; 64 << 10];
            for _ in 0..SIZE / some.len() {
                if stream.write_all(&some).await.is_err() {
                    break;
                }
                *counts.lock().unwrap() += some.len();
            }
        }
    })
    .await;
    let relay = relay(json!({"url": url})).await;
    let error = relay.says("m").await.unwrap_err();
    assert_eq!(error.code.name, "relay.reply_unusable");
    assert_eq!(
        relay.status(),
        (StatusLevel::Degraded, "endpoint_refuses".into())
    );
    // The rest stays with the kernel's buffers and the server.
    let written = *written.lock().unwrap();
    assert!(written < SIZE / 2, "{written} bytes were taken");
}

#[tokio::test]
async fn an_empty_secret_does_not_start() {
    let empty = json!({"value": ""});
    for config in [
        json!({"url": "http://127.0.0.1:9/", "auth": {"username": "me", "password": empty}}),
        json!({"url": "http://127.0.0.1:9/", "signing": {"secrets": [of("signing"), empty]}}),
    ] {
        let error = built("crm", config).await.err().expect("it does not start");
        assert_eq!(
            (error.class.label(), error.code.name),
            ("config", "secret.empty")
        );
    }
}

/// The recipe of the page is run over the published vectors, with what must be right and what must not.
#[test]
fn the_recipe_in_the_documentation_verifies_the_vectors() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/webhooks.md")).unwrap();
    let recipe = page.split("```python\n").nth(1).unwrap();
    let recipe = recipe.split("```").next().unwrap();
    let vectors = root.join("docs/webhook-vectors.json");
    let check = format!(
        r#"{recipe}
import json, sys
vectors = json.load(open(sys.argv[1], encoding="utf-8"))
other = "whsec_" + base64.b64encode(b"x" * 32).decode()
for vector in vectors:
    body, sent = vector["body"].encode(), vector["timestamp"]
    headers = {{"webhook-id": vector["id"], "webhook-timestamp": str(sent), "webhook-signature": vector["signature"]}}
    for secret in vector["secrets"]:
        assert verify(secret, headers, body, now=sent + 300), vector["name"]
        assert not verify(secret, headers, body, now=sent + 301), "too old"
        assert not verify(secret, headers, body, now=sent - 301), "of the future"
        assert not verify(secret, headers, body + b" ", now=sent), "another body"
        assert not verify(secret, {{**headers, "webhook-id": "x"}}, body, now=sent), "another id"
    assert not verify(other, headers, body, now=sent), "another secret"
    for name in headers:
        for bad in ("", "x", "v1,", "v1", "1e9", "-1", "\u0661\u0662", "\u20ac\udcff", "9" * 5000, " ", "v1,\u00e9 v2,=="):
            assert not verify(vector["secrets"][0], {{**headers, name: bad}}, body, now=sent), (name, bad)
        lacks = {{key: value for key, value in headers.items() if key != name}}
        assert not verify(vector["secrets"][0], lacks, body, now=sent), "without " + name
    assert not verify(vector["secrets"][0], {{}}, body, now=sent), "without any"
print(len(vectors))
"#
    );
    let python = vumi_testkit::python_with("hmac").expect("python3 runs the recipe");
    let output = std::process::Command::new(python)
        .args(["-B", "-c", &check])
        .arg(vectors)
        .output()
        .expect("python3 runs the recipe");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "6");
}
