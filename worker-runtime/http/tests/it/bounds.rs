//! What a connection may hold, and what lies behind a request in it.

use super::*;

/// Whoever makes something of a body and waits with it holds its room, although the request itself is gone.
#[tokio::test]
async fn the_room_of_a_body_is_held_as_long_as_somebody_wants() {
    let limits = Limits {
        max_bodies: 4 << 10,
        ..Limits::default()
    };
    let service = Counting {
        rooms: Some(Mutex::default()),
        ..Counting::default()
    };
    let running = start(limits, service).await;
    let head = "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 3072\r\n\r\n";
    let post = [head.as_bytes(), &[b'x'; 3072]].concat();
    let status = async || {
        let answer = rest(running.open(&post).await).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status().await, "200");
    assert_eq!(status().await, "503");
    running
        .service
        .rooms
        .as_ref()
        .unwrap()
        .lock()
        .unwrap()
        .clear();
    assert_eq!(status().await, "200");
}

#[tokio::test]
async fn a_head_is_bounded() {
    let running = start(Limits::default(), Counting::default()).await;
    let with = |length: usize| {
        let long = "x".repeat(length);
        format!("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nX: {long}\r\n\r\n")
    };
    let answer = rest(running.open(with(12 << 10).as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut caller = TcpStream::connect(running.address).await.unwrap();
    // The server may close before everything is sent, and the answer be lost with that.
    let _ = caller.write_all(with(100 << 10).as_bytes()).await;
    let answer = rest(caller).await;
    let refused = answer.starts_with("HTTP/1.1 431");
    assert!(answer.is_empty() || refused, "{answer}");
    let (_, troubles) = running.heard(2).await;
    assert_eq!(troubles, [Trouble::NotHttp]);
    assert_eq!(running.service.taken.load(Ordering::Relaxed), 1);
}

const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// What lies behind a request in the same connection hides the end of it from hyper.
#[tokio::test]
async fn a_caller_that_sends_more_and_leaves_is_noticed() {
    for (more, together) in [
        (&b"GET / HT"[..], true),
        (&b"GET / HT"[..], false),
        (KEPT, true),
        (KEPT, false),
    ] {
        let service = Counting {
            pause: PATIENCE * 10,
            ..Counting::default()
        };
        let running = start(Limits::default(), service).await;
        let first = match together {
            true => [KEPT, more].concat(),
            false => KEPT.to_vec(),
        };
        let mut caller = running.open(&first).await;
        running.has_taken(1).await;
        if !together {
            caller.write_all(more).await.unwrap();
        }
        drop(caller);
        let (ended, troubles) = running.heard(1).await;
        assert_eq!(ended, [Ended::Gone]);
        assert_eq!(troubles, [Trouble::Left]);
    }
}

#[tokio::test]
async fn what_comes_while_a_request_waits_is_the_next_request() {
    const LARGE: usize = 64 << 10;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n"
    );
    let next = [head.as_bytes(), &[b'x'; LARGE]].concat();
    for together in [true, false] {
        let service = Counting {
            pause: Duration::from_millis(100),
            ..Counting::default()
        };
        let running = start(Limits::default(), service).await;
        let first = match together {
            true => [KEPT, &next].concat(),
            false => KEPT.to_vec(),
        };
        let mut caller = running.open(&first).await;
        if !together {
            running.has_taken(1).await;
            for part in next.chunks(5000) {
                caller.write_all(part).await.unwrap();
            }
        }
        let answers = rest(caller).await;
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
        assert!(answers.ends_with(&format!("\r\n\r\n{LARGE}")), "{answers}");
        let (ended, troubles) = running.heard(2).await;
        assert_eq!(ended, [Ended::Answered(StatusCode::OK); 2]);
        assert_eq!(troubles, []);
    }
}
