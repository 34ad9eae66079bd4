//! Server and client with real connections. Here the server: time and size limits, places, answers that were written or not.

#![allow(clippy::unwrap_used)]

mod bounds;
mod calls;

use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use vumi_core::worker::Listener;
use vumi_http::{
    Answer, BodyRoom, Ended, Head, Limits, Reply, Request, Server, Service, StatusCode, Trouble,
    Written,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers with the body's length after `pause`, and keeps the word that each answer was written.
#[derive(Default)]
struct Counting {
    pause: Duration,
    size: usize,
    written: Mutex<Vec<Written>>,
    troubles: Mutex<Vec<Trouble>>,
    ended: Mutex<Vec<Ended>>,
    taken: AtomicUsize,
    /// Rooms of answered requests, if they are kept.
    rooms: Option<Mutex<Vec<BodyRoom>>>,
}

#[async_trait]
impl Service for Counting {
    fn by_head(&self, _: &Head) -> Option<Reply> {
        None
    }

    async fn answer(&self, request: Request) -> Reply {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if let Some(rooms) = &self.rooms {
            rooms.lock().unwrap().push(request.room());
        }
        tokio::time::sleep(self.pause).await;
        let text = format!("{}{}", request.body.len(), " ".repeat(self.size));
        let (reply, written) = Reply::watched(Answer::text(StatusCode::OK, text));
        self.written.lock().unwrap().push(written);
        reply
    }

    fn trouble(&self, trouble: &Trouble) {
        self.troubles.lock().unwrap().push(trouble.clone());
    }

    fn ended(&self, ended: Ended, _: Duration) {
        self.ended.lock().unwrap().push(ended);
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

    /// Waits until so many requests were taken.
    async fn has_taken(&self, count: usize) {
        let taken = async {
            while self.service.taken.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, taken).await.unwrap();
    }

    /// Waits until so many requests ended; how, and what was told of them.
    async fn heard(&self, count: usize) -> (Vec<Ended>, Vec<Trouble>) {
        let heard = async {
            while self.service.ended.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
        let ended = self.service.ended.lock().unwrap().clone();
        (ended, self.service.troubles.lock().unwrap().clone())
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
    let late = Ended::Answered(StatusCode::REQUEST_TIMEOUT);
    let (ended, troubles) = running.heard(2).await;
    assert_eq!(ended, [Ended::Gone, late]);
    assert_eq!(troubles, [Trouble::TooSlow, Trouble::TooSlow]);
    assert!(running.service.written.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_kept_connection_may_be_idle_for_longer_than_a_head_takes() {
    let limits = Limits {
        head_timeout: Duration::from_millis(200),
        idle_timeout: PATIENCE,
        ..Limits::default()
    };
    let running = start(limits, Counting::default()).await;
    let mut kept = running.open(b"").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        kept.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n0") {
            let byte = tokio::time::timeout(PATIENCE, kept.read_u8()).await;
            read.push(byte.unwrap().expect("it is kept"));
        }
    }
    let (ended, troubles) = running.heard(3).await;
    assert_eq!(ended, [Ended::Answered(StatusCode::OK); 3]);
    assert_eq!(troubles, []);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = start(limits, Counting::default()).await;
    assert_eq!(rest(running.open(b"").await).await, "");
    assert_eq!(running.heard(0).await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_cut_off() {
    let service = Counting {
        size: 64 << 20,
        ..Counting::default()
    };
    let limits = Limits {
        write_timeout: Duration::from_millis(300),
        max_connections: 1,
        ..Limits::default()
    };
    let running = start(limits, service).await;
    let mut sipping = running.open(GET).await;
    // Now and then a drop is read: that gives no more time.
    let sips = async {
        let mut drop = [0; 1024];
        while sipping.read(&mut drop).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let written = async {
        assert!(!running.was_written(0).await);
        let told = async {
            while running.service.troubles.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    };
    tokio::select! {
        () = written => {}
        () = sips => panic!("it read it all"),
    }
    drop(sipping);
    let (ended, troubles) = running.heard(1).await;
    assert_eq!(ended, [Ended::Answered(StatusCode::OK)]);
    assert_eq!(troubles, [Trouble::NotRead]);
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let limits = Limits {
        max_bodies: 64 << 10,
        ..Limits::default()
    };
    let service = Counting {
        pause: Duration::from_secs(2),
        ..Counting::default()
    };
    let running = start(limits, service).await;
    let post = |announced: usize, sent: usize| {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n"
        );
        [head.into_bytes(), vec![b'x'; sent]].concat()
    };
    // Who announces much and sends nothing holds nothing.
    let announces = running.open(&post(1 << 20, 0)).await;
    let holds = running.open(&post(40 << 10, 40 << 10)).await;
    running.has_taken(1).await;
    let answer = rest(running.open(&post(32 << 10, 32 << 10)).await).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after: 1"), "{answer}");
    assert!(rest(holds).await.starts_with("HTTP/1.1 200"));
    // What is answered holds nothing any more.
    let after = rest(running.open(&post(64 << 10, 64 << 10)).await).await;
    assert!(after.starts_with("HTTP/1.1 200"), "{after}");
    let (_, troubles) = running.heard(3).await;
    assert_eq!(troubles, [Trouble::TooMuch(64 << 10)]);
    drop(announces);
}

#[tokio::test]
async fn half_closed_callers_are_let_go_and_told_of_once() {
    for (bytes, ends, says) in [
        (GET, Ended::Gone, Trouble::Left),
        (&b"GET / HT"[..], Ended::Gone, Trouble::Broken),
        (
            HALF_BODY,
            Ended::Answered(StatusCode::BAD_REQUEST),
            Trouble::Broken,
        ),
    ] {
        let service = Counting {
            pause: PATIENCE * 10,
            ..Counting::default()
        };
        let running = start(Limits::default(), service).await;
        let mut half = running.open(bytes).await;
        half.shutdown().await.unwrap();
        rest(half).await;
        let (ended, troubles) = running.heard(1).await;
        assert_eq!((ended, troubles), (vec![ends], vec![says]));
        running.closing.cancel();
        let closed = running.server.close();
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
        assert_eq!(running.service.ended.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_is_no_request_is_counted_and_told_of_once() {
    let running = start(Limits::default(), Counting::default()).await;
    let answer = rest(running.open(b"\x16\x03\x01 hello\r\n\r\n").await).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let (ended, troubles) = running.heard(1).await;
    assert_eq!(ended, [Ended::Answered(StatusCode::BAD_REQUEST)]);
    assert_eq!(troubles, [Trouble::NotHttp]);
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
