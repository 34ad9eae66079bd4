//! How a worker begins and ends.

use super::*;

/// While a user's message is being retried a stop comes: it and what waits behind it stay with the broker, in order.
#[tokio::test]
async fn a_stop_does_not_let_anything_overtake_what_it_returns() {
    for _ in 0..20 {
        let rig = Rig::new(fast_retry(1000), |i, cx| async move {
            if content(&i) == "first" {
                return Err(temporary());
            }
            Ok(echo(&i, &cx))
        })
        .await;
        for text in ["first", "second", "third"] {
            rig.send("u", text).await;
        }
        rig.until("retried", |s| s.counts.retried > 0).await;
        let mut rig = rig;
        rig.running
            .take()
            .unwrap()
            .stop(StopLimits::default())
            .await;
        let left = rig.read("t.inbound", 3).await;
        let texts: Vec<_> = left
            .iter()
            .map(|b| UserMessage::decode(b).unwrap().content().map(str::to_owned))
            .collect();
        let expected: Vec<_> = ["first", "second", "third"]
            .map(|t| Some(t.to_owned()))
            .into();
        assert_eq!(texts, expected);
    }
}

/// An address that cannot be used is known before anything is replaced.
#[tokio::test]
async fn a_worker_whose_port_is_taken_does_not_build() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let manifest = json!({
        "kind": "Transport", "metadata": {"name": "t"},
        "spec": {"telnet": {"host": "127.0.0.1", "port": port}},
    });
    let resource = crate::conformance::stand_in::resource(&manifest).unwrap();
    let environment = || Environment {
        broker: EmbeddedBroker::open(EmbeddedOptions::default()).unwrap(),
        state: None,
        secrets: Arc::default(),
        listeners: Arc::default(),
        outside: Default::default(),
        telemetry: Arc::default(),
        instance: "one".into(),
        system_id: "global".into(),
    };
    let resource = Arc::new(resource);
    let registration = Registration::of::<Listening>();
    let built = build(&registration, Arc::clone(&resource), environment()).await;
    let error = built.err().expect("the port is taken");
    assert_eq!(error.code, codes::LISTEN_FAILED);
    drop(taken);
    assert!(build(&registration, resource, environment()).await.is_ok());
}

struct Listening;

#[async_trait]
impl WorkerType for Listening {
    type Config = vumi_api::transports::Telnet;

    async fn build(_: Self::Config, _: Arc<WorkerContext>) -> Result<Arc<dyn Worker>, WorkError> {
        Ok(Arc::new(Listening))
    }

    fn fixture() -> Fixture {
        unreachable!("not a registered type")
    }
}

#[async_trait]
impl Worker for Listening {
    async fn handle(&self, _: Input) -> Result<Vec<Output>, WorkError> {
        Ok(Vec::new())
    }
}

/// While the broker is away a peer is told so soon, not after its own patience.
#[tokio::test(start_paused = true)]
async fn a_peer_hears_that_the_broker_is_away() {
    let broker = crate::beacon::testing::Cuttable::new();
    broker.cut();
    let metrics = Telemetry::new().worker("transport/t");
    let backlog = Arc::new(backlog::Backlog::new(vumi_api::Kind::Transport, 10));
    let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
    let broker: Arc<dyn Broker> = broker;
    let outlet = outlet::Outlet::new(Arc::clone(&broker), chain, backlog, &metrics, &[]);
    let counter = peer::Counter {
        outlet: Arc::new(outlet),
        status: crate::status::StatusDesk::new(
            Arc::clone(&broker),
            crate::status::StatusIdentity {
                connector: "t".into(),
                kind: vumi_api::Kind::Transport,
                name: "t".into(),
                type_name: "telnet".into(),
                instance: "one".into(),
            },
            None,
        ),
        metrics,
        listeners: Arc::default(),
        accepting: Arc::default(),
        broker,
        abandoned: Default::default(),
        sending: None,
        trail: None,
        once: None,
        replies: peer::ReplyQueue::default(),
        state: None,
    };
    let begin = tokio::time::Instant::now();
    let message = UserMessage::new("sms", Some("555"), Some("27821"));
    let output = Output::new(Port::new("t", Flow::Inbound), message);
    let error = crate::worker::Services::accept(&counter, output)
        .await
        .unwrap_err();
    assert_eq!(error.code, codes::BROKER_UNREACHABLE);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
