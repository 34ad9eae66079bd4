//! What a worker says of a queue that nobody reads.

use super::super::watch::Watch;
use super::*;
use crate::reasons::{FLOWING, NO_CONSUMER};
use crate::status::{StatusDesk, StatusIdentity};

#[tokio::test(start_paused = true)]
async fn a_failure_worker_that_does_not_run_is_told_after_five_minutes() {
    let broker: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
    let metrics = Telemetry::new().worker("transport/t");
    let backlog = Arc::new(backlog::Backlog::new(Kind::Transport, 10));
    let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
    let outlet = outlet::Outlet::new(
        Arc::clone(&broker),
        chain,
        Arc::clone(&backlog),
        &metrics,
        &[],
    );
    let identity = StatusIdentity {
        connector: "t".into(),
        kind: Kind::Transport,
        name: "t".into(),
        type_name: "telnet".into(),
        instance: "one".into(),
    };
    let status = StatusDesk::new(Arc::clone(&broker), identity, None);
    let watch = Watch {
        failures: Some("t.failures".into()),
        broker: Arc::clone(&broker),
        backlog,
        outlet: Arc::new(outlet),
        status: Arc::clone(&status),
        metrics,
    };
    let watching = tokio::spawn(watch.run(Vec::new(), Vec::new()));
    let said = async |after: u64| {
        tokio::time::sleep(Duration::from_secs(after)).await;
        let components = status.components();
        let of_it = components
            .into_iter()
            .find(|c| c.component == "target t.failures");
        of_it.map(|report| report.reason)
    };
    assert_eq!(said(60).await, None, "no failure worker has ever run");
    let queue = QueueSpec::Data("t.failures".into());
    broker.declare(&queue).await.unwrap();
    // A queue that was not there is looked for every ten minutes.
    let there = Some(FLOWING.name.to_owned());
    assert_eq!(said(600).await, there);
    assert_eq!(said(300 + 60).await, Some(NO_CONSUMER.name.to_owned()));
    let subscribe = Subscribe {
        queue,
        prefetch: 10,
        access: Access::Shared,
        tag: "failures".into(),
    };
    let failure_worker = broker.subscribe(subscribe).await;
    assert_eq!(said(10).await, there);
    failure_worker.acker.close();
    assert_eq!(said(120).await, there);
    assert_eq!(said(300).await, Some(NO_CONSUMER.name.to_owned()));
    watching.abort();
}

/// A standby sees what waits and not who takes it: an alert on the age would go off wherever a queue is never empty.
#[tokio::test(start_paused = true)]
async fn what_another_replica_reads_does_not_grow_old_at_the_standby() {
    let setup = Setup::new(json!({}));
    let holder = Subscribe {
        queue: QueueSpec::Data("t.inbound".into()),
        prefetch: 1,
        access: Access::Fenced,
        tag: "holder".into(),
    };
    let mut holder = setup.broker.subscribe(holder).await;
    let held = holder.state.wait_for(|s| *s == ConsumerState::Consuming);
    drop(held.await.unwrap());
    let rig = Rig::on(setup, |i, cx| async move { Ok(echo(&i, &cx)) }).await;
    for n in 0..3 {
        rig.send("u", &n.to_string()).await;
    }
    let metric = |name: &str| {
        let text = rig.telemetry.render();
        let series = format!("vumi_{name}{{queue=\"t.inbound\"");
        let found = text.lines().find(|line| line.starts_with(&series));
        let value = found.and_then(|line| line.rsplit(' ').next());
        value.and_then(|value| value.parse::<f64>().ok())
    };
    let minute = || tokio::time::sleep(Duration::from_secs(60));
    minute().await;
    assert_eq!(metric("queue_ready"), Some(2.0));
    assert_eq!(metric("oldest_message_seconds"), Some(0.0));
    holder.acker.close();
    rig.until("all are handled", |s| s.counts.done == 3).await;
    rig.stop_now().await;
}
