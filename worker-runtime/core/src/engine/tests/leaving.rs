//! What a peer hears that waits, and what becomes of what it sent when it does not wait.

use super::*;
use crate::broker::Receipt;
use crate::conformance::delegate::Double;
use crate::state::StateStore;
use crate::state::embedded::{EmbeddedStore, EmbeddedStoreOptions};
use crate::worker::{Services, Taken};
use tokio::sync::Semaphore;

/// The engine's services for a transport, without a worker around them.
fn services(broker: Arc<dyn Broker>, once: Option<Arc<sending::Once>>) -> peer::Counter {
    let metrics = Telemetry::new().worker("transport/t");
    let backlog = Arc::new(backlog::Backlog::new(vumi_api::Kind::Transport, 10));
    let chain = Arc::new(crate::middleware::Chain::build(&[], "t", None).unwrap());
    let outlet = outlet::Outlet::new(Arc::clone(&broker), chain, backlog, &metrics, &[]);
    peer::Counter {
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
        once,
        replies: peer::ReplyQueue::default(),
        state: None,
        taking: Default::default(),
    }
}

fn from_the_peer() -> Output {
    let message = UserMessage::new("sms", Some("555"), Some("27821"));
    Output::new(Port::new("t", Flow::Inbound), message)
}

/// While the broker is away a peer is told so soon, not after its own patience.
#[tokio::test(start_paused = true)]
async fn a_peer_hears_that_the_broker_is_away() {
    let broker = crate::beacon::testing::Cuttable::new();
    broker.cut();
    let services = services(broker, None);
    let begin = tokio::time::Instant::now();
    let error = services.accept(from_the_peer()).await.unwrap_err();
    assert_eq!(error.code, codes::BROKER_UNREACHABLE);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

/// A broker that confirms when it is told to.
struct Slow {
    inner: Arc<dyn Broker>,
    confirms: Semaphore,
    published: AtomicU32,
}

#[async_trait]
impl Double for Slow {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    async fn take(&self, publication: Publication) -> Receipt {
        let data = publication.class == PublicationClass::Data;
        let receipt = self.inner.publish(publication).await;
        if data {
            self.published.fetch_add(1, Ordering::SeqCst);
            self.confirms.acquire().await.unwrap().forget();
        }
        receipt
    }
}

/// The provider's own deadline ends before the broker confirms; then it delivers the message again.
#[tokio::test]
async fn a_provider_that_hangs_up_makes_no_second_message() {
    let inner: Arc<dyn Broker> = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
    let queue = QueueSpec::Data("t.inbound".into());
    inner.declare(&queue).await.unwrap();
    let broker = Arc::new(Slow {
        inner,
        confirms: Semaphore::new(0),
        published: AtomicU32::new(0),
    });
    let store: Arc<dyn StateStore> = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
    let manifest = json!({"kind": "Transport", "metadata": {"name": "t"}, "spec": {"telnet": {"port": 8023}, "transportName": "t"}});
    let resource = crate::conformance::stand_in::resource(&manifest).unwrap();
    let metrics = Telemetry::new().worker("transport/t");
    let once = Arc::new(sending::Once::new(store, &resource, metrics));
    let services = services(Arc::clone(&broker) as Arc<dyn Broker>, Some(once));
    let take = || services.accept_once(from_the_peer(), "its id", "answer".into());
    let waited = tokio::time::timeout(Duration::from_millis(200), take()).await;
    assert!(waited.is_err(), "the broker has not confirmed it");
    broker.confirms.add_permits(10);
    assert_eq!(take().await.unwrap(), Taken::Before("answer".into()));
    assert_eq!(broker.published.load(Ordering::SeqCst), 1);
}
