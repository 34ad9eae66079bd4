//! The client: what it waits for and how long, what it reads, follows and reuses, and TLS with a server of OpenSSL.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use vumi_api::shared::{CallTls, HttpClient, SecretRef, Size};
use vumi_core::error::WorkError;
use vumi_core::outside::Outside;
use vumi_core::secrets::Secrets;
use vumi_http::{Answer, Call, CallError, Caller, Client, HeaderMap, Method, StatusCode};

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than the limit of the clients here, much shorter than [`PATIENCE`].
const LIMIT: Duration = Duration::from_secs(1);

fn settings() -> HttpClient {
    HttpClient {
        connect_timeout: Some(vumi_api::Duration(LIMIT)),
        answer_timeout: Some(vumi_api::Duration(LIMIT)),
        max_answer: Some(Size(1000)),
        ..HttpClient::default()
    }
}

fn client() -> Client {
    Client::new(&settings(), &Secrets::default(), Outside::default()).unwrap()
}

fn get(url: &str) -> Call {
    Call {
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Default::default(),
    }
}

/// A call that ends within the limits, and not by a test's patience.
async fn ask(client: &Client, url: &str) -> Result<Answer, CallError> {
    let began = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, client.call(get(url))).await;
    let took = began.elapsed();
    assert!(took < PATIENCE / 2, "{took:?}");
    answer.unwrap()
}

fn lost(answer: Result<Answer, CallError>) -> String {
    match answer {
        Err(CallError::Lost(text)) => text,
        other => panic!("it may have been sent: {other:?}"),
    }
}

fn unreachable(answer: Result<Answer, CallError>) -> String {
    match answer {
        Err(CallError::Unreachable(text)) => text,
        other => panic!("it was never sent: {other:?}"),
    }
}

/// Serves each connection with `serve`; how many there were.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (String, Arc<AtomicUsize>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            counts.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream));
        }
    });
    (format!("127.0.0.1:{}", address.port()), connections)
}

/// Reads the head of a request; false at the end of the connection.
async fn head(stream: &mut TcpStream) -> bool {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => read.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn connections_are_used_again_and_an_ended_one_is_replaced() {
    let (at, connections) = server(|mut stream| async move {
        // Two requests, then it ends, as servers do with idle connections.
        for _ in 0..2 {
            if head(&mut stream).await {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
                    .await;
            }
        }
    })
    .await;
    let client = client();
    for n in 1..=6 {
        let answer = ask(&client, &format!("http://{at}/")).await.unwrap();
        assert_eq!(
            (answer.status, &answer.body[..]),
            (StatusCode::OK, &b"OK"[..])
        );
        if n % 2 == 0 {
            // It is seen to have ended before the next request is written to it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3, "two each");
}

#[tokio::test]
async fn who_does_not_answer_in_time_may_have_it() {
    let (silent, _) = server(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let (slow, _) = server(|mut stream| async move {
        head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (half, _) = server(|mut stream| async move {
        head(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf";
        let _ = stream.write_all(half).await;
    })
    .await;
    let (none, _) = server(|mut stream| async move {
        head(&mut stream).await;
    })
    .await;
    for (at, says) in [
        (silent, "no answer within 1s"),
        (slow, "no answer within 1s"),
        (half, "the answer broke off"),
        (none, "the connection ended before the answer"),
    ] {
        let text = lost(ask(&client(), &format!("http://{at}/x?secret=1")).await);
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn whom_no_connection_reaches_has_nothing() {
    let nobody = {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let text = unreachable(ask(&client(), &format!("http://{nobody}/?secret=1")).await);
    assert!(!text.contains("secret"), "{text}");
    unreachable(ask(&client(), "http://no-such-host.invalid/").await);
    // TLS that never begins: nothing of the request was written.
    let (mute, _) = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let text = unreachable(ask(&client(), &format!("https://{mute}/")).await);
    assert!(text.contains("not within 1s"), "{text}");
    // Nor with one who does not speak it.
    let (plain, _) = server(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    unreachable(ask(&client(), &format!("https://{plain}/")).await);
}

/// A connection that takes longer than an answer may is not an answer that was lost.
#[tokio::test]
async fn the_time_for_an_answer_begins_with_the_connection() {
    let (mute, _) = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let settings = |connect: u64, answer: u64| HttpClient {
        connect_timeout: Some(vumi_api::Duration(Duration::from_millis(connect))),
        answer_timeout: Some(vumi_api::Duration(Duration::from_millis(answer))),
        ..HttpClient::default()
    };
    for (connect, answer) in [(1500, 200), (1000, 1000)] {
        let client = Client::new(
            &settings(connect, answer),
            &Secrets::default(),
            Outside::default(),
        )
        .unwrap();
        let text = unreachable(ask(&client, &format!("https://{mute}/")).await);
        assert!(text.contains("not within"), "{text}");
    }
    // One that is there at last has its whole time for the answer.
    let (late, _) = server(|mut stream| async move {
        head(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer).await;
    })
    .await;
    let client = Client::new(
        &settings(200, 5000),
        &Secrets::default(),
        Outside::default(),
    )
    .unwrap();
    ask(&client, &format!("http://{late}/")).await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_kept_as_long_as_is_said() {
    let (at, connections) = server(|mut stream| async move {
        while head(&mut stream).await {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    })
    .await;
    for (idle, expected) in [(60_000, 1), (100, 3)] {
        connections.store(0, Ordering::Relaxed);
        let settings = HttpClient {
            idle_timeout: Some(vumi_api::Duration(Duration::from_millis(idle))),
            ..settings()
        };
        let client = Client::new(&settings, &Secrets::default(), Outside::default()).unwrap();
        for _ in 0..3 {
            ask(&client, &format!("http://{at}/")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert_eq!(connections.load(Ordering::Relaxed), expected, "{idle}");
    }
}

#[tokio::test]
async fn redirects_are_answers_and_not_followed() {
    let (at, connections) = server(|mut stream| async move {
        while head(&mut stream).await {
            let circle = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(circle).await;
        }
    })
    .await;
    let answer = ask(&client(), &format!("http://{at}/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers["location"], "/");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn of_a_large_answer_the_beginning_is_read() {
    const SIZE: usize = 100 << 20;
    let (at, _) = server(|mut stream| async move {
        while head(&mut stream).await {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let some = vec![b'x'; 64 << 10];
            for _ in 0..SIZE / some.len() {
                if stream.write_all(&some).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let client = client();
    for _ in 0..2 {
        let answer = ask(&client, &format!("http://{at}/")).await.unwrap();
        assert_eq!(answer.body.len(), 1000);
        assert!(client.leaves_out(&answer));
    }
}

/// `openssl s_server` with a certificate of a private authority: it answers each GET with what it knows of the connection.
struct Tls {
    folder: tempfile::TempDir,
    port: u16,
    _server: Child,
}

impl Tls {
    /// With `more` arguments.
    async fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        vumi_testkit::certificates::make(folder.path())
            .await
            .unwrap();
        let port = vumi_testkit::free_port().unwrap();
        let server = Command::new("openssl")
            .args([
                "s_server",
                "-www",
                "-cert",
                "server.pem",
                "-key",
                "server.key",
            ])
            .args(["-accept", &format!("127.0.0.1:{port}")])
            .args(more)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let up = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
        tokio::time::timeout(PATIENCE, up).await.unwrap();
        Self {
            folder,
            port,
            _server: server,
        }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// A client with these Secrets.
    fn client(&self, ca: Option<&str>, own: Option<&str>) -> Result<Client, WorkError> {
        let secret = |keys: &[(&str, String)]| {
            let keys = keys
                .iter()
                .map(|(key, text)| ((*key).to_owned(), text.clone()));
            keys.collect::<BTreeMap<_, _>>()
        };
        let (certificate, key) = (self.read("server.pem"), self.read("server.key"));
        let pair = |certificate: &str, key: &str| {
            secret(&[("tls.crt", certificate.into()), ("tls.key", key.into())])
        };
        let documents = BTreeMap::from([
            ("ca".to_owned(), secret(&[("ca.crt", self.read("ca.pem"))])),
            ("own".to_owned(), pair(&certificate, &key)),
            ("broken".to_owned(), pair(&certificate, "no key")),
            ("empty".to_owned(), secret(&[("ca.crt", "nobody".into())])),
            (
                "half".to_owned(),
                secret(&[("tls.crt", certificate.clone())]),
            ),
        ]);
        let named = |name: Option<&str>| {
            name.map(|name| SecretRef {
                name: name.to_owned(),
            })
        };
        let settings = HttpClient {
            max_answer: Some(Size(64 << 10)),
            tls: Some(CallTls {
                ca_secret_ref: named(ca),
                certificate_secret_ref: named(own),
            }),
            ..settings()
        };
        Client::new(
            &settings,
            &Secrets::new(documents, None),
            Outside::default(),
        )
    }

    async fn ask(&self, ca: Option<&str>, own: Option<&str>) -> Result<Answer, CallError> {
        let client = self.client(ca, own).unwrap();
        ask(&client, &format!("https://localhost:{}/", self.port)).await
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_authority() {
    let tls = Tls::start(&[]).await;
    let answer = tls.ask(Some("ca"), None).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let text = unreachable(tls.ask(None, None).await);
    assert!(text.contains("certificate"), "{text}");
    // The same without a request.
    let url = format!("https://localhost:{}/", tls.port);
    let url = url.parse().unwrap();
    for (ca, reached) in [(Some("ca"), true), (None, false)] {
        let client = tls.client(ca, None).unwrap();
        assert_eq!(client.reach(&url).await.is_ok(), reached, "{ca:?}");
    }
    let missing = tls.client(Some("nowhere"), None).err().unwrap();
    assert_eq!(missing.code.name, "secret.missing");
    let empty = tls.client(Some("empty"), None).err().unwrap();
    assert_eq!(empty.code.name, "config.invalid");
    assert!(empty.text.contains("holds no certificate"), "{empty}");
}

#[tokio::test]
async fn a_server_that_asks_for_our_certificate_gets_it() {
    let tls = Tls::start(&["-Verify", "1", "-verify_return_error", "-CAfile", "ca.pem"]).await;
    let answer = tls.ask(Some("ca"), Some("own")).await.unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains("Client certificate"), "{text}");
    assert!(text.contains("localhost"), "its subject: {text}");
    let without = tls.ask(Some("ca"), None).await;
    assert!(without.is_err(), "{without:?}");
    for (own, code) in [
        ("nowhere", "secret.missing"),
        ("half", "secret.missing"),
        ("broken", "config.invalid"),
    ] {
        let error = tls.client(Some("ca"), Some(own)).err().unwrap();
        assert_eq!(error.code.name, code, "{own}: {error}");
        assert!(error.text.contains(own), "{error}");
    }
}
