//! Callers that send too much, too slowly, or not HTTP at all.

use super::*;

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
            415,
        ),
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
