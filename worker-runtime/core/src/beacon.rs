//! Sends telemetry (status, heartbeats) to whoever listens: nothing is declared, and a broker that is away is not waited
//! for, so that nothing piles up behind it (R12).

use crate::broker::{Broker, Confirmation, LinkState, Publication, PublicationClass};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for the broker's word. Cancelling a publication that is not sent yet withdraws it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the broker takes publications now.
pub(crate) fn is_up(link: &LinkState) -> bool {
    matches!(link, LinkState::Up { .. })
}

/// Publishes one telemetry message. False if the broker is away or did not take it: say it again later, as it is then.
pub(crate) async fn tell(broker: &dyn Broker, exchange: &str, key: &str, body: Bytes) -> bool {
    if !is_up(&broker.link().borrow()) {
        return false;
    }
    let publication = Publication {
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        body,
        message_id: None,
        class: PublicationClass::Telemetry,
    };
    let sent = async { broker.publish(publication).await.confirmation().await };
    matches!(
        timeout(PATIENCE, sent).await,
        Ok(Confirmation::Confirmed | Confirmation::Returned(_))
    )
}

#[cfg(test)]
pub(crate) mod testing {
    //! The embedded broker behind a connection that tests cut and restore.

    use super::*;
    use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
    use crate::broker::{Access, QueueSpec, RawDelivery, Receipt, Subscribe, Subscription};
    use crate::conformance::delegate::Double;
    use async_trait::async_trait;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;
    use tokio::sync::watch;

    pub(crate) struct Cuttable {
        inner: Arc<dyn Broker>,
        link: watch::Sender<LinkState>,
        hangs: AtomicBool,
    }

    impl Cuttable {
        pub(crate) fn new() -> Arc<Self> {
            let inner = EmbeddedBroker::open(EmbeddedOptions::default()).unwrap();
            let link = watch::Sender::new(inner.link().borrow().clone());
            Arc::new(Self {
                inner,
                link,
                hangs: AtomicBool::new(false),
            })
        }

        pub(crate) fn cut(&self) {
            self.link.send_replace(LinkState::Connecting {
                error: None,
                since: SystemTime::now(),
                refused: false,
            });
        }

        pub(crate) fn restore(&self) {
            self.link.send_replace(self.inner.link().borrow().clone());
        }

        /// Publications wait for ever, though the link still looks well.
        pub(crate) fn hang(&self, hangs: bool) {
            self.hangs.store(hangs, Ordering::SeqCst);
        }

        /// A copy of what is published on `exchange` with `key`.
        pub(crate) async fn copy(&self, exchange: &str, key: &str) -> Subscription {
            self.subscribe(Subscribe {
                queue: QueueSpec::Copy {
                    name: format!("copy.{key}"),
                    exchange: exchange.into(),
                    keys: vec![key.into()],
                },
                prefetch: 1000,
                access: Access::Shared,
                tag: "test".into(),
            })
            .await
        }
    }

    /// The next message; panics if none comes within two minutes of the (paused) clock.
    pub(crate) async fn next(copy: &mut Subscription) -> RawDelivery {
        timeout(Duration::from_secs(120), copy.deliveries.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Whether nothing comes for that long.
    pub(crate) async fn silent(copy: &mut Subscription, time: Duration) -> bool {
        timeout(time, copy.deliveries.recv()).await.is_err()
    }

    #[async_trait]
    impl Double for Cuttable {
        fn inner(&self) -> &Arc<dyn Broker> {
            &self.inner
        }

        fn shown_link(&self) -> watch::Receiver<LinkState> {
            self.link.subscribe()
        }

        async fn take(&self, publication: Publication) -> Receipt {
            while self.hangs.load(Ordering::SeqCst) || !is_up(&self.link.borrow()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.inner.publish(publication).await
        }
    }
}
