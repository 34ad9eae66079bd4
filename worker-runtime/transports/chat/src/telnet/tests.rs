//! A telnet transport with real TCP clients and a stand-in for the engine.

use super::Def;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port, WorkerConfig};
use vumi_core::codes;
use vumi_core::conformance::stand_in::{PATIENCE, StandIn, resource};
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Event, EventType, Message, SessionEvent, UserMessage};
use vumi_core::worker::{Input, Worker, WorkerType};

struct Server {
    engine: Arc<StandIn>,
    worker: Arc<dyn Worker>,
    closing: CancellationToken,
    address: std::net::SocketAddr,
    running: tokio::task::JoinHandle<Result<(), WorkError>>,
}

async fn server(config: serde_json::Value) -> Server {
    let mut telnet = json!({"host": "127.0.0.1", "port": 9010});
    for (key, value) in config.as_object().unwrap() {
        telnet[key] = value.clone();
    }
    let manifest =
        json!({"kind": "Transport", "metadata": {"name": "chat"}, "spec": {"telnet": telnet}});
    let resource = resource(&manifest).unwrap();
    let config = vumi_api::transports::Telnet::pick(&resource)
        .unwrap()
        .clone();
    let engine = StandIn::new();
    let closing = CancellationToken::new();
    let cx = engine.context(resource, "one", closing.clone());
    let worker = Def::build(config, Arc::clone(&cx)).await.unwrap();
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

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The `index`-th published message, which must be inbound.
    async fn inbound(&self, index: usize) -> UserMessage {
        let output = self.engine.output(index).await.unwrap();
        let port = Port::new("chat", Flow::Inbound);
        assert_eq!(output.port, port);
        match output.message {
            Message::User(message) => message,
            Message::Event(event) => panic!("unexpected event {event:?}"),
        }
    }

    async fn send(&self, message: &UserMessage) -> Event {
        let input = Input {
            port: Port::new("chat", Flow::Outbound),
            message: message.clone().into(),
            attempt: 1,
        };
        let mut outputs = self.worker.handle(input).await.unwrap();
        assert_eq!(outputs.len(), 1);
        let output = outputs.remove(0);
        let port = Port::new("chat", Flow::Event);
        assert_eq!(output.port, port);
        match output.message {
            Message::Event(event) => event,
            Message::User(_) => panic!("a transport answers with events"),
        }
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let read = async {
        while !seen.ends_with(end) {
            let byte = stream.read_u8().await.unwrap();
            seen.push(byte);
        }
    };
    let done = tokio::time::timeout(PATIENCE, read).await;
    assert!(
        done.is_ok(),
        "waited for {:?}, saw {:?}",
        String::from_utf8_lossy(end),
        String::from_utf8_lossy(&seen)
    );
    seen
}

async fn read_line(stream: &mut TcpStream) -> String {
    String::from_utf8(read_until(stream, b"\r\n").await).unwrap()
}

async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    rest
}

#[tokio::test]
async fn a_conversation_from_hello_to_goodbye() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    let hello = server.inbound(0).await;
    assert_eq!(hello.session_event(), Some(SessionEvent::New));
    assert_eq!(hello.content(), None);
    let me = client.local_addr().unwrap().to_string();
    assert_eq!(hello.from_addr(), Some(me.as_str()));
    assert_eq!(hello.to_addr(), Some(server.address.to_string().as_str()));
    assert_eq!(hello.transport_name(), Some("chat"));
    assert_eq!(
        hello.field("transport_type").unwrap().as_str(),
        Some("telnet")
    );

    client.write_all(b"foo\r\n").await.unwrap();
    let foo = server.inbound(1).await;
    assert_eq!(foo.session_event(), Some(SessionEvent::Resume));
    assert_eq!(foo.content(), Some("foo"));

    let reply = foo.reply("application/a", 0, Some("a\nb"), false);
    let event = server.send(&reply).await;
    assert_eq!(event.event_type(), EventType::Ack);
    assert_eq!(event.user_message_id(), reply.message_id());
    assert_eq!(
        event.field("sent_message_id").unwrap().as_str(),
        Some(reply.message_id())
    );
    assert_eq!(read_until(&mut client, b"b\r\n").await, b"a\r\nb\r\n");

    let last = foo.reply("application/a", 1, Some("bye"), true);
    assert_eq!(server.send(&last).await.event_type(), EventType::Ack);
    assert_eq!(closed(&mut client).await, b"bye\r\n");
    let goodbye = server.inbound(2).await;
    assert_eq!(goodbye.session_event(), Some(SessionEvent::Close));
    assert_eq!(goodbye.content(), None);
    assert_eq!(goodbye.from_addr(), Some(me.as_str()));
}

#[tokio::test]
async fn partial_lines_are_kept_and_several_lines_are_several_messages() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    client.write_all(b"hel").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.engine.outputs().len(), 1);
    client.write_all(b"lo\r\ntwo\r\n\r\nfo").await.unwrap();
    client.write_all(b"ur\n").await.unwrap();
    for (index, text) in ["hello", "two", "", "four"].into_iter().enumerate() {
        assert_eq!(server.inbound(index + 1).await.content(), Some(text));
    }
}

#[tokio::test]
async fn negotiation_is_refused_and_never_part_of_a_line() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    let bytes = b"\xff\xfd\x01\xff\xfb\x1fh\xff\xfa\x18\x00x\xff\xf0i\r\0";
    client.write_all(bytes).await.unwrap();
    assert_eq!(server.inbound(1).await.content(), Some("hi"));
    let refused = read_until(&mut client, b"\xff\xfe\x1f").await;
    assert_eq!(refused, b"\xff\xfc\x01\xff\xfe\x1f");
}

#[tokio::test]
async fn bad_lines_are_answered_and_the_connection_goes_on() {
    let server = server(json!({"maxLine": "8"})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    client.write_all(b"\xc3\x28\n").await.unwrap();
    assert!(read_line(&mut client).await.contains("not UTF-8"));
    for _ in 0..1000 {
        client.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    client.write_all(b"\n12345678\n").await.unwrap();
    assert!(read_line(&mut client).await.contains("too long"));
    assert_eq!(server.inbound(1).await.content(), Some("12345678"));
}

#[tokio::test]
async fn each_client_gets_its_own_and_strangers_get_a_nack() {
    let server = server(json!({})).await;
    let mut clients = Vec::new();
    for index in 0..5 {
        let client = server.connect().await;
        let hello = server.inbound(index).await;
        assert_eq!(
            hello.from_addr(),
            Some(client.local_addr().unwrap().to_string().as_str())
        );
        clients.push((client, hello));
    }
    for (index, (client, hello)) in clients.iter_mut().enumerate() {
        let text = format!("for {index}");
        let event = server.send(&hello.reply("a", 0, Some(&text), false)).await;
        assert_eq!(event.event_type(), EventType::Ack);
        assert_eq!(read_line(client).await, format!("{text}\r\n"));
    }
    let mut stray = UserMessage::new("telnet", Some("192.0.2.1:5"), None);
    stray.set_content(Some("secret"));
    let fate = server.send(&stray).await.fate().unwrap();
    assert_eq!(fate.class, "recipient");
    assert_eq!(fate.code, codes::REPLY_NO_CLIENT.name);
    let nobody = UserMessage::new("telnet", None, None);
    let event = server.send(&nobody).await;
    assert_eq!(event.event_type(), EventType::Nack);
    assert_eq!(
        event.field("nack_reason").unwrap().as_str(),
        Some("content: Missing fields: to_addr")
    );
    for (client, _) in &mut clients {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(20), client.read(&mut byte));
        assert!(read.await.is_err(), "a stranger's message reached a client");
    }
}

#[tokio::test]
async fn a_repeated_outbound_message_is_acked_again_but_written_once() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    let hello = server.inbound(0).await;
    let once = hello.reply("a", 0, Some("once"), false);
    let first = server.send(&once).await;
    let again = server.send(&once).await;
    assert_eq!(first.event_id(), again.event_id());
    assert_eq!(again.event_type(), EventType::Ack);
    server.send(&hello.reply("a", 1, Some("next"), false)).await;
    assert_eq!(
        read_until(&mut client, b"next\r\n").await,
        b"once\r\nnext\r\n"
    );
}

#[tokio::test]
async fn quit_and_disconnect_both_end_the_session() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    client.write_all(b"/QUIT\r\nnever\r\n").await.unwrap();
    closed(&mut client).await;
    assert_eq!(
        server.inbound(1).await.session_event(),
        Some(SessionEvent::Close)
    );
    let client = server.connect().await;
    server.inbound(2).await;
    drop(client);
    assert_eq!(
        server.inbound(3).await.session_event(),
        Some(SessionEvent::Close)
    );
}

#[tokio::test]
async fn a_client_that_half_closes_still_gets_its_answer() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    let hello = server.inbound(0).await;
    server.send(&hello.reply("a", 0, Some("hi"), false)).await;
    client.write_all(b"ping\n").await.unwrap();
    client.shutdown().await.unwrap();
    let ping = server.inbound(1).await;
    let event = server.send(&ping.reply("a", 0, Some("pong"), false)).await;
    assert_eq!(event.event_type(), EventType::Ack);
    assert_eq!(closed(&mut client).await, b"hi\r\npong\r\n");
}

#[tokio::test]
async fn idle_connections_are_closed_with_a_sentence() {
    let server = server(json!({"idleTimeout": "150ms"})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    let rest = closed(&mut client).await;
    assert!(
        String::from_utf8(rest)
            .unwrap()
            .contains("nothing was typed")
    );
    assert_eq!(
        server.inbound(1).await.session_event(),
        Some(SessionEvent::Close)
    );
}

#[tokio::test]
async fn more_clients_than_allowed_are_told_busy() {
    let server = server(json!({"maxClients": 1})).await;
    let first = server.connect().await;
    server.inbound(0).await;
    let mut second = server.connect().await;
    assert!(
        String::from_utf8(closed(&mut second).await)
            .unwrap()
            .contains("Busy")
    );
    drop(first);
    server.inbound(1).await;
    // The place is free once the session's end is published and the socket let go.
    let took_place = async {
        loop {
            let mut next = server.connect().await;
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(100), next.read(&mut byte));
            if read.await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, took_place).await.unwrap();
    assert_eq!(
        server.inbound(2).await.session_event(),
        Some(SessionEvent::New)
    );
}

#[tokio::test]
async fn a_full_backlog_is_said_and_the_session_starts_with_the_next_line() {
    let server = server(json!({})).await;
    server.engine.refuse(Some(WorkError::new(
        ErrorClass::Throttled(None),
        codes::BACKLOG_FULL,
        "full",
    )));
    let mut client = server.connect().await;
    assert!(read_line(&mut client).await.contains("Busy"));
    client.write_all(b"one\n").await.unwrap();
    assert!(read_line(&mut client).await.contains("Busy"));
    server.engine.refuse(None);
    client.write_all(b"two\n").await.unwrap();
    let hello = server.inbound(0).await;
    assert_eq!(hello.session_event(), Some(SessionEvent::New));
    assert_eq!(server.inbound(1).await.content(), Some("two"));
}

#[tokio::test]
async fn a_refused_line_is_answered_with_its_reason() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    for (code, says) in [
        (codes::MESSAGE_TOO_LARGE, "too long"),
        (codes::MESSAGE_INVALID, "not accepted"),
    ] {
        let error = WorkError::new(ErrorClass::BadInput, code, "refused");
        server.engine.refuse(Some(error));
        client.write_all(b"one\n").await.unwrap();
        let line = read_line(&mut client).await;
        assert!(line.contains(says), "{line}");
    }
}

#[tokio::test]
async fn lines_of_one_client_wait_for_each_other() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    server.engine.hang(true);
    let lines: String = (0..50).map(|n| format!("{n}\n")).collect();
    client.write_all(lines.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.engine.outputs().len(), 1);
    server.engine.hang(false);
    for n in 0..50 {
        let text = n.to_string();
        assert_eq!(server.inbound(n + 1).await.content(), Some(text.as_str()));
    }
}

#[tokio::test]
async fn ipv6_clients_have_ipv6_addresses() {
    let server = server(json!({"host": "::1", "toAddr": "555", "transportType": "chat"})).await;
    let mut client = server.connect().await;
    let hello = server.inbound(0).await;
    let expected = format!("[::1]:{}", client.local_addr().unwrap().port());
    assert_eq!(hello.from_addr(), Some(expected.as_str()));
    assert_eq!(hello.to_addr(), Some("555"));
    assert_eq!(
        hello.field("transport_type").unwrap().as_str(),
        Some("chat")
    );
    server.send(&hello.reply("a", 0, Some("hi"), false)).await;
    assert_eq!(read_line(&mut client).await, "hi\r\n");
}

#[tokio::test]
async fn who_never_gets_an_answer_does_not_hold_the_goodbye() {
    let mut server = server(json!({})).await;
    let mut client = server.connect().await;
    server.inbound(0).await;
    client.write_all(b"anyone there?\n").await.unwrap();
    server.inbound(1).await;
    server.closing.cancel();
    let run = tokio::time::timeout(PATIENCE, &mut server.running).await;
    run.unwrap().unwrap().unwrap();
    // The bound is the engine's: it drops the wait and goes on.
    let drained = tokio::time::timeout(Duration::from_millis(100), server.worker.drained());
    assert!(drained.await.is_err(), "the question is not answered yet");
    let closing = server.worker.close();
    let (seen, done) = tokio::join!(closed(&mut client), tokio::time::timeout(PATIENCE, closing));
    done.unwrap();
    assert_eq!(
        String::from_utf8(seen).unwrap(),
        "The service is closing this connection. Goodbye.\r\n"
    );
    let last = server.inbound(2).await;
    assert_eq!(last.session_event(), Some(SessionEvent::Close));
}

#[tokio::test]
async fn a_stop_closes_the_intake_first_and_says_goodbye_last() {
    let server = server(json!({})).await;
    let mut client = server.connect().await;
    let hello = server.inbound(0).await;
    server.send(&hello.reply("a", 0, Some("hi"), false)).await;
    client.write_all(b"last question\n").await.unwrap();
    let question = server.inbound(1).await;

    server.closing.cancel();
    let run = tokio::time::timeout(PATIENCE, server.running).await;
    run.unwrap().unwrap().unwrap();
    client.write_all(b"too late\n").await.unwrap();
    let drained = tokio::time::timeout(Duration::from_millis(50), server.worker.drained());
    assert!(drained.await.is_err(), "the question is not answered yet");

    let answer = question.reply("a", 0, Some("answer"), false);
    let input = Input {
        port: Port::new("chat", Flow::Outbound),
        message: answer.into(),
        attempt: 1,
    };
    server.worker.handle(input).await.unwrap();
    tokio::time::timeout(PATIENCE, server.worker.drained())
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, server.worker.close())
        .await
        .unwrap();
    let seen = String::from_utf8(closed(&mut client).await).unwrap();
    assert!(seen.starts_with("hi\r\nanswer\r\n"), "{seen:?}");
    assert!(seen.ends_with("Goodbye.\r\n"), "{seen:?}");
    let outputs = server.engine.outputs();
    assert_eq!(
        outputs.len(),
        3,
        "new, the question, close; not the late line"
    );
}
