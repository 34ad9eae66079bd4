//! Server and client with real connections. Here the server: time and size limits, places, answers that were written or not.

#![allow(clippy::unwrap_used)]

mod calls;

use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use vumi_core::worker::Listener;
use vumi_http::{Answer, Head, Limits, Reply, Request, Server, Service, StatusCode, Written};

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers with the body's length after `pause`, and keeps the word that each answer was written.
#[derive(Default)]
struct Counting {
    pause: Duration,
    size: usize,
    written: Mutex<Vec<Written>>,
}

#[async_trait]
impl Service for Counting {
    fn by_head(&self, _: &Head) -> Option<Answer> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        tokio::time::sleep(self.pause).await;
        let text = format!("{}{}", request.body.len(), " ".repeat(self.size));
        let (reply, written) = Reply::watched(Answer::text(StatusCode::OK, text));
        self.written.lock().unwrap().push(written);
        reply
    }
}

struct Running {
    address: std::net::SocketAddr,
    service: Arc<Counting>,
    server: Arc<Server>,
    closing: CancellationToken,
}

async fn start(limits: Limits, service: Counting) -> Running {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::new(Arc::new(socket));
    let (service, server) = (Arc::new(service), Arc::new(Server::new(limits)));
    let closing = CancellationToken::new();
    let (serves, answers, until) = (server.clone(), service.clone(), closing.clone());
    tokio::spawn(async move { serves.serve(listener, &until, answers, |_| {}).await });
    Running {
        address,
        service,
        server,
        closing,
    }
}

impl Running {
    async fn open(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Whether the `index`-th answer was written.
    async fn was_written(&self, index: usize) -> bool {
        let started = Instant::now();
        let written = loop {
            {
                let mut all = self.service.written.lock().unwrap();
                if all.len() > index {
                    break all.remove(index);
                }
            }
            assert!(started.elapsed() < PATIENCE, "no answer {index}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        tokio::time::timeout(PATIENCE, written)
            .await
            .unwrap()
            .is_ok()
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
const HALF_BODY: &[u8] = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf";

#[tokio::test]
async fn a_written_answer_says_so() {
    let running = start(Limits::default(), Counting::default()).await;
    let answer = rest(running.open(GET).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(running.was_written(0).await);
}

#[tokio::test]
async fn an_answer_that_its_caller_does_not_take_is_not_written() {
    let service = Counting {
        size: 64 << 20,
        ..Counting::default()
    };
    let running = start(Limits::default(), service).await;
    let stream = running.open(GET).await;
    // More than the socket buffers hold, and the caller reads nothing before it leaves.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(stream);
    assert!(!running.was_written(0).await);
}

#[tokio::test]
async fn a_head_or_body_that_trickles_in_is_cut_off() {
    let limits = Limits {
        head_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = start(limits, Counting::default()).await;
    let started = Instant::now();
    let mut slow = running.open(b"GET / HTTP/1.1\r\n").await;
    let trickle = async {
        while slow.write_all(b"X: y\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    let answer = rest(running.open(HALF_BODY).await).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(running.service.written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn more_connections_than_places_are_503() {
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let running = start(limits, Counting::default()).await;
    let held = [running.open(HALF_BODY).await, running.open(HALF_BODY).await];
    let refused = TcpStream::connect(running.address).await.unwrap();
    let answer = rest(refused).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("Retry-After: 1"), "{answer}");
    drop(held);
    let free = async {
        while !rest(running.open(GET).await)
            .await
            .starts_with("HTTP/1.1 200")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
}

#[tokio::test]
async fn the_end_waits_for_answers_in_progress_and_for_nothing_else() {
    let service = Counting {
        pause: Duration::from_millis(300),
        ..Counting::default()
    };
    let running = start(Limits::default(), service).await;
    let keep = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let idle = running.open(b"").await;
    let busy = running.open(keep).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.closing.cancel();
    tokio::time::timeout(PATIENCE, running.server.close())
        .await
        .unwrap();
    let answer = rest(busy).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    assert_eq!(rest(idle).await, "");
}

#[tokio::test]
async fn a_closed_intake_lets_go_of_the_socket_and_takes_no_late_body() {
    let running = start(Limits::default(), Counting::default()).await;
    let mut slow = running.open(HALF_BODY).await;
    let idle = running.open(b"").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.closing.cancel();
    let refused = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(rest(idle).await, "", "nobody asked, nobody waits");
    slow.write_all(&[b'x'; 96]).await.unwrap();
    let answer = rest(slow).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(running.service.written.lock().unwrap().is_empty());
    tokio::time::timeout(PATIENCE, running.server.close())
        .await
        .unwrap();
}

#[tokio::test]
async fn who_came_just_before_the_end_is_told_to_come_again() {
    let running = start(Limits::default(), Counting::default()).await;
    let mut late = running.open(b"").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.closing.cancel();
    let server = Arc::clone(&running.server);
    let closing = tokio::spawn(async move { server.close().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    late.write_all(GET).await.unwrap();
    let answer = rest(late).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after"), "{answer}");
    tokio::time::timeout(PATIENCE, closing)
        .await
        .unwrap()
        .unwrap();
}
