//! What an endpoint may answer, and ones that hang, stop halfway or never stop.

use super::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_each_answer_leads_to() {
    let endpoint = Endpoint::open(answer(200, &[], "")).await;
    let relay = relay(json!({"url": endpoint.url(), "method": "PUT"})).await;
    let reply = ("x-vumi-httprelay-reply", "true");
    let large = vec![b'x'; 5000];
    let refused = |status| {
        let error = Err(("remote_permanent", "relay.refused"));
        (answer(status, &[], ""), error, "endpoint_refuses")
    };
    let denied = |status| {
        let error = Err(("auth", "peer.credentials"));
        (answer(status, &[], ""), error, "endpoint_credentials")
    };
    let failed = |status| {
        let error = Err(("remote_temporary", "peer.failed"));
        (answer(status, &[], ""), error, "endpoint_failed")
    };
    let throttled = |status| {
        let error = Err(("throttled", "peer.throttled"));
        let answer = answer(status, &[("retry-after", "7")], "");
        (answer, error, "endpoint_throttles")
    };
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
        refused(400),
        refused(404),
        refused(410),
        denied(401),
        denied(403),
        failed(408),
        throttled(429),
        (
            answer(500, &[reply], "pong"),
            Err(("remote_temporary", "peer.failed")),
            "endpoint_failed",
        ),
        failed(503),
        throttled(503),
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
    let lost = |url| {
        let status = (StatusLevel::Degraded, "endpoint_lost");
        (url, "timeout", "peer.timeout", status)
    };
    for (url, class, code, status) in [
        lost(hangs),
        lost(hangs_up),
        lost(half),
        lost(trickles),
        lost(not_http),
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
