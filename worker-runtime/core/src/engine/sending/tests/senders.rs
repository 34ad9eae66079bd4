//! Senders with a rate limit each.

use super::*;
use crate::status::StatusLevel;

fn from(sender: &str) -> UserMessage {
    let mut message = message();
    message.set_field("from_addr", sender);
    message
}

/// A transport with a limit for each sender.
fn transport() -> (Bench, Arc<Sending>, Arc<dyn Worker>) {
    let spec = json!({"rateLimit": {"rate": 10, "burst": 1, "per": "sender"}});
    let bench = Bench::new(&store(), spec, false);
    let life = Life::until(0);
    let worker: Arc<dyn Worker> = bench.transport(&life);
    let (sending, _) = bench.desk(&life, None, Arc::clone(&worker));
    (bench, sending, worker)
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_one_sender_was_slowed_says_nothing_new_after_another_was() {
    let (_bench, sending, worker) = transport();
    let rate = sending.rate.as_ref().unwrap();
    let (one, other) = (from("100"), from("200"));
    let sent = Instant::now();
    // All four were sent before anything was refused.
    for message in [&one, &other, &one, &other] {
        rate.slow_down(message, sent, Some(Duration::from_secs(1)))
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let labels = Labels::of(&one.clone().into());
    assert!(rate.wait(&*worker, &one, &labels, || false).await);
    // The pause of a second, and a ninth of one for the first token.
    let waited = sent.elapsed();
    let expected = Duration::from_millis(1100)..Duration::from_millis(1200);
    assert!(expected.contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn as_long_as_one_sender_is_slow_the_status_says_so() {
    let (bench, sending, _worker) = transport();
    let rate = sending.rate.as_ref().unwrap();
    let (one, other) = (from("100"), from("200"));
    let slow_down = async |message: &UserMessage| {
        rate.slow_down(message, Instant::now(), Some(Duration::ZERO))
            .await;
    };
    // The other is slowed first and last, and is back much earlier than the one that is slowed again and again.
    slow_down(&other).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        slow_down(&one).await;
    }
    slow_down(&other).await;
    let status = bench.status();
    let level = async || {
        rate.report(&status).await;
        status.components()[0].level
    };
    for (seconds, expected) in [
        (1, StatusLevel::Degraded),
        (139, StatusLevel::Degraded),
        (1, StatusLevel::Degraded),
        (60, StatusLevel::Ok),
    ] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(level().await, expected, "after {seconds} s more");
    }
}
