//! A broker between a worker and its real broker that holds or loses confirmations, refuses publications, swallows
//! acknowledgements and cuts channels, when a case says so.

use super::delegate::Double;
use crate::broker::{
    Acker, Broker, Confirmation, Publication, PublicationClass, Receipt, Subscribe, Subscription,
};
use async_trait::async_trait;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// What happens to one publication instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The broker refuses it.
    Nacked,
    /// No queue takes it.
    Returned,
    /// It never gets there, and the connection ends.
    Lost,
    /// It gets there, but the confirmation does not come back.
    ConfirmationLost,
}

/// The broker that a worker under test is given.
pub(super) struct Faults {
    inner: Arc<dyn Broker>,
    /// Confirmations pass while this is false.
    held: watch::Sender<bool>,
    mishaps: Mutex<VecDeque<Mishap>>,
    acks: Arc<Acks>,
    ackers: Mutex<Vec<Weak<FaultyAcker>>>,
}

#[derive(Default)]
struct Acks {
    swallowed: AtomicBool,
    passed: AtomicU64,
    tried: AtomicU64,
}

impl Faults {
    pub(super) fn new(inner: Arc<dyn Broker>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            held: watch::Sender::new(false),
            mishaps: Mutex::default(),
            acks: Arc::default(),
            ackers: Mutex::default(),
        })
    }

    /// From now on data publications get there, but their confirmations wait.
    pub(super) fn hold_confirmations(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    /// The next data publications meet these.
    pub(super) fn next(&self, mishaps: &[Mishap]) {
        lock(&self.mishaps).extend(mishaps);
    }

    /// Mishaps that no publication met yet.
    pub(super) fn mishaps_left(&self) -> usize {
        lock(&self.mishaps).len()
    }

    /// From now on acknowledgements never reach the broker, as when the process dies before it sends them.
    pub(super) fn swallow_acks(&self, swallow: bool) {
        self.acks.swallowed.store(swallow, Ordering::SeqCst);
    }

    /// Acknowledgements that the worker made, whether they got there or not.
    pub(super) fn acks_tried(&self) -> u64 {
        self.acks.tried.load(Ordering::SeqCst)
    }

    /// Acknowledgements that got there.
    pub(super) fn acks_passed(&self) -> u64 {
        self.acks.passed.load(Ordering::SeqCst)
    }

    /// Ends every channel for good, as the death of the process does.
    pub(super) fn sever(&self) {
        for acker in self.take_ackers() {
            acker.inner.close();
        }
    }

    /// Loses every channel; the broker heals them under a new generation.
    pub(super) fn cut(&self) -> usize {
        let ackers = self.take_ackers();
        for acker in &ackers {
            acker.inner.rebuild();
        }
        lock(&self.ackers).extend(ackers.iter().map(Arc::downgrade));
        ackers.len()
    }

    fn take_ackers(&self) -> Vec<Arc<FaultyAcker>> {
        let taken = std::mem::take(&mut *lock(&self.ackers));
        taken.iter().filter_map(Weak::upgrade).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct FaultyAcker {
    inner: Arc<dyn Acker>,
    acks: Arc<Acks>,
}

impl Acker for FaultyAcker {
    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        self.acks.tried.fetch_add(1, Ordering::SeqCst);
        if self.acks.swallowed.load(Ordering::SeqCst) {
            return true;
        }
        self.acks.passed.fetch_add(1, Ordering::SeqCst);
        self.inner.ack(generation, tag, multiple)
    }

    fn requeue(&self, generation: u64, tag: u64) -> bool {
        self.inner.requeue(generation, tag)
    }

    fn cancel(&self) {
        self.inner.cancel();
    }

    fn resume(&self) {
        self.inner.resume();
    }

    fn release(&self) {
        self.inner.release();
    }

    fn close(&self) {
        self.inner.close();
    }

    fn rebuild(&self) {
        self.inner.rebuild();
    }
}

#[async_trait]
impl Double for Faults {
    fn inner(&self) -> &Arc<dyn Broker> {
        &self.inner
    }

    async fn take(&self, publication: Publication) -> Receipt {
        if publication.class == PublicationClass::Telemetry {
            return self.inner.publish(publication).await;
        }
        let mishap = lock(&self.mishaps).pop_front();
        let (resolve, receipt) = Receipt::new();
        let confirmation = match mishap {
            Some(Mishap::Nacked) => Some(Confirmation::Nacked),
            Some(Mishap::Returned) => Some(Confirmation::Returned("312 NO_ROUTE".into())),
            Some(Mishap::Lost) => Some(Confirmation::Lost),
            Some(Mishap::ConfirmationLost) | None => None,
        };
        if let Some(confirmation) = confirmation {
            let _ = resolve.send(confirmation);
            return receipt;
        }
        let inner = self.inner.publish(publication).await;
        let mut held = self.held.subscribe();
        tokio::spawn(async move {
            let confirmation = inner.confirmation().await;
            let _ = held.wait_for(|held| !held).await;
            let _ = resolve.send(match mishap {
                Some(_) => Confirmation::Lost,
                None => confirmation,
            });
        });
        receipt
    }

    async fn give(&self, subscribe: Subscribe) -> Subscription {
        let subscription = self.inner.subscribe(subscribe).await;
        let acker = Arc::new(FaultyAcker {
            inner: subscription.acker,
            acks: Arc::clone(&self.acks),
        });
        lock(&self.ackers).push(Arc::downgrade(&acker));
        Subscription {
            deliveries: subscription.deliveries,
            state: subscription.state,
            acker,
        }
    }
}
