//! What becomes of messages: once, in order, tried again, parked, held back by what is full, and left at a stop.

use super::*;

#[tokio::test]
async fn what_goes_in_comes_out_once_and_is_acknowledged() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    let id = rig.send("27821", "hello").await;
    let reply = rig.replies(1).await.remove(0);
    assert_eq!(reply.content(), Some("hello"));
    let worker = format!("application/{}", rig.name);
    assert_eq!(reply.message_id(), reply_id(&id, &worker, 0));
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.done), (1, 1));
    let depth = rig.broker.depth("t.inbound").await.unwrap().unwrap();
    assert_eq!(depth.ready, 0);
    let text = rig.telemetry.render();
    assert!(text.contains("vumi_messages_done_total"), "{text}");
}

#[tokio::test]
async fn users_are_in_order_and_do_not_wait_for_each_other() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        if content(&i) == "slow 0" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(echo(&i, &cx))
    })
    .await;
    for n in 0..20 {
        rig.send("slow", &format!("slow {n}")).await;
        for user in 0..5 {
            rig.send(&format!("user{user}"), &format!("{n}")).await;
        }
    }
    let replies = rig.replies(120).await;
    let of = |user: &str| -> Vec<String> {
        let to_user = replies.iter().filter(|r| r.to_addr() == Some(user));
        to_user
            .map(|r| r.content().unwrap_or_default().to_owned())
            .collect()
    };
    let expected: Vec<String> = (0..20).map(|n| format!("slow {n}")).collect();
    assert_eq!(of("slow"), expected);
    for user in 0..5 {
        let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(of(&format!("user{user}")), expected);
    }
    let first_slow = replies.iter().position(|r| r.to_addr() == Some("slow"));
    assert!(first_slow >= Some(100), "others went ahead: {first_slow:?}");
    assert_eq!(rig.at_rest().await.done, 120);
}

#[tokio::test]
async fn temporary_errors_are_retried_in_their_lane() {
    let failures = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&failures);
    let rig = Rig::new(fast_retry(10), move |i, cx| {
        let fail = content(&i) == "one" && counter.fetch_add(1, Ordering::Relaxed) < 3;
        async move {
            if fail {
                Err(temporary())
            } else {
                Ok(echo(&i, &cx))
            }
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.send("u", "two").await;
    let replies = rig.replies(2).await;
    let texts: Vec<_> = replies.iter().map(|r| r.content()).collect();
    assert_eq!(texts, [Some("one"), Some("two")]);
    let counts = rig.at_rest().await;
    assert_eq!((counts.done, counts.retried, counts.parked), (2, 3, 0));
}

#[tokio::test]
async fn an_inbound_message_that_exhausts_its_attempts_is_parked_and_can_be_requeued() {
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&healed);
    let rig = Rig::new(fast_retry(3), move |i, cx| {
        let ok = flag.load(Ordering::Relaxed);
        async move {
            if ok {
                Ok(echo(&i, &cx))
            } else {
                Err(temporary())
            }
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.until("parked", |s| s.counts.parked == 1).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::RETRY_EXHAUSTED.name);
    assert_eq!(parked[0].attempts, 3);
    healed.store(true, Ordering::Relaxed);
    let handled = parking::requeue(&*rig.broker, "t.inbound", &parking::Selection::All)
        .await
        .unwrap();
    assert_eq!(handled.done, 1);
    assert_eq!(rig.replies(1).await[0].content(), Some("one"));
    rig.at_rest().await;
}

#[tokio::test]
async fn a_panic_is_retried_twice_and_then_parked_and_the_flow_goes_on() {
    let rig = Rig::new(fast_retry(10), |i, cx| async move {
        assert_ne!(content(&i), "poison", "scripted panic");
        Ok(echo(&i, &cx))
    })
    .await;
    rig.send("u", "poison").await;
    rig.send("u", "fine").await;
    assert_eq!(rig.replies(1).await[0].content(), Some("fine"));
    let counts = rig.at_rest().await;
    assert_eq!((counts.done, counts.parked, counts.retried), (1, 1, 2));
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BUG_PANIC.name);
    assert!(rig.running().snapshot().alive);
}

#[tokio::test]
async fn garbage_is_parked_with_its_reason() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(100), "]".repeat(100));
    let wrong_version = String::from_utf8(UserMessage::new("sms", None, None).encode().to_vec())
        .unwrap()
        .replace("20110921", "20200101");
    let bad: [(&[u8], &str); 5] = [
        (b"not json", codes::MESSAGE_NOT_JSON.name),
        (b"{\"a\": \"\xff\"}", codes::MESSAGE_NOT_JSON.name),
        (b"{}", codes::MESSAGE_VERSION.name),
        (deep.as_bytes(), codes::MESSAGE_TOO_LARGE.name),
        (wrong_version.as_bytes(), codes::MESSAGE_VERSION.name),
    ];
    for (body, _) in bad {
        rig.publish("t.inbound", bytes::Bytes::copy_from_slice(body))
            .await;
    }
    rig.send("u", "fine").await;
    assert_eq!(rig.replies(1).await.len(), 1);
    rig.until("parked", |s| s.counts.parked == 5).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    let mut codes: Vec<_> = parked.iter().map(|p| p.code.as_str()).collect();
    let mut expected: Vec<_> = bad.iter().map(|(_, code)| *code).collect();
    codes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn too_many_parked_pause_the_worker_until_it_is_resumed() {
    let rig = Rig::new(json!({}), |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    for _ in 0..60 {
        rig.publish("t.inbound", "garbage".into()).await;
    }
    let snapshot = rig.until("paused", |s| s.state == "paused").await;
    assert!(snapshot.ready, "a pause on purpose is ready");
    assert!(snapshot.why.contains("parked"), "{}", snapshot.why);
    rig.send("u", "fine").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.running().resume_parked();
    assert_eq!(rig.replies(1).await.len(), 1);
    rig.until("running", |s| s.state == "running").await;
}

#[tokio::test]
async fn a_full_target_pauses_reading_and_draining_it_resumes() {
    let rig = Rig::new(json!({"backlogLimit": 5}), |i, cx| async move {
        Ok(echo(&i, &cx))
    })
    .await;
    for n in 0..10 {
        rig.send(&format!("u{n}"), "x").await;
    }
    let snapshot = rig.until("paused", |s| s.state == "paused").await;
    assert!(snapshot.why.contains("t.outbound"), "{}", snapshot.why);
    rig.send("late", "late").await;
    let texts: Vec<_> = rig.replies(11).await;
    assert_eq!(texts[10].content(), Some("late"));
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_leaves_the_rest_to_the_broker() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        match content(&i).as_str() {
            "slow" => tokio::time::sleep(Duration::from_millis(200)).await,
            "retried" => return Err(temporary()),
            _ => {}
        }
        Ok(echo(&i, &cx))
    })
    .await;
    rig.send("a", "slow").await;
    rig.send("a", "behind").await;
    rig.send("b", "retried").await;
    rig.until("taken", |s| s.counts.received == 3).await;
    let mut rig = rig;
    let running = rig.running.take().unwrap();
    running.stop(StopLimits::default()).await;
    assert_eq!(rig.replies(1).await[0].content(), Some("slow"));
    let left = rig.read("t.inbound", 2).await;
    let texts: Vec<_> = left
        .iter()
        .map(|b| UserMessage::decode(b).unwrap().content().map(str::to_owned))
        .collect();
    assert_eq!(
        texts,
        [Some("behind".to_owned()), Some("retried".to_owned())]
    );
}

#[tokio::test]
async fn a_handler_that_hangs_does_not_hold_a_stop() {
    let rig = Rig::new(json!({}), |_, _| std::future::pending()).await;
    rig.send("a", "x").await;
    rig.until("taken", |s| s.counts.received == 1).await;
    let mut rig = rig;
    let limits = StopLimits {
        drain: Duration::from_millis(50),
        flush: Duration::from_millis(50),
        close: Duration::from_millis(50),
    };
    let stop = rig.running.take().unwrap().stop(limits);
    tokio::time::timeout(Duration::from_secs(5), stop)
        .await
        .expect("bounded");
    assert_eq!(rig.read("t.inbound", 1).await.len(), 1);
}
