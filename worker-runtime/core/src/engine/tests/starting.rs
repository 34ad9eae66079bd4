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
