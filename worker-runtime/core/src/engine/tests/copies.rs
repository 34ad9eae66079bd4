//! What a lost acknowledgement, a lost channel and a slow store repeat, and what they do not.

use super::*;
use crate::broker::Receipt;
use crate::conformance::delegate::Double;
use crate::conformance::faults::{Faults, Mischief};
use crate::state::around::Around;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use tokio::sync::Semaphore;

/// A rig whose broker loses what a test says, and how often its handler was called, which takes a permit each time.
async fn counted(gate: &Arc<Semaphore>) -> (Rig, Arc<Faults>, Arc<AtomicU32>) {
    let gate = Arc::clone(gate);
    let mut setup = Setup::new(json!({}));
    let faults = Faults::new(Arc::clone(&setup.broker));
    setup.broker = faults.clone();
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let rig = Rig::on(setup, move |input, cx| {
        counter.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire_owned().await.unwrap().forget();
            Ok(echo(&input, &cx))
        }
    })
    .await;
    (rig, faults, calls)
}

async fn called(calls: &AtomicU32, times: u32) {
    for _ in 0..2000 {
        if calls.load(Ordering::SeqCst) >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {times} calls", calls.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_was_finished_is_not_done_again_because_its_acknowledgement_was_lost() {
    let (rig, faults, calls) = counted(&Arc::new(Semaphore::new(100))).await;
    faults.swallow_acks(true);
    for user in ["u1", "u2", "u3"] {
        rig.send(user, "hello").await;
    }
    rig.until("all are done", |s| s.counts.done == 3).await;
    while faults.acks_tried() == 0 {
        tokio::task::yield_now().await;
    }
    faults.swallow_acks(false);
    assert!(faults.cut() > 0);
    rig.until("all came again", |s| s.counts.received == 6)
        .await;
    rig.send("u1", "more").await;
    let counts = rig.until("the next", |s| s.counts.done == 7).await.counts;
    balanced(&counts);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert_eq!(rig.replies(4).await.len(), 4);
    // And now the broker has the acknowledgements.
    faults.cut();
    rig.send("u2", "again").await;
    rig.until("one more", |s| s.counts.done == 8).await;
    assert_eq!(rig.running().snapshot().counts.received, 8);
}

#[tokio::test]
async fn what_is_finished_after_its_channel_was_lost_is_not_done_again() {
    let gate = Arc::new(Semaphore::new(0));
    let (rig, faults, calls) = counted(&gate).await;
    rig.send("u", "hello").await;
    called(&calls, 1).await;
    faults.hold_confirmations(true);
    gate.add_permits(10);
    let replied = rig.replies(1).await;
    assert!(faults.cut() > 0);
    rig.until("it waits behind itself", |s| s.counts.received == 2)
        .await;
    faults.hold_confirmations(false);
    let counts = rig.until("done", |s| s.counts.done == 1).await.counts;
    balanced(&counts);
    assert_eq!((counts.returned, calls.load(Ordering::SeqCst)), (1, 1));
    rig.send("u", "more").await;
    let more = rig.replies(1).await.remove(0);
    assert_ne!(more.message_id(), replied[0].message_id());
    assert_eq!(more.content(), Some("more"));
}

/// Ids tell repeats, but somebody may publish a message once more to have it handled once more.
#[tokio::test]
async fn what_is_published_again_is_done_again_although_its_channel_is_lost_meanwhile() {
    let gate = Arc::new(Semaphore::new(1));
    let (rig, faults, calls) = counted(&gate).await;
    let mut message = UserMessage::new("sms", Some("555"), Some("u"));
    message.set_transport_name("t");
    rig.publish("t.inbound", message.encode()).await;
    rig.until("done", |s| s.counts.done == 1).await;
    rig.publish("t.inbound", message.encode()).await;
    called(&calls, 2).await;
    assert!(faults.cut() > 0);
    rig.until("it came again", |s| s.counts.received == 3).await;
    gate.add_permits(2);
    rig.until("done again", |s| s.counts.done == 2).await;
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(rig.replies(2).await.len(), 2);
}

#[tokio::test]
async fn what_will_come_again_is_not_published_once_an_alarm_of_the_broker_is_over() {
    let gate = Arc::new(Semaphore::new(0));
    let (rig, faults, calls) = counted(&gate).await;
    rig.send("u", "hello").await;
    called(&calls, 1).await;
    faults.block();
    gate.add_permits(1);
    // Its reply waits for the end of the alarm, and then its channel goes.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(faults.cut() > 0);
    rig.until("it came again", |s| s.counts.received == 2).await;
    gate.add_permits(1);
    rig.until("the first is given back", |s| s.counts.returned == 1)
        .await;
    faults.come_back();
    rig.until("done", |s| s.counts.done == 1).await;
    assert_eq!(rig.replies(1).await.len(), 1);
    let depth = rig.broker.depth("t.outbound").await.unwrap().unwrap();
    assert_eq!(depth.ready, 0, "one reply");
}

/// A broker that takes one publication after the other, and whoever waits in turn.
struct Narrow {
    inner: Arc<dyn Broker>,
    turn: Semaphore,
    taken: Mutex<Vec<String>>,
}

#[async_trait]
impl Double for Narrow {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    async fn take(&self, publication: Publication) -> Receipt {
        let _turn = self.turn.acquire().await.unwrap();
        if publication.routing_key.ends_with(".outbound") {
            let id = publication.message_id.clone().unwrap_or_default();
            self.taken.lock().unwrap().push(id);
            tokio::task::yield_now().await;
        }
        self.inner.publish(publication).await
    }
}

/// What a process that dies has half published comes twice.
#[tokio::test]
async fn what_a_message_causes_leaves_together() {
    const MESSAGES: usize = 100;
    let mut setup = Setup::new(json!({}));
    let narrow = Arc::new(Narrow {
        inner: Arc::clone(&setup.broker),
        turn: Semaphore::new(1),
        taken: Mutex::default(),
    });
    setup.broker = narrow.clone();
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let rig = Rig::on(setup, move |input, _| {
        let waits = Arc::clone(&waits);
        async move {
            let _all_at_once = waits.acquire_owned().await.unwrap();
            let id = input.message.id().to_owned();
            let output = |n: u32| {
                let mut message = UserMessage::new("sms", Some("2782"), Some("555"));
                message.set_message_id(&format!("{id}/{n}"));
                Output::new(Port::new("t", Flow::Outbound), message)
            };
            Ok((0..3).map(output).collect())
        }
    })
    .await;
    for n in 0..MESSAGES {
        rig.send(&format!("u{n}"), "hello").await;
    }
    rig.until("taken", |s| s.counts.received == MESSAGES as u64)
        .await;
    gate.add_permits(MESSAGES);
    rig.until("done", |s| s.counts.done == MESSAGES as u64)
        .await;
    let taken = narrow.taken.lock().unwrap();
    let of = |id: &String| id.split('/').next().unwrap().to_owned();
    assert_eq!(taken.len(), 3 * MESSAGES);
    for three in taken.chunks(3) {
        assert!(three.iter().all(|id| of(id) == of(&three[0])), "{three:?}");
    }
}

/// A store that takes no notes before its gate is opened.
struct Mute {
    store: Arc<dyn StateStore>,
    gate: Semaphore,
}

#[async_trait]
impl Around for Mute {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    async fn before(&self, operation: &'static str) -> Result<(), WorkError> {
        if operation == "ledger.note" {
            drop(self.gate.acquire().await);
        }
        Ok(())
    }
}

/// Whatever is published and not acknowledged comes twice after a crash: a diagnosis must not make that more.
#[tokio::test]
async fn no_message_waits_for_the_note_of_its_hop() {
    let store: Arc<dyn StateStore> = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let mute = Arc::new(Mute {
        store: Arc::clone(&store),
        gate: Semaphore::new(0),
    });
    let mut setup = Setup::new(json!({}));
    setup.state = Some(mute.clone());
    let rig = Rig::on(setup, |input, cx| async move { Ok(echo(&input, &cx)) }).await;
    let id = rig.send("u", "hello").await;
    rig.until("done", |s| s.counts.done == 1).await;
    assert!(store.trail(&id).await.unwrap().is_empty());
    assert!(!rig.telemetry.render().contains("vumi_trail_lost_total 1"));
    mute.gate.add_permits(1);
    // What is noted is stored before a worker ends.
    rig.running.unwrap().stop(StopLimits::default()).await;
    assert_eq!(store.trail(&id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_finished_after_its_term_in_the_journal_ended_is_not_done_again() {
    let store: Arc<dyn StateStore> = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let mut setup = Setup::new(json!({
        "holdLimit": "0ms", "retry": {"backoff": {"initial": "1ms", "max": "1ms"}},
    }));
    let behind = Arc::clone(&setup.broker);
    let faults = Faults::new(Arc::clone(&behind));
    (setup.broker, setup.state) = (faults.clone(), Some(store));
    let calls = Arc::new(AtomicU32::new(0));
    let (gate, counter) = (Arc::new(Semaphore::new(0)), Arc::clone(&calls));
    let waits = Arc::clone(&gate);
    let rig = Rig::on(setup, move |input, cx| {
        let call = counter.fetch_add(1, Ordering::SeqCst);
        let waits = Arc::clone(&waits);
        async move {
            if call == 0 {
                return Err(temporary());
            }
            waits.acquire_owned().await.unwrap().forget();
            Ok(echo(&input, &cx))
        }
    })
    .await;
    rig.send("u", "hello").await;
    called(&calls, 2).await;
    faults.hold_confirmations(true);
    gate.add_permits(10);
    rig.replies(1).await;
    assert!(faults.cut() > 0);
    // The consumer hears of it with the next delivery.
    let mut other = UserMessage::new("sms", Some("555"), Some("other"));
    other.set_transport_name("t");
    let publication = Publication {
        exchange: EXCHANGE.into(),
        routing_key: "t.inbound".into(),
        body: other.encode(),
        message_id: None,
        class: PublicationClass::Data,
    };
    let _ = behind.publish(publication).await.confirmation().await;
    rig.until("it waits behind itself", |s| s.counts.replayed == 2)
        .await;
    faults.hold_confirmations(false);
    let counts = rig.until("done", |s| s.counts.done == 2).await.counts;
    balanced(&counts);
    assert_eq!(calls.load(Ordering::SeqCst), 3, "the other one as well");
    assert_eq!(rig.replies(1).await[0].content(), None);
    rig.until("the journal is empty", |s| s.waiting == 0).await;
    rig.send("u", "more").await;
    assert_eq!(rig.replies(1).await[0].content(), Some("more"));
}
