//! Callers that send too much, too slowly, or not HTTP at all.

use super::*;
use vumi_core::telemetry::HttpSeen;

const GOOD: &str = "GET /?content=hi&to_addr=555&from_addr=123";

#[tokio::test]
async fn a_large_body_is_413_whether_announced_or_not() {
    let server = server(json!({}), json!({"maxBody": "64Ki"})).await;
    let body = vec![b'x'; 10 << 20];
    for announced in [true, false] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = if announced {
            format!("Content-Length: {}", body.len())
        } else {
            "Transfer-Encoding: chunked".to_owned()
        };
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let send = async {
            if !announced {
                let size = format!("{:x}\r\n", body.len());
                let _ = writer.write_all(size.as_bytes()).await;
            }
            // The server may close before everything is sent.
            let _ = writer.write_all(&body).await;
        };
        let mut bytes = Vec::new();
        let read = async {
            let _ = reader.read_to_end(&mut bytes).await;
        };
        let both = futures_join(send, read);
        tokio::time::timeout(PATIENCE, both).await.unwrap();
        let got = parse(&bytes);
        assert_eq!(
            got.error(413),
            "payload_too_large",
            "announced: {announced}"
        );
        assert!(got.head.contains("connection: close"), "{}", got.head);
    }
    assert_eq!(server.call(GOOD, "", b"").await.status, 200);
    assert_eq!(server.engine.outputs().len(), 1);
}

async fn futures_join(one: impl Future<Output = ()>, two: impl Future<Output = ()>) {
    tokio::join!(one, two);
}

#[tokio::test]
async fn bodies_of_a_kind_that_cannot_be_read_say_so() {
    let server = server(json!({}), json!({})).await;
    let json = "Content-Type: application/json\r\n";
    let deep = "[".repeat(100_000);
    for (kind, body, status) in [
        (json, &b"{"[..], 400),
        (json, b"[1]", 400),
        (json, b"{\"content\": 1}", 400),
        (json, b"{\"content\": \"\xff\"}", 400),
        (json, deep.as_bytes(), 400),
        (
            "Content-Type: multipart/form-data; boundary=x\r\n",
            b"--x",
            400,
        ),
        ("Content-Type: multipart/form-data\r\n", b"--x--", 400),
        ("Content-Type: text/xml\r\n", b"<content/>", 415),
        ("", b"content=hi", 415),
        (
            "Content-Type: application/x-www-form-urlencoded\r\n",
            b"content=%ff%fe",
            400,
        ),
    ] {
        let got = server
            .call("POST /?to_addr=5&from_addr=1", kind, body)
            .await;
        assert_eq!(
            got.status,
            status,
            "{kind} {:?}",
            String::from_utf8_lossy(body)
        );
        assert!(got.json().is_object());
        assert!(got.says_json(), "{}", got.head);
    }
    assert_eq!(server.engine.outputs().len(), 0);
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_400_and_hurts_nobody() {
    let server = server(json!({}), json!({})).await;
    for garbage in [
        &b"\x00\xff\xfe\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    ] {
        let mut stream = server.open(garbage).await;
        let got = read_all(&mut stream).await;
        assert_eq!(got.status, 400, "{:?}", String::from_utf8_lossy(garbage));
    }
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.extend(std::iter::repeat_n(b'x', 200_000));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let _ = stream.write_all(&head).await;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    assert!(bytes.is_empty() || parse(&bytes).status == 431);
    assert_eq!(server.call(GOOD, "", b"").await.status, 200);
}

#[tokio::test]
async fn slow_and_half_open_callers_keep_nobody_waiting() {
    let server = server(json!({}), json!({})).await;
    let mut slow = Vec::new();
    for n in 0..50 {
        let bytes: &[u8] = if n % 2 == 0 {
            b"GET / HT"
        } else {
            b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\ncontent="
        };
        slow.push(server.open(bytes).await);
    }
    assert_eq!(server.call(GOOD, "", b"").await.status, 200);
    let mut half = server.open(b"GET / HT").await;
    half.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let read = half.read_to_end(&mut rest);
    let _ = tokio::time::timeout(PATIENCE, read).await.unwrap();
    assert_eq!(server.engine.outputs().len(), 1);
}

const JSON: &str = "Content-Type: application/json\r\n";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// What a caller sends, whether it then closes its half of the connection, and what it is answered.
struct Bad {
    what: &'static str,
    bytes: Vec<u8>,
    shuts: bool,
    /// How long the server waits for the rest.
    waits: Duration,
    status: Option<u16>,
    reason: &'static str,
    result: &'static str,
}

fn bad_requests() -> Vec<Bad> {
    let post = |kind: &str, body: &[u8]| request("POST /?to_addr=5&from_addr=1", kind, body);
    let many: Vec<String> = (0..100_000).map(|n| format!("p{n}=x")).collect();
    let bad = |what, bytes, status, reason| Bad {
        what,
        bytes,
        shuts: false,
        waits: PATIENCE,
        status: Some(status),
        reason,
        result: "4xx",
    };
    let half = |what, bytes: &[u8]| Bad {
        what,
        bytes: bytes.to_vec(),
        shuts: true,
        waits: PATIENCE,
        status: None,
        reason: "request_broken_off",
        result: "gone",
    };
    let slow = |bad: Bad| Bad {
        shuts: false,
        waits: Duration::from_millis(300),
        reason: "request_too_slow",
        ..bad
    };
    vec![
        slow(half("a slow head", b"GET / HT")),
        Bad {
            status: Some(408),
            result: "4xx",
            ..slow(half(
                "a slow body",
                b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nx",
            ))
        },
        bad(
            "oversized",
            post(FORM, &[b'x'; 100 << 10]),
            413,
            "request_too_large",
        ),
        bad(
            "another type",
            post("Content-Type: text/xml\r\n", b"<a/>"),
            415,
            "invalid_request",
        ),
        bad(
            "multipart",
            request(
                "POST /?content=hi&to_addr=5&from_addr=1",
                "Content-Type: multipart/form-data; boundary=x\r\n",
                b"--x",
            ),
            400,
            "invalid_request",
        ),
        bad(
            "no UTF-8 in JSON",
            post(JSON, b"{\"content\": \"\xff\"}"),
            400,
            "invalid_request",
        ),
        bad(
            "no UTF-8 in a form",
            post(FORM, b"content=%ff"),
            400,
            "invalid_request",
        ),
        bad(
            "no UTF-8 in the query",
            request("GET /?content=%ff&to_addr=5&from_addr=1", "", b""),
            400,
            "invalid_request",
        ),
        bad(
            "the first of two values is no UTF-8",
            request(
                "GET /?content=%ff&content=hi&to_addr=5&from_addr=1",
                "",
                b"",
            ),
            400,
            "invalid_request",
        ),
        bad(
            "too many parameters",
            post(FORM, many[..5000].join("&").as_bytes()),
            400,
            "invalid_request",
        ),
        bad(
            "not HTTP",
            b"\x16\x03\x01\r\n\r\n".to_vec(),
            400,
            "not_http",
        ),
        half("half a head", b"GET / HT"),
        Bad {
            status: Some(400),
            result: "4xx",
            ..half(
                "half a body",
                b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nx",
            )
        },
        Bad {
            what: "a caller that does not stay",
            bytes: request("GET /?content=hi&to_addr=5&from_addr=1", "", b""),
            shuts: true,
            waits: PATIENCE,
            status: None,
            reason: "caller_left",
            result: "gone",
        },
    ]
}

/// Which one its sender meant nobody knows: the first counts, as in Vumi.
#[test]
fn a_parameter_that_comes_more_than_once_is_counted_and_said_once() {
    let log = crate::cases::Log::default();
    log.capture(async {
        let server = server(json!({}), json!({})).await;
        for n in 0..3 {
            let target = format!("/?content=one{n}&content=two&to_addr=5&from_addr=1&to_addr=6");
            assert_eq!(server.get(&target).await.status, 200);
            let message = server.inbound(n).await;
            assert_eq!(message.content(), Some(&*format!("one{n}")));
            assert_eq!(message.to_addr(), Some("5"));
            let mut told = server.engine.reports().into_iter();
            let last = told.rfind(|r| r.component == "request").unwrap();
            let says = "a request has more than one value of content, to_addr: the first counts";
            assert_eq!(last.level, StatusLevel::Degraded);
            assert_eq!(last.reason, "repeated_parameter");
            assert_eq!(last.message, says);
        }
        assert_eq!(
            server.get("/?content=x&to_addr=5&from_addr=1").await.status,
            200
        );
        let mut told = server.engine.reports().into_iter();
        let last = told.rfind(|r| r.component == "request").unwrap();
        assert_eq!(last.reason, "request_parsed");
        // A name that nobody gave is in no log.
        for _ in 0..2 {
            let target = "/?content=x&to_addr=5&from_addr=1&Thandi=1&Thandi=2";
            assert_eq!(server.get(target).await.status, 400);
        }
        let counted = server.engine.counted().into_iter();
        let repeated = counted.filter(|seen| *seen == HttpSeen::RepeatedParameter);
        assert_eq!(repeated.count(), 5);
        server.stop().await;
    });
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("more than once"));
    let lines: Vec<&str> = lines.collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(!text.contains("Thandi"), "{text}");
    assert!(
        lines[2].contains("that the manifest does not list"),
        "{text}"
    );
    for (line, name) in lines.iter().zip(["content", "to_addr"]) {
        assert!(line.contains(&format!("parameter=\"{name}\"")), "{line}");
        assert!(!line.contains("one0") && !line.contains("two"), "{line}");
    }
}

/// Each is answered as soon as it is known, said in one line of the log and one status, and counted once.
#[test]
fn each_bad_request_is_one_line_one_status_and_one_count() {
    for bad in bad_requests() {
        let log = crate::cases::Log::default();
        log.capture(async {
            let (held, http) = (json!({"replyExpected": true}), json!({"maxBody": "64Ki"}));
            let server = hurried_server(held, http, bad.waits).await;
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let (mut reads, mut writes) = stream.split();
            let send = async {
                // The server may close before everything is sent.
                let _ = writes.write_all(&bad.bytes).await;
                if bad.shuts {
                    let _ = writes.shutdown().await;
                }
            };
            let mut bytes = Vec::new();
            let read = async {
                let _ = reads.read_to_end(&mut bytes).await;
            };
            let both = futures_join(send, read);
            tokio::time::timeout(PATIENCE, both).await.unwrap();
            let status = (!bytes.is_empty()).then(|| parse(&bytes).status);
            if bad.status.is_some() {
                assert_eq!(status, bad.status, "{}", bad.what);
            }
            let engine = Arc::clone(&server.engine);
            let results = || {
                let counted = engine.counted().into_iter();
                let results = counted.filter_map(|seen| match seen {
                    HttpSeen::Request { result, .. } => Some(result),
                    _ => None,
                });
                results.collect::<Vec<_>>()
            };
            let ended = async {
                while results().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, ended).await.unwrap();
            server.stop().await;
            assert_eq!(results(), [bad.result], "{}", bad.what);
            let reports = engine.reports();
            let told = reports.iter().filter(|r| r.component == "request");
            let told: Vec<_> = told.map(|r| (r.level, r.reason.as_str())).collect();
            assert_eq!(told, [(StatusLevel::Degraded, bad.reason)], "{}", bad.what);
        });
        let text = log.text();
        let lines = text.matches("request refused").count();
        assert_eq!(lines, 1, "{}: {text}", bad.what);
    }
}
