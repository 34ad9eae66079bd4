//! Callers meanwhile: who is held is answered, who comes is taken, and nobody is refused.

use super::played::{Application, ask, ask_until_taken, hear};
use super::{Campaign, PATIENCE, echo, free_port, http, telnet};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use vumi_core::message::UserMessage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_http_requests_are_answered_and_new_ones_accepted_meanwhile() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    campaign.apply(&[http(port, 60, "")]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "http").await;
    let before = ask(port, "before");
    let held = application.next().await;

    let reload = campaign.applying(&[http(port, 61, "")]);
    // The old worker still holds its request; the new one takes others on the same port.
    let during = ask_until_taken(port, "during");
    let taken = application.next().await;
    assert_eq!(taken.content(), Some("during"));
    application.reply(&taken, "to during").await;
    assert_eq!(during.await.unwrap(), (200, "to during".into()));
    assert!(!reload.is_finished(), "the old worker waits for its reply");
    application.reply(&held, "to before").await;
    assert_eq!(before.await.unwrap(), (200, "to before".into()));
    assert!(reload.await.unwrap().is_empty());
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_refused_while_a_worker_is_replaced_again_and_again() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    let set = |seconds| [http(port, seconds, ""), echo("http", 30)];
    campaign.apply(&set(60)).await;
    campaign.ready().await;
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            tokio::spawn(async move {
                let (mut answered, mut restarting) = (0, 0);
                for n in 0..60 {
                    let text = format!("c{caller}n{n}");
                    match ask(port, &text).await.expect("not refused") {
                        (200, body) if body == text => answered += 1,
                        // Its connection was taken just before the intake closed.
                        (503, _) => restarting += 1,
                        other => panic!("{text}: {other:?}"),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (answered, restarting)
            })
        })
        .collect();
    for seconds in 61..67 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(campaign.apply(&set(seconds)).await.is_empty());
    }
    for caller in callers {
        let (answered, restarting) = caller.await.unwrap();
        assert_eq!(answered + restarting, 60);
        assert!(answered >= 50, "{restarting} of 60 were told to come again");
    }
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_telnet_line_gets_its_answer_before_the_session_ends() {
    let campaign = Campaign::new(PATIENCE);
    let port = free_port();
    campaign.apply(&[telnet("telnet", port, 10)]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "telnet").await;
    let mut old = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    old.write_all(b"question\r\n").await.unwrap();
    let question = application.next().await;

    let reload = campaign.applying(&[telnet("telnet", port, 11)]);
    // Who calls now is served by the new version while the old one waits for the answer. Before that the old one may take
    // the caller, or say goodbye.
    let holder = |message: &UserMessage| {
        let metadata = message.transport_metadata().cloned().unwrap_or_default();
        metadata["vumi_holder"].clone()
    };
    let deadline = Instant::now() + PATIENCE;
    let (mut new, next) = loop {
        assert!(Instant::now() < deadline, "nobody new takes callers");
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let mut new = stream.expect("not refused");
        let _ = new.write_all(b"next question\r\n").await;
        tokio::select! {
            next = application.next() => {
                if holder(&next) != holder(&question) {
                    break (new, next);
                }
                application.reply(&next, "by the old one").await;
            }
            _ = hear(&mut new, "Goodbye") => {}
            // The old one took the caller and did not read on: the goodbye comes at its end.
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    assert_eq!(next.content(), Some("next question"));
    application.reply(&next, "next answer").await;
    hear(&mut new, "next answer").await;
    assert!(!reload.is_finished(), "the old one still waits");
    application.reply(&question, "the answer").await;
    // Both may come in one piece.
    let heard = hear(&mut old, "Goodbye").await;
    assert!(heard.contains("the answer"), "{heard:?}");
    assert!(reload.await.unwrap().is_empty());
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_exchanged() {
    // Nobody answers the lines of this test.
    let campaign = Campaign::new(Duration::from_secs(1));
    let (one, two) = (free_port(), free_port());
    campaign
        .apply(&[telnet("a", one, 10), telnet("b", two, 10)])
        .await;
    campaign.ready().await;
    let mut a = Application::on(campaign.broker(0), "a").await;
    let mut b = Application::on(campaign.broker(0), "b").await;
    let say = async |port: u16, line: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("not refused");
        stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await
            .unwrap();
        stream
    };
    let _first = say(one, "to a").await;
    assert_eq!(a.next().await.content(), Some("to a"));
    campaign
        .apply(&[telnet("a", two, 10), telnet("b", one, 10)])
        .await;
    let _second = say(one, "to b").await;
    assert_eq!(b.next().await.content(), Some("to b"));
    let _third = say(two, "to a again").await;
    assert_eq!(a.next().await.content(), Some("to a again"));
    campaign.supervisor.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_one_that_never_drains_is_bounded() {
    let campaign = Campaign::new(Duration::from_millis(300));
    let port = free_port();
    campaign.apply(&[http(port, 60, "")]).await;
    campaign.ready().await;
    let mut application = Application::on(campaign.broker(0), "http").await;
    let forgotten = ask(port, "forgotten");
    application.next().await;
    let began = Instant::now();
    assert!(campaign.apply(&[http(port, 61, "")]).await.is_empty());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let (status, _) = forgotten.await.unwrap();
    assert!(status >= 500, "told that there is no reply: {status}");
    let next = ask(port, "next");
    let message = application.next().await;
    application.reply(&message, "answered").await;
    assert_eq!(next.await.unwrap(), (200, "answered".into()));
    campaign.supervisor.shutdown().await;
}
