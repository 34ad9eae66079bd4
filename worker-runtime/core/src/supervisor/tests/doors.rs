//! The two doors of a process: the admin port and the control socket.

use super::*;
use crate::admin::AdminServer;
use crate::parking::{Envelope, Selection, list};
use crate::supervisor::control::{ControlSocket, Conversation, Request, ask, socket_path};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

#[tokio::test]
async fn the_admin_port_says_how_things_are() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let server = AdminServer::bind(([127, 0, 0, 1], 0).into())
        .await
        .expect("bound");
    let address = server.local_addr().expect("address");
    let task = tokio::spawn(server.serve(Arc::clone(&supervisor)));
    assert_eq!(get(address, "/readyz").await, (503, "starting\n".into()));
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".into()));

    let port = free_port();
    world.behave(
        "application/e",
        Behaviour {
            broken: true,
            ..Behaviour::default()
        },
    );
    supervisor
        .apply(set(&[telnet("t", port, 1), echo("e", "t", 1)]))
        .await;
    // The listener accepts although the application waits.
    assert_eq!(get(address, "/readyz/listen").await, (200, "ok\n".into()));
    let (status, why) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        why,
        "application/e: stalled told not to build (config.invalid); Run `vumi lint`, which names file, line and field\n"
    );
    world.behave("application/e", Behaviour::default());
    until("all are ready", async || {
        get(address, "/readyz").await.0 == 200
    })
    .await;

    assert_eq!(get(address, "/metrics").await.0, 200);
    assert!(get(address, "/").await.1.contains("/readyz/listen"));
    assert_eq!(get(address, "/secrets").await.0, 404);
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream
        .write_all(b"POST /readyz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .await
        .expect("written");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("read");
    assert_eq!(&start, b"HTTP/1.1 405");

    supervisor.shutdown().await;
    assert_eq!(get(address, "/readyz").await, (503, "stopping\n".into()));
    task.abort();
}

async fn open(folder: &Path, supervisor: &Arc<Supervisor>) -> std::path::PathBuf {
    let path = socket_path(folder, "my campaign");
    let socket = ControlSocket::open(&path).await.expect("opened");
    let supervisor = Arc::clone(supervisor);
    tokio::spawn(async move {
        socket
            .serve(supervisor, "my campaign".into(), "1.2.3")
            .await
    });
    path
}

#[tokio::test]
async fn the_control_socket_is_private_and_answers() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path(), &supervisor).await;
    assert_eq!(
        path.file_name().and_then(|n| n.to_str()),
        Some("my-campaign.sock")
    );
    let about = std::fs::metadata(&path).expect("there");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    assert_eq!(
        about.uid(),
        std::fs::metadata(folder.path()).expect("there").uid()
    );

    let port = free_port();
    supervisor
        .apply(set(&[telnet("t", port, 1), echo("e", "t", 1)]))
        .await;
    let status = ask(&path, &Request::Status).await.expect("answered");
    assert_eq!(status["name"], "my campaign");
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["workers"][0]["worker"], "application/e");
    assert_eq!(status["workers"][1]["type"], "telnet");
    assert_eq!(
        status["workers"][1]["listens"],
        json!([format!("127.0.0.1:{port}")])
    );
    assert_eq!(status["brokers"], json!(["first"]));

    let resume = |worker: &str| Request::ParkedResume {
        worker: worker.into(),
    };
    let resumed = ask(&path, &resume("e")).await.expect("answered");
    assert_eq!(resumed, json!({"worker": "application/e"}));
    until("resumed", async || world.times("resume application/e") == 1).await;
    let error = ask(&path, &resume("x")).await.expect_err("no such worker");
    assert_eq!(error.code, codes::CONTROL_REQUEST);
    assert!(error.text.contains("application/e, transport/t"), "{error}");
    supervisor.shutdown().await;
}

/// The process lets a silent client go; who speaks again, such as an injection from a log in which nothing happened, is heard.
#[tokio::test]
async fn a_conversation_goes_on_after_a_silence() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path(), &supervisor).await;
    supervisor
        .apply(set(&[telnet("t", free_port(), 1), echo("e", "t", 1)]))
        .await;
    let mut conversation = Conversation::open(&path).await.expect("opened");
    for silence in [0, 40, 61, 3600] {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(silence)).await;
        tokio::time::resume();
        // The process has time to let it go.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = conversation.ask(&Request::Status).await;
        let status = status.unwrap_or_else(|error| panic!("after {silence} s: {error}"));
        assert_eq!(status["name"], "my campaign");
    }
    supervisor.shutdown().await;
}

/// That there are no stores and queues yet is not the same as that there are none.
#[tokio::test]
async fn a_process_that_starts_says_what_it_waits_for() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path(), &supervisor).await;
    let (go, waits) = watch::channel(false);
    let slow = Behaviour {
        waits: Some(waits),
        ..Behaviour::default()
    };
    world.behave("application/e", slow);
    let applied = tokio::spawn({
        let supervisor = Arc::clone(&supervisor);
        async move { supervisor.apply(set(&[echo("e", "t", 1)])).await }
    });
    until("it is being built", async || {
        world.times("build application/e") == 1
    })
    .await;
    let status = ask(&path, &Request::Status).await.expect("answered");
    assert_eq!(status["starting"], "application/e is being built");
    let list = Request::ParkedList {
        queue: None,
        limit: 1,
    };
    let counts = Request::Kept(crate::operate::Ask::LedgerCounts);
    for request in [list, counts.clone()] {
        let error = ask(&path, &request).await.expect_err("too early");
        assert_eq!(error.code, codes::CONTROL_STARTING);
        assert_eq!(error.class.exit_code(), 3, "as of a process that is away");
        assert!(
            error.text.contains("application/e is being built"),
            "{error}"
        );
    }
    go.send(true).expect("it waits");
    applied.await.expect("applied");
    let status = ask(&path, &Request::Status).await.expect("answered");
    assert_eq!(status.get("starting"), None);
    // Now that there is none is true, and ends a command as it would without a process in between.
    let error = ask(&path, &counts).await.expect_err("no store");
    assert_eq!(error.code, codes::STATE_NONE);
    assert_eq!(error.class, ErrorClass::Config);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn parked_messages_are_listed_shown_requeued_and_dropped() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path(), &supervisor).await;
    supervisor.apply(set(&[echo("e", "t", 1)])).await;
    let broker = supervisor
        .broker_of(&supervisor.resources()[0])
        .await
        .expect("open");
    for queue in ["t.inbound", "t.inbound.parked"] {
        broker
            .declare(&crate::broker::QueueSpec::Parking(queue.into()))
            .await
            .expect("declared");
    }
    let bodies: [&[u8]; 3] = [
        br#"{"content": "one"}"#,
        br#"{"content": "two"}"#,
        b"\xff\x00three",
    ];
    for body in bodies {
        let delivery = crate::broker::RawDelivery {
            tag: 1,
            generation: 1,
            redelivered: false,
            routing_key: "t.inbound".into(),
            body: body.into(),
            message_id: None,
            delivery_count: None,
        };
        let error = WorkError::new(ErrorClass::BadInput, codes::MESSAGE_INVALID, "no id");
        let envelope = Envelope::new("t.inbound", &delivery, &error, "application/e", 1);
        let receipt = broker.publish(envelope.publication()).await;
        assert_eq!(
            receipt.confirmation().await,
            crate::broker::Confirmation::Confirmed
        );
    }
    let all = Request::ParkedList {
        queue: None,
        limit: 10,
    };
    let listed = ask(&path, &all).await.expect("listed");
    let ids: Vec<String> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(
        !listed.to_string().contains("three"),
        "a listing has no content"
    );
    let queue = || "t.inbound".to_owned();
    let show = async |id: &String| {
        let (queue, id) = (queue(), id.clone());
        let request = Request::ParkedShow { queue, id };
        ask(&path, &request).await.expect("shown")
    };
    let text = show(&ids[1]).await;
    assert_eq!(text["encoding"], "text");
    assert_eq!(text["body"], "{\"content\": \"two\"}");
    assert_eq!(text["summary"]["code"], "message.invalid");
    // What is not text can be had back byte for byte.
    let bytes = show(&ids[2]).await;
    assert_eq!(bytes["encoding"], "base64");
    let body = BASE64.decode(bytes["body"].as_str().expect("text"));
    assert_eq!(body.expect("base64"), bodies[2]);

    let selection = Selection::Ids(vec![ids[1].clone()]);
    let requeue = Request::ParkedRequeue {
        queue: queue(),
        selection,
    };
    assert_eq!(ask(&path, &requeue).await.expect("requeued")["done"], 1);
    let depth = broker
        .depth("t.inbound")
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(depth.ready, 1);
    let drop = Request::ParkedDrop {
        queue: queue(),
        selection: Selection::All,
    };
    assert_eq!(ask(&path, &drop).await.expect("dropped")["done"], 2);
    assert!(
        list(&*broker, "t.inbound", 10)
            .await
            .expect("listed")
            .is_empty()
    );

    let foreign = Request::ParkedDrop {
        queue: "x.inbound".into(),
        selection: Selection::All,
    };
    let error = ask(&path, &foreign).await.expect_err("not consumed here");
    assert!(error.text.contains("t.event, t.inbound"), "{error}");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sockets").join("a.sock");
    let first = ControlSocket::open(&path)
        .await
        .expect("opened, with its folder");
    let error = ControlSocket::open(&path).await.err().expect("in use");
    assert_eq!(error.code, codes::CONTROL_SOCKET);
    assert!(error.text.contains("--name"), "{error}");
    drop(first);
    assert!(!path.exists(), "the file goes with the process");
    // A killed process leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists());
    let error = ask(&path, &Request::Status)
        .await
        .expect_err("nobody there");
    assert!(error.text.contains("nobody listens"), "{error}");
    assert!(error.text.contains("is `vumi run` running?"), "{error}");
    let file = folder.path().join("campaign.yaml");
    std::fs::write(&file, "").expect("written");
    let error = ask(&file, &Request::Status).await.expect_err("a file");
    assert!(error.text.contains("it is no socket"), "{error}");
    let second = ControlSocket::open(&path).await.expect("replaced");
    drop(second);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_bounded() {
    let world = Arc::new(World::default());
    let supervisor = supervisor(&world);
    let folder = tempfile::tempdir().expect("a folder");
    let path = open(folder.path(), &supervisor).await;
    for request in [
        b"nonsense\n".to_vec(),
        b"{\"op\": \"reboot\"}\n".to_vec(),
        vec![b'x'; 3_000_000],
    ] {
        let mut stream = tokio::net::UnixStream::connect(&path)
            .await
            .expect("connected");
        // The rest of a line that is too long is not read.
        let _ = stream.write_all(&request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        // Ended before all of it was read, so the answer may be lost with the connection.
        if answer.is_empty() && request.len() > 2 << 20 {
            continue;
        }
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(answer["error"]["code"], "control.request", "{answer}");
    }
    assert!(ask(&path, &Request::Status).await.is_ok());
    supervisor.shutdown().await;
}
