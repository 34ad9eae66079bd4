//! A broker between a worker and its real broker that holds or loses confirmations, refuses and returns publications,
//! swallows acknowledgements, cuts channels and goes away, when a case says so.

use super::line::{Acks, Line};
use crate::broker::{
    Acker, Broker, Confirmation, Durability, EXCHANGE, LinkState, Publication, PublicationClass,
    QueueDepth, QueueSpec, Receipt, Shelf, Subscribe, Subscription,
};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use vumi_api::Flow;

/// What happens to one publication instead of the usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The broker refuses it.
    Nacked,
    /// No queue takes it.
    Returned,
    /// It never gets there, and the connection ends.
    Lost,
    /// It gets there, but the confirmation does not come back.
    ConfirmationLost,
}

/// What a case does to the broker as the worker sees it.
pub(crate) trait Mischief {
    /// From now on data publications get there, but their confirmations wait.
    fn hold_confirmations(&self, hold: bool);
    /// The connection breaks: consumers lose their channels, confirmations on their way are lost, publications wait.
    fn go_away(&self);
    /// The connection is there again.
    fn come_back(&self);
    /// The next data publications meet these.
    fn next(&self, mishaps: &[Mishap]);
    /// Mishaps that no publication met yet.
    fn mishaps_left(&self) -> usize;
    /// From now on no queue takes publications with these routing keys: they are returned.
    fn unroutable(&self, queues: impl IntoIterator<Item = String>);
    /// Publications so far that no queue took by that.
    fn unrouted(&self) -> u64;
    /// From now on acknowledgements never reach the broker, as when the process dies before it sends them.
    fn swallow_acks(&self, swallow: bool);
    /// Acknowledgements that the worker made, whether they got there or not.
    fn acks_tried(&self) -> u64;
    /// Acknowledgements that got there.
    fn acks_passed(&self) -> u64;
    /// A queue to which something was published that does not outlive the broker.
    fn careless(&self) -> Option<String>;
}

/// The broker that a worker under test is given.
pub(crate) struct Faults {
    inner: Arc<dyn Broker>,
    /// Confirmations pass while this is false.
    held: watch::Sender<bool>,
    /// The connection is there while this is false.
    away: watch::Sender<bool>,
    /// The broker gave the connection up, and the worker does not know.
    given_up: watch::Sender<bool>,
    /// Data publications that got there.
    published: AtomicU64,
    link: watch::Sender<LinkState>,
    mishaps: Mutex<VecDeque<Mishap>>,
    unroutable: Mutex<BTreeSet<String>>,
    returned: AtomicU64,
    careless: Mutex<Option<String>>,
    acks: Arc<Acks>,
    lines: Mutex<Vec<Weak<Line>>>,
    /// Where the broker's side of things lives: it goes on while the worker's stands still.
    home: Handle,
    _ends_mirror: DropGuard,
}

impl Faults {
    pub(crate) fn new(inner: Arc<dyn Broker>) -> Arc<Self> {
        let away = watch::Sender::new(false);
        let link = watch::Sender::new(inner.link().borrow().clone());
        let end = CancellationToken::new();
        let mirror = mirror(inner.link(), away.subscribe(), link.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(mirror));
        Arc::new(Self {
            inner,
            held: watch::Sender::new(false),
            away,
            given_up: watch::Sender::new(false),
            published: AtomicU64::new(0),
            link,
            mishaps: Mutex::default(),
            unroutable: Mutex::default(),
            returned: AtomicU64::new(0),
            careless: Mutex::default(),
            acks: Arc::default(),
            lines: Mutex::default(),
            home: Handle::current(),
            _ends_mirror: end.drop_guard(),
        })
    }

    /// Asks the broker where that lives: a worker that stands still keeps nothing that others need.
    async fn at_home<T, F>(&self, ask: impl FnOnce(Arc<dyn Broker>) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        match self.home.spawn(ask(Arc::clone(&self.inner))).await {
            Ok(answer) => answer,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // The case is over.
            Err(_) => std::future::pending().await,
        }
    }

    /// The broker gives up the connection of a worker that gives no sign of life: its consumers end, and others get what
    /// they had. The worker does not know: what it says from now on gets nowhere, until the connection breaks for it too
    /// ([`Mischief::go_away`]).
    pub(super) fn give_up(&self) {
        self.given_up.send_replace(true);
        self.lines().iter().for_each(|line| line.give_up());
    }

    /// Data publications that got there so far.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    /// The broker takes no publications: it has an alarm.
    #[cfg(test)]
    pub(crate) fn block(&self) {
        let alarm = LinkState::Blocked("low on memory".into());
        self.link.send_replace(alarm);
    }

    /// Ends every channel for good, as the death of the process does.
    pub(crate) fn sever(&self) {
        self.lines().iter().for_each(|line| line.close());
    }

    /// Loses every channel; the broker heals them under a new generation. How many there were.
    pub(crate) fn cut(&self) -> usize {
        self.lines().iter().filter(|line| line.cut()).count()
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        lock(&self.lines).iter().filter_map(Weak::upgrade).collect()
    }

    /// Instead of an answer while the broker is away.
    fn reachable(&self) -> Result<(), WorkError> {
        match *self.away.borrow() || *self.given_up.borrow() {
            false => Ok(()),
            true => Err(WorkError::new(
                ErrorClass::Connect,
                codes::BROKER_UNREACHABLE,
                "taken away by the conformance suite",
            )),
        }
    }

    /// What the broker says of a publication at once.
    fn refusal(&self, publication: &Publication) -> Option<Confirmation> {
        let returned = || {
            self.returned.fetch_add(1, Ordering::SeqCst);
            Some(Confirmation::Returned("312 NO_ROUTE".into()))
        };
        let key = &publication.routing_key;
        if publication.exchange == EXCHANGE && lock(&self.unroutable).contains(key) {
            return returned();
        }
        let mut mishaps = lock(&self.mishaps);
        let refusal = match mishaps.front()? {
            Mishap::Nacked => Some(Confirmation::Nacked),
            Mishap::Returned => returned(),
            Mishap::Lost => Some(Confirmation::Lost),
            Mishap::ConfirmationLost => return None,
        };
        mishaps.pop_front();
        refusal
    }
}

impl Mischief for Faults {
    fn hold_confirmations(&self, hold: bool) {
        self.held.send_replace(hold);
    }

    fn go_away(&self) {
        self.lines().iter().for_each(|line| line.end());
        self.link.send_replace(LinkState::Connecting {
            error: Some("taken away by the conformance suite".into()),
            since: SystemTime::now(),
            refused: false,
        });
        self.away.send_replace(true);
        self.given_up.send_replace(false);
    }

    fn come_back(&self) {
        self.away.send_replace(false);
        self.link.send_replace(self.inner.link().borrow().clone());
    }

    fn next(&self, mishaps: &[Mishap]) {
        lock(&self.mishaps).extend(mishaps);
    }

    fn mishaps_left(&self) -> usize {
        lock(&self.mishaps).len()
    }

    fn unroutable(&self, queues: impl IntoIterator<Item = String>) {
        *lock(&self.unroutable) = queues.into_iter().collect();
    }

    fn unrouted(&self) -> u64 {
        self.returned.load(Ordering::SeqCst)
    }

    fn swallow_acks(&self, swallow: bool) {
        self.acks.swallowed.store(swallow, Ordering::SeqCst);
    }

    fn acks_tried(&self) -> u64 {
        self.acks.tried.load(Ordering::SeqCst)
    }

    fn acks_passed(&self) -> u64 {
        self.acks.passed.load(Ordering::SeqCst)
    }

    // A publication says what it is, and the broker's client makes data persistent and mandatory.
    fn careless(&self) -> Option<String> {
        lock(&self.careless).clone()
    }
}

/// Shows the worker the real link while the broker is there.
async fn mirror(
    mut real: watch::Receiver<LinkState>,
    away: watch::Receiver<bool>,
    shown: watch::Sender<LinkState>,
) {
    while real.changed().await.is_ok() {
        let state = real.borrow_and_update().clone();
        if !*away.borrow() {
            shown.send_replace(state);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Broker for Faults {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    async fn publish(&self, publication: Publication) -> Receipt {
        let mut away = self.away.subscribe();
        let _ = away.wait_for(|away| !away).await;
        if *self.given_up.borrow() {
            let (resolve, receipt) = Receipt::new();
            tokio::spawn(async move {
                let _ = away.wait_for(|away| *away).await;
                let _ = resolve.send(Confirmation::Lost);
            });
            return receipt;
        }
        if publication.class == PublicationClass::Telemetry {
            let data = [Flow::Inbound, Flow::Outbound, Flow::Event];
            let key = &publication.routing_key;
            if data
                .iter()
                .any(|flow| key.ends_with(&format!(".{}", flow.as_str())))
            {
                lock(&self.careless).get_or_insert_with(|| key.clone());
            }
            return self
                .at_home(|broker| async move { broker.publish(publication).await })
                .await;
        }
        let (resolve, receipt) = Receipt::new();
        if let Some(refusal) = self.refusal(&publication) {
            let _ = resolve.send(refusal);
            return receipt;
        }
        let mishap = lock(&self.mishaps).pop_front();
        self.published.fetch_add(1, Ordering::SeqCst);
        let inner = self
            .at_home(|broker| async move { broker.publish(publication).await })
            .await;
        let mut held = self.held.subscribe();
        let fate = async move {
            let confirmation = inner.confirmation().await;
            let _ = held.wait_for(|held| !held).await;
            match mishap {
                Some(_) => Confirmation::Lost,
                None => confirmation,
            }
        };
        tokio::spawn(async move {
            let confirmation = tokio::select! {
                biased;
                Ok(_) = away.wait_for(|away| *away) => Confirmation::Lost,
                confirmation = fate => confirmation,
            };
            let _ = resolve.send(confirmation);
        });
        receipt
    }

    async fn subscribe(&self, subscribe: Subscribe) -> Subscription {
        let mut given_up = self.given_up.subscribe();
        let _ = given_up.wait_for(|given_up| !given_up).await;
        // A replica's own queue goes with its connection: what is acknowledged there promises nothing to anybody.
        let acks = match subscribe.queue {
            QueueSpec::Reply(_) => Arc::default(),
            _ => Arc::clone(&self.acks),
        };
        let (line, subscription) = Line::open(
            (&self.home, Arc::clone(&self.inner)),
            self.away.subscribe(),
            subscribe,
            acks,
        );
        lock(&self.lines).push(Arc::downgrade(&line));
        subscription
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), WorkError> {
        self.reachable()?;
        let queue = queue.clone();
        self.at_home(|broker| async move { broker.declare(&queue).await })
            .await
    }

    async fn depth(&self, queue: &str) -> Result<Option<QueueDepth>, WorkError> {
        self.reachable()?;
        let queue = queue.to_owned();
        self.at_home(|broker| async move { broker.depth(&queue).await })
            .await
    }

    async fn is_there(&self, queue: &str) -> Result<bool, WorkError> {
        self.reachable()?;
        let queue = queue.to_owned();
        self.at_home(|broker| async move { broker.is_there(&queue).await })
            .await
    }

    async fn shelf(&self, queue: &str, limit: usize) -> Result<Box<dyn Shelf>, WorkError> {
        self.reachable()?;
        let queue = queue.to_owned();
        self.at_home(move |broker| async move { broker.shelf(&queue, limit).await })
            .await
    }

    async fn close(&self, deadline: Duration) {
        self.inner.close(deadline).await;
    }
}
