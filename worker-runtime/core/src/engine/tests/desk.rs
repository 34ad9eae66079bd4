//! The desk of a queue without a consumer around it: verdicts on single deliveries.

use super::*;

/// The desk of a transport's outbound queue, without a consumer around it.
struct DeskRig {
    broker: Arc<dyn Broker>,
    desk: Arc<delivery::Desk>,
}

impl DeskRig {
    fn new(
        handler: impl Fn(Input) -> Result<Vec<Output>, WorkError> + Send + Sync + 'static,
    ) -> Self {
        let broker = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
        let metrics = Telemetry::new().worker("transport/t");
        let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
        let backlog = Arc::new(backlog::Backlog::new(vumi_api::Kind::Transport, 10));
        let outlet = Arc::new(outlet::Outlet::new(
            Arc::clone(&broker),
            Arc::clone(&chain),
            backlog,
            &metrics,
            &[],
        ));
        let manifest = json!({"kind": "Application", "metadata": {"name": "x"}, "spec": {"echo": {}, "transportName": "t"}});
        let resource = crate::conformance::stand_in::resource(&manifest).unwrap();
        let cx = crate::conformance::stand_in::StandIn::new().context(
            resource,
            "one",
            Default::default(),
        );
        let handler = Arc::new(handler);
        let handler: Handler = Arc::new(move |input, _| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(input) })
        });
        let port = Port::new("t", Flow::Outbound);
        let desk = Arc::new(delivery::Desk {
            acker: None,
            duty: delivery::Duty::Handle,
            layout: None,
            worker: Arc::new(Scripted { handler, cx }),
            key: "transport/t".into(),
            queue: port.queue(),
            port,
            chain,
            outlet,
            policy: backoff::RetryPolicy::new(None, 10, Duration::from_secs(1)),
            metrics: metrics.queue("t.outbound"),
            counters: Arc::default(),
            worker_metrics: metrics,
            generation: Arc::new(AtomicU64::new(1)),
            halt: Default::default(),
            sending: None,
            lasting: true,
            forwarded: None,
            trail: None,
            trial: None,
            legacy_failures: false,
            exit: None,
        });
        Self { broker, desk }
    }

    async fn work(&self, message: &UserMessage, delivery_count: Option<i64>) -> delivery::Finished {
        let raw = crate::broker::RawDelivery {
            tag: 1,
            generation: 1,
            redelivered: false,
            routing_key: "t.outbound".into(),
            body: message.encode(),
            message_id: None,
            delivery_count,
        };
        let delivery = delivery::Delivery {
            raw,
            lane: lanes::Lane::Free,
            message: Ok(message.clone().into()),
            received: tokio::time::Instant::now(),
            replay: None,
            seat: None,
            passing: None,
        };
        Arc::clone(&self.desk).work(delivery).await
    }
}

/// A transport's side of giving up: an outbound message that will never be delivered gets a nack event with its fate.
#[tokio::test]
async fn outbound_messages_that_are_given_up_are_answered_with_a_nack() {
    let rig = DeskRig::new(|_| {
        let text = "the number does not exist";
        let error = WorkError::new(ErrorClass::RemotePermanent, codes::ROUTE_NONE, text);
        Err(WorkError {
            provider_code: Some("E404".into()),
            ..error
        })
    });
    let message = UserMessage::new("sms", Some("27821"), Some("555"));
    let finished = rig.work(&message, None).await;
    assert_eq!(finished.verdict, delivery::Verdict::Done);
    let mut events = rig
        .broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data("t.event".into()),
            prefetch: 1,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    let event = Event::decode(&events.deliveries.recv().await.unwrap().body).unwrap();
    assert_eq!(event.event_type(), EventType::Nack);
    assert_eq!(event.user_message_id(), message.message_id());
    let fate = event.fate().unwrap();
    assert_eq!(
        (fate.code.as_str(), fate.class.as_str()),
        ("E404", "provider")
    );
    assert!(fate.is_final);
}

#[tokio::test]
async fn work_of_a_lost_channel_keeps_its_lane_and_its_verdict_is_ignored() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let rig = Rig::new(json!({}), move |i, cx| {
        let log = Arc::clone(&log);
        async move {
            let text = content(&i);
            log.lock().unwrap().push(text.clone());
            if text == "one" && log.lock().unwrap().len() == 1 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(echo(&i, &cx))
        }
    })
    .await;
    rig.send("u", "one").await;
    rig.send("u", "two").await;
    rig.until("taken", |s| s.counts.received == 2).await;
    rig.running().rebuild_consumers();
    let replies = rig.replies(2).await;
    let texts: Vec<_> = replies.iter().map(|r| r.content().unwrap()).collect();
    assert_eq!(texts, ["one", "two"], "once each, and in order");
    assert_eq!(*seen.lock().unwrap(), ["one", "one", "two"]);
    let counts = rig.at_rest().await;
    assert_eq!((counts.received, counts.done, counts.returned), (4, 2, 2));
}

/// A quorum queue drops what it delivered too often: such a message is set aside before (R1).
#[tokio::test]
async fn a_message_of_a_quorum_queue_is_parked_before_the_broker_drops_it() {
    let handled = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&handled);
    let rig = DeskRig::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    });
    let message = UserMessage::new("sms", Some("27821"), Some("555"));
    let finished = rig.work(&message, Some(3)).await;
    assert_eq!(finished.verdict, delivery::Verdict::Done);
    let finished = rig.work(&message, Some(10)).await;
    assert_eq!(finished.verdict, delivery::Verdict::Parked);
    assert_eq!(handled.load(Ordering::Relaxed), 1);
    let parked = parking::list(&*rig.broker, "t.outbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::BROKER_QUEUE_TYPE.name);
}

/// What would be too large for every reader is refused where it arises.
#[tokio::test]
async fn an_output_that_is_too_large_is_parked_with_its_cause() {
    let rig = Rig::new(json!({}), |i, cx| async move {
        let Message::User(message) = &i.message else {
            return Ok(Vec::new());
        };
        let text = "é".repeat(crate::message::MAX_BODY / 5);
        let reply = message.reply(cx.worker_name(), 0, Some(&text), false);
        Ok(vec![Output::new(Port::new("t", Flow::Outbound), reply)])
    })
    .await;
    rig.send("u", "grow").await;
    rig.until("parked", |s| s.counts.parked == 1).await;
    let parked = parking::list(&*rig.broker, "t.inbound", 10).await.unwrap();
    assert_eq!(parked[0].code, codes::MESSAGE_TOO_LARGE.name);
}
