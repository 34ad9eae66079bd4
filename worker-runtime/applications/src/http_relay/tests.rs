//! The relay against real servers: what it sends them and what it makes of their answers.

mod answers;
mod signing;

use super::Def;
use crate::testing::{handle, ids};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port, WorkerConfig};
use vumi_core::conformance::stand_in::{StandIn, resource};
use vumi_core::error::WorkError;
use vumi_core::message::{DeliveryStatus, Event, Fate, Message, SessionEvent, UserMessage};
use vumi_core::secrets::Secrets;
use vumi_core::status::StatusLevel;
use vumi_core::worker::{Input, Listener, Worker, WorkerType};
use vumi_http::{Answer, Head, Limits, Reply, Request, Server, Service};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

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
