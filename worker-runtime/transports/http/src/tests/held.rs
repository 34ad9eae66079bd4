//! Requests held for their reply: matching, deadlines, callers that leave, two replicas, graceful stop.

use super::*;
use bytes::Bytes;
use vumi_core::message::derived_id;
use vumi_core::worker::Services;
use vumi_http::{Answer, StatusCode};

const GOOD: &str = "/?content=ping&to_addr=555&from_addr=123";

async fn holding(http: Value) -> Server {
    server(json!({"replyExpected": true, "idField": "id"}), http).await
}

impl Server {
    /// Opens a request and waits until it is published as message `index`.
    async fn held(&self, target: &str, index: usize) -> (TcpStream, UserMessage) {
        let bytes = request(&format!("GET {target}"), "", b"");
        let stream = self.open(&bytes).await;
        (stream, self.inbound(index).await)
    }

    async fn until_pending(&self, expected: u64) {
        let wait = async {
            while self.pending().await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    }
}

fn refused(output: Output) -> String {
    let event = event(output);
    assert_eq!(event.event_type(), EventType::Nack);
    event.fate().unwrap().code
}

#[tokio::test]
async fn the_reply_is_the_answer_and_is_acked_once_written() {
    let server = holding(json!({})).await;
    let (mut caller, message) = server.held(GOOD, 0).await;
    assert_eq!(
        message.transport_metadata().unwrap()["vumi_holder"],
        "api.reply.one"
    );
    assert_eq!(server.pending().await, 1);
    let reply = message.reply("a", 0, Some("pong ☃"), false);
    let event = event(server.outbound(&reply).await);
    assert_eq!(event.event_type(), EventType::Ack);
    assert_eq!(event.user_message_id(), reply.message_id());
    assert_eq!(event.field("sent_message_id").unwrap(), reply.message_id());
    assert_eq!(event.transport_name(), Some("api"));
    let got = read_all(&mut caller).await;
    assert_eq!((got.status, got.body.as_str()), (200, "pong ☃"));
    assert!(got.head.contains("content-type: text/plain"));
    assert_eq!(server.pending().await, 0);
}

#[tokio::test]
async fn a_reply_that_outruns_the_confirmation_waits_for_it() {
    let server = holding(json!({"requestTimeout": "5s"})).await;
    server.engine.hang(true);
    let bytes = request(&format!("GET {GOOD}&id=7"), "", b"");
    let mut caller = server.open(&bytes).await;
    server.until_pending(1).await;
    let id = vumi_core::message::derived_id(&["inbound", "api", "7"]);
    let mut inbound = UserMessage::new("http_api", None, Some("123"));
    inbound.set_message_id(&id);
    let reply = inbound.reply("a", 0, Some("early"), false);
    let worker = Arc::clone(&server.worker);
    let outcome = tokio::spawn(async move { handle(&worker, &reply).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        !outcome.is_finished(),
        "no ack before the answer is written"
    );
    server.engine.hang(false);
    assert_eq!(event(outcome.await.unwrap()).event_type(), EventType::Ack);
    assert_eq!(read_all(&mut caller).await.body, "early");
}

#[tokio::test]
async fn replies_that_cannot_be_delivered_get_a_nack() {
    let server = holding(json!({})).await;
    let (mut caller, message) = server.held(GOOD, 0).await;
    for (in_reply_to, content, expected) in [
        (None, Some("hey"), "content: Missing fields: in_reply_to"),
        (None, None, "content: Missing fields: in_reply_to, content"),
        (
            Some(""),
            Some(""),
            "content: Missing fields: in_reply_to, content",
        ),
        (Some("m"), Some(""), "content: Missing fields: content"),
    ] {
        let mut out = UserMessage::new("http_api", None, None);
        out.set_field("in_reply_to", in_reply_to);
        out.set_content(content);
        let event = event(server.outbound(&out).await);
        assert_eq!(event.field("nack_reason").unwrap(), expected);
    }
    let mut stray = UserMessage::new("http_api", None, None);
    stray.set_field("in_reply_to", "unknown");
    stray.set_content(Some("hey"));
    assert_eq!(
        refused(server.outbound(&stray).await),
        codes::SESSION_CLOSED.name
    );

    let first = message.reply("a", 0, Some("one"), false);
    let second = message.reply("a", 1, Some("two"), false);
    let acked = event(server.outbound(&first).await);
    assert_eq!(
        refused(server.outbound(&second).await),
        codes::SESSION_CLOSED.name
    );
    let repeated = event(server.outbound(&first).await);
    assert_eq!(
        repeated.event_type(),
        EventType::Ack,
        "the engine repeats, the caller has it"
    );
    assert_eq!(repeated.event_id(), acked.event_id());
    assert_eq!(read_all(&mut caller).await.body, "one");
}

#[tokio::test]
async fn a_refused_reply_is_told_to_its_caller_at_once_by_the_replica_that_holds_the_request() {
    let one = holding(json!({})).await;
    let spec =
        json!({"httpApi": {"replyExpected": true}, "http": {"host": "127.0.0.1", "port": 8080}});
    let (two, _, _) = built(&StandIn::new(), "two", spec).await.unwrap();
    for content in [Some(""), None] {
        let index = one.engine.outputs().len();
        let (mut caller, message) = one.held(GOOD, index).await;
        let reply = message.reply("a", 0, content, false);
        let holder = elsewhere(&*two, "two", &reply);
        assert_eq!(holder.as_deref(), Some("api.reply.one"));

        let first = event(one.outbound(&reply).await);
        assert_eq!(
            first.field("nack_reason").unwrap(),
            "content: Missing fields: content"
        );
        assert_eq!(first.fate().unwrap().code, codes::REPLY_FIELDS.name);
        let got = read_all(&mut caller).await;
        assert_eq!(got.error(502), codes::REPLY_FIELDS.name);
        assert_eq!(one.pending().await, 0);
        let again = event(one.outbound(&reply).await);
        assert_eq!(again.event_id(), first.event_id());
    }
}

#[tokio::test]
async fn no_reply_in_time_is_504() {
    let server = holding(json!({"requestTimeout": "200ms"})).await;
    let (mut caller, message) = server.held(GOOD, 0).await;
    let got = read_all(&mut caller).await;
    assert_eq!(got.error(504), "gateway_timeout");
    assert_eq!(server.pending().await, 0);
    let late = message.reply("a", 0, Some("late"), false);
    assert_eq!(
        refused(server.outbound(&late).await),
        codes::SESSION_CLOSED.name
    );
    let reports = server.engine.reports();
    let timeout = reports.iter().find(|r| r.component == "response").unwrap();
    assert_eq!(
        (timeout.level, timeout.reason.as_str()),
        (StatusLevel::Down, "timeout")
    );
    // Nobody asks any more, and the trouble is not told for ever.
    let forgiven = async {
        while server.engine.reports().last().unwrap().reason != "no_late_response" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgiven).await.unwrap();
    assert_eq!(
        server.engine.reports().last().unwrap().level,
        StatusLevel::Ok
    );
}

#[tokio::test]
async fn a_slow_reply_is_reported() {
    let server = holding(json!({})).await;
    let (mut caller, message) = server.held(GOOD, 0).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server
        .outbound(&message.reply("a", 0, Some("x"), false))
        .await;
    assert_eq!(read_all(&mut caller).await.status, 200);
    let reports = server.engine.reports();
    let slow = reports.iter().find(|r| r.component == "response").unwrap();
    assert_eq!(
        (slow.level, slow.reason.as_str()),
        (StatusLevel::Degraded, "slow_response")
    );
}

#[tokio::test]
async fn a_caller_that_leaves_is_forgotten() {
    let server = holding(json!({})).await;
    let (caller, message) = server.held(GOOD, 0).await;
    drop(caller);
    server.until_pending(0).await;
    let reply = message.reply("a", 0, Some("pong"), false);
    assert_eq!(
        refused(server.outbound(&reply).await),
        codes::SESSION_CLOSED.name
    );
}

#[tokio::test]
async fn a_repeat_of_a_held_request_waits_for_the_same_reply() {
    let server = holding(json!({})).await;
    let target = format!("{GOOD}&id=7");
    let (mut first, message) = server.held(&target, 0).await;
    let bytes = request(&format!("GET {target}"), "", b"");
    let mut again = server.open(&bytes).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let reply = message.reply("a", 0, Some("once"), false);
    assert_eq!(
        event(server.outbound(&reply).await).event_type(),
        EventType::Ack
    );
    assert_eq!(read_all(&mut first).await.body, "once");
    assert_eq!(read_all(&mut again).await.body, "once");
    assert_eq!(server.engine.outputs().len(), 1, "published once");
    assert_eq!(server.engine.repeats(), 1);
}

/// Another replica holds the request, and what was seen of it is forgotten while its repeat waits here: the repeat waits on,
/// and gets the answer when that is known.
#[tokio::test]
async fn a_repeat_that_waits_only_looks() {
    let server = holding(json!({})).await;
    let engine = &server.engine;
    engine.remember();
    let id = derived_id(&["inbound", "api", "9"]);
    engine.answered(&id, Bytes::new(), None).await;
    let bytes = request(&format!("GET {GOOD}&id=9"), "", b"");
    let mut again = server.open(&bytes).await;
    let recognised = async {
        while engine.repeats() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recognised).await.unwrap();
    // It looks once a second.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    engine.forget(&id);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(engine.outputs().is_empty(), "a second message");
    assert_eq!(server.pending().await, 1);
    let answer = Answer::text(StatusCode::OK, "pong").kept().unwrap();
    engine.answered(&id, answer, None).await;
    assert_eq!(read_all(&mut again).await.body, "pong");
    assert!(engine.outputs().is_empty(), "a second message");
    assert_eq!(engine.repeats(), 1, "counted once");
}

#[tokio::test]
async fn a_repeat_after_the_reply_gets_the_first_answer() {
    let server = holding(json!({})).await;
    server.engine.remember();
    let target = format!("{GOOD}&id=8");
    let (mut first, message) = server.held(&target, 0).await;
    let reply = message.reply("a", 0, Some("once"), false);
    server.outbound(&reply).await;
    assert_eq!(read_all(&mut first).await.body, "once");
    let again = server.get(&target).await;
    assert_eq!((again.status, again.body.as_str()), (200, "once"));
    assert_eq!(server.engine.outputs().len(), 1, "published once");
    assert_eq!(server.pending().await, 0);
}

/// A reply that nobody was there to take, or that was refused, is none that a repeat could wait for; and what was answered
/// stays answered, whatever else the application says.
#[tokio::test]
async fn a_repeat_after_a_reply_that_reached_nobody_is_told_so() {
    let server = holding(json!({})).await;
    server.engine.remember();
    let gone = format!("{GOOD}&id=1");
    let (caller, message) = server.held(&gone, 0).await;
    drop(caller);
    server.until_pending(0).await;
    let reply = message.reply("a", 0, Some("too late"), false);
    assert_eq!(
        refused(server.outbound(&reply).await),
        codes::SESSION_CLOSED.name
    );
    let again = server.get(&gone).await;
    assert_eq!(again.error(502), codes::SESSION_CLOSED.name);

    let empty = format!("{GOOD}&id=2");
    let (mut caller, message) = server.held(&empty, 1).await;
    let reply = message.reply("a", 0, Some(""), false);
    assert_eq!(
        refused(server.outbound(&reply).await),
        codes::REPLY_FIELDS.name
    );
    for got in [read_all(&mut caller).await, server.get(&empty).await] {
        assert_eq!(got.error(502), codes::REPLY_FIELDS.name);
    }

    let answered = format!("{GOOD}&id=3");
    let (mut caller, message) = server.held(&answered, 2).await;
    server
        .outbound(&message.reply("a", 0, Some("one"), false))
        .await;
    for (number, content) in [(1, "two"), (2, "")] {
        let reply = message.reply("a", number, Some(content), false);
        refused(server.outbound(&reply).await);
    }
    for got in [read_all(&mut caller).await, server.get(&answered).await] {
        assert_eq!((got.status, got.body.as_str()), (200, "one"));
    }
    assert_eq!(server.engine.outputs().len(), 3, "each published once");
}

/// A request whose holder is gone comes again before its reply does: the reply is for whoever waits.
#[tokio::test]
async fn a_reply_goes_to_a_repeat_that_waits_here() {
    let server = holding(json!({})).await;
    let (_caller, message) = server.held(&format!("{GOOD}&id=4"), 0).await;
    let mut reply = message.reply("a", 0, Some("for you"), false);
    let metadata = reply.transport_metadata_mut();
    metadata.insert("vumi_holder".into(), "api.reply.gone".into());
    assert_eq!(elsewhere(&*server.worker, "one", &reply), None);
    let mut other = reply.clone();
    other.set_field("in_reply_to", Some("of another request"));
    assert_eq!(
        elsewhere(&*server.worker, "one", &other).as_deref(),
        Some("api.reply.gone")
    );
}

#[tokio::test]
async fn a_refused_request_is_not_held() {
    let server = holding(json!({})).await;
    let error = WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, "away");
    server.engine.refuse(Some(error));
    let got = server.get(GOOD).await;
    assert_eq!(got.status, 503);
    assert!(got.head.contains("retry-after"));
    assert_eq!(server.pending().await, 0);
}

#[tokio::test]
async fn two_replicas_forward_to_the_holder() {
    let one = holding(json!({})).await;
    let spec =
        json!({"httpApi": {"replyExpected": true}, "http": {"host": "127.0.0.1", "port": 8080}});
    let (two, _, _) = built(&StandIn::new(), "two", spec).await.unwrap();
    let (mut caller, message) = one.held(GOOD, 0).await;
    let reply = message.reply("a", 0, Some("pong"), false);
    let holder = elsewhere(&*two, "two", &reply);
    assert_eq!(holder.as_deref(), Some("api.reply.one"));

    assert_eq!(
        event(one.outbound(&reply).await).event_type(),
        EventType::Ack
    );
    assert_eq!(read_all(&mut caller).await.body, "pong");
    // The holder itself never forwards, so a reply cannot travel in circles.
    assert_eq!(elsewhere(&*one.worker, "one", &reply), None);
    let late = message.reply("a", 1, Some("late"), false);
    assert_eq!(
        refused(one.outbound(&late).await),
        codes::SESSION_CLOSED.name
    );
}

#[tokio::test]
async fn a_holder_that_is_not_a_reply_queue_of_this_transport_is_not_followed() {
    let server = holding(json!({})).await;
    for holder in [
        json!("billing.inbound"),
        json!("other.reply.x"),
        json!(7),
        Value::Null,
    ] {
        let (mut caller, message) = server.held(GOOD, server.engine.outputs().len()).await;
        let mut reply = message.reply("a", 0, Some("pong"), false);
        reply
            .transport_metadata_mut()
            .insert("vumi_holder".into(), holder);
        assert_eq!(
            event(server.outbound(&reply).await).event_type(),
            EventType::Ack
        );
        assert_eq!(read_all(&mut caller).await.body, "pong");
    }
}

#[tokio::test]
async fn a_stop_refuses_new_requests_and_finishes_held_ones() {
    let server = holding(json!({})).await;
    let keep = format!("GET {GOOD} HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut idle = server.open(b"").await;
    let mut silent = server.open(b"").await;
    let mut caller = server.open(keep.as_bytes()).await;
    let message = server.inbound(0).await;
    // The idle connection was taken before the intake closes.
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_one(&mut idle).await.status, 200);

    server.closing.cancel();
    let worker = Arc::clone(&server.worker);
    let drained = tokio::spawn(async move { worker.drained().await });
    idle.write_all(keep.as_bytes()).await.unwrap();
    let got = read_all(&mut idle).await;
    assert_eq!(got.error(503), "service_unavailable");
    let mut rest = Vec::new();
    let read = silent.read_to_end(&mut rest);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(rest.is_empty(), "who says nothing is let go");
    assert!(got.head.contains("retry-after: 1"), "{}", got.head);
    assert!(got.head.contains("connection: close"), "{}", got.head);
    assert!(!drained.is_finished(), "a request is still held");

    let reply = message.reply("a", 0, Some("pong"), false);
    assert_eq!(
        event(server.outbound(&reply).await).event_type(),
        EventType::Ack
    );
    tokio::time::timeout(PATIENCE, drained)
        .await
        .unwrap()
        .unwrap();
    let got = read_all(&mut caller).await;
    assert_eq!((got.status, got.body.as_str()), (200, "pong"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_still_held_at_the_end_is_told_to_try_again() {
    let server = holding(json!({})).await;
    let (mut caller, _) = server.held(GOOD, 0).await;
    server.stop().await;
    let got = read_all(&mut caller).await;
    assert_eq!(got.error(503), "service_unavailable");
    assert!(got.head.contains("retry-after"));
}

/// What is made of a body waits as long as its request, and there is no end to what callers may send.
#[tokio::test]
async fn requests_that_wait_count_with_their_bodies() {
    let server = holding(json!({})).await;
    let put = |body: &[u8]| request(&format!("PUT {GOOD}"), "", body);
    let large = put(&vec![b'x'; 1 << 20]);
    let mut callers = Vec::new();
    for index in 0..64 {
        callers.push(server.open(&large).await);
        server.inbound(index).await;
    }
    let got = read_all(&mut server.open(&put(b"x")).await).await;
    assert_eq!(got.error(503), "service_unavailable");
    assert!(got.head.contains("retry-after: 1"), "{}", got.head);
    let none = server.held(GOOD, 64).await;
    let reply = server.inbound(0).await.reply("a", 0, Some("pong"), false);
    server.outbound(&reply).await;
    assert_eq!(read_all(&mut callers[0]).await.body, "pong");
    let _taken = server.open(&put(b"x")).await;
    server.inbound(65).await;
    drop(none);
}
