//! How a queue was divided when messages were last passed on. After a change, what waits in the queues of the old parts is
//! finished before anything is passed on: else a user's later messages could overtake the earlier ones in another part.
//! What waits in the journals of the old parts, perhaps for days, moves along, lane by lane, into those of the new ones.
//!
//! The division is written down at the broker, in `<queue>.layout`, by whoever holds the fence of the queue.

mod emptying;
mod held;
mod journals;
mod notes;

use super::super::consumer::{Counters, Parts};
use super::plan::{Plan, is_part, queue_of};
use super::window_of_part;
use crate::broker::{Acker, Broker, ConsumerState};
use crate::error::WorkError;
use crate::reasons::{self, Reason};
use crate::state::StateStore;
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use notes::Note;
pub(super) use notes::note_queue;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use vumi_api::{Flow, OrderingMode};

/// Between two tries after the broker did not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// What has not succeeded for so long is said.
const SILENCE: Duration = Duration::from_secs(3);

/// What the crew knows of the parts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Parts that this replica reads.
    pub(super) reads: BTreeSet<String>,
    /// It was asked to let go of all parts, and has; nor does another replica say that it has one.
    pub(super) left: bool,
    /// Messages in hand.
    pub(super) in_hand: u64,
    /// Messages taken so far.
    pub(super) received: u64,
}

/// The parts that a replica wants to have for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedParts {
    pub(super) parts: BTreeSet<String>,
    /// Nobody is to read them, this replica's crew included: their journals move.
    pub(super) closed: bool,
}

/// Agrees with the broker on how the queue is divided.
pub(in crate::engine) struct Layout {
    broker: Arc<dyn Broker>,
    status: Arc<StatusDesk>,
    /// Where the journals of parts are.
    store: Option<Arc<dyn StateStore>>,
    plan: Plan,
    flow: Flow,
    mode: OrderingMode,
    /// Of a consumer of the queue as a whole.
    prefetch: u16,
    tag: String,
    /// Former parts that are to be read, where nothing reads parts otherwise: the queue is not divided any more.
    former: watch::Sender<Option<BTreeSet<String>>>,
    /// Messages of such parts.
    leftover: Arc<Counters>,
    /// Consumer of the queue as a whole: the holder of its fence decides.
    leader: OnceLock<(watch::Receiver<ConsumerState>, Arc<dyn Acker>)>,
    /// Generation of the channel for which it is agreed: a new one may follow another holder, who divided differently.
    agreed: watch::Sender<Option<u64>>,
    /// A report of ours says that it is not divided as it should be.
    complains: AtomicBool,
    /// The last change of it did not succeed.
    fails: AtomicBool,
    /// The journal of the queue itself was changed, and whoever reads it knows by heart which lanes are in it.
    stale: AtomicBool,
    /// The newest generation that somebody asked about.
    asked: AtomicU64,
    /// Messages up to this generation come again, to be looked at by what the journal holds now.
    void: AtomicU64,
    turn: Mutex<()>,
    /// The parts that this replica wants to empty.
    alone: watch::Sender<Option<WantedParts>>,
    here: watch::Sender<Here>,
}

impl Layout {
    /// For a queue that is to be divided so; `parts` is what a consumer of it as a whole would be made of.
    pub(super) fn new(parts: &Parts, plan: Plan) -> Self {
        Self {
            broker: Arc::clone(&parts.broker),
            status: Arc::clone(&parts.status),
            store: parts.journal.as_ref().map(|j| Arc::clone(&j.store)),
            plan,
            flow: parts.desk.port.flow,
            mode: parts.mode,
            prefetch: parts.prefetch,
            tag: parts.tag.clone(),
            former: watch::Sender::new(None),
            leftover: Arc::default(),
            leader: OnceLock::new(),
            agreed: watch::Sender::new(None),
            complains: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            void: AtomicU64::new(0),
            turn: Mutex::new(()),
            alone: watch::Sender::new(None),
            here: watch::Sender::default(),
        }
    }

    /// The queue that is to be divided.
    pub(super) fn queue(&self) -> &str {
        self.plan.queue()
    }

    /// Who consumes the queue as a whole.
    pub(super) fn led_by(&self, leader: watch::Receiver<ConsumerState>, acker: Arc<dyn Acker>) {
        let _ = self.leader.set((leader, acker));
    }

    /// Whether this replica consumes the queue as a whole now.
    pub(super) fn leads(&self) -> bool {
        let leader = self.leader.get();
        leader.is_some_and(|(state, _)| *state.borrow() == ConsumerState::Consuming)
    }

    /// Counts of the messages in parts of a queue that is not divided any more.
    pub(super) fn leftover(&self) -> Arc<Counters> {
        Arc::clone(&self.leftover)
    }

    /// Parts of a queue that is not divided any more which are to be read, until there are none.
    pub(super) fn former(&self) -> watch::Receiver<Option<BTreeSet<String>>> {
        self.former.subscribe()
    }

    /// The parts that this replica wants to have for itself.
    pub(super) fn alone(&self) -> watch::Receiver<Option<WantedParts>> {
        self.alone.subscribe()
    }

    /// The crew says what it reads now.
    pub(super) fn tell(&self, here: Here) {
        self.here.send_replace(here);
    }

    /// Returns once messages of this generation may be passed on; false if they are no longer ours before.
    pub(in crate::engine) async fn agreed(
        &self,
        generation: u64,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> bool {
        if *self.agreed.borrow() == Some(generation) {
            return true;
        }
        let mut known = self.agreed.subscribe();
        self.asked.fetch_max(generation, Ordering::SeqCst);
        let agree = async {
            self.agreed_at_last().await;
            if generation <= self.void.load(Ordering::SeqCst) {
                // This channel is about to end, and what it delivered comes again.
                std::future::pending::<()>().await;
            }
            self.agreed.send_replace(Some(generation));
        };
        let lost = async {
            while !interrupted() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            biased;
            () = lost => false,
            // All that wait go on together.
            _ = known.wait_for(|agreed| *agreed == Some(generation)) => true,
            () = agree => true,
        }
    }

    /// Agrees whenever this replica begins to consume the queue as a whole, so that what waits in old parts does not wait
    /// for the next message as well. Never ends.
    pub(super) async fn keep(self: Arc<Self>) {
        let consumes = |state: &ConsumerState| *state == ConsumerState::Consuming;
        let Some((mut leader, _)) = self.leader.get().cloned() else {
            return std::future::pending().await;
        };
        while leader.wait_for(consumes).await.is_ok() {
            let agree = async {
                self.agreed_at_last().await;
                std::future::pending().await
            };
            tokio::select! {
                () = agree => {}
                _ = leader.wait_for(|state| !consumes(state)) => {}
            }
            self.settled("whoever reads the queue sees to it");
        }
        std::future::pending().await
    }

    /// Agrees, however long broker and store do not answer.
    async fn agreed_at_last(&self) {
        let _turn = self.turn.lock().await;
        let mut since = None;
        while let Err(error) = self.agree().await {
            tracing::debug!(queue = self.plan.queue(), code = %error.code, reason = %error, "the division of the queue is not settled yet");
            if since.get_or_insert_with(Instant::now).elapsed() >= SILENCE {
                let text = format!("new messages wait: {error}");
                self.complain(StatusLevel::Down, reasons::DIVISION_UNSETTLED, text);
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.settled("as it should be");
        if let (true, Some((_, acker))) = (self.stale.load(Ordering::SeqCst), self.leader.get()) {
            let asked = self.asked.load(Ordering::SeqCst);
            let now = acker.generation().unwrap_or(0);
            self.void.store(asked.max(now), Ordering::SeqCst);
            self.stale.store(false, Ordering::SeqCst);
            acker.rebuild();
        }
    }

    /// Says that it is not divided as it should be; only who divides it does.
    fn complain(&self, level: StatusLevel, reason: Reason, text: impl Into<String>) {
        if self.leads() {
            self.complains.store(true, Ordering::SeqCst);
            self.status
                .report(StatusReport::new(self.component(), level, reason, text));
        }
    }

    /// There is nothing to complain of any more.
    fn settled(&self, text: &str) {
        self.fails.store(false, Ordering::SeqCst);
        if self.complains.swap(false, Ordering::SeqCst) {
            let (level, reason) = (StatusLevel::Ok, reasons::DIVIDED);
            self.status
                .report(StatusReport::new(self.component(), level, reason, text));
        }
    }

    fn component(&self) -> String {
        format!("partitions of {}", self.plan.queue())
    }

    async fn agree(&self) -> Result<(), WorkError> {
        if self.mode != OrderingMode::None
            && let Some(store) = &self.store
        {
            // Whoever held the fence before us may be frozen in the midst of a move.
            store.dismiss(self.plan.queue()).await?;
        }
        let notes = self.read().await?;
        let left = self.left_in_journals().await?;
        if notes.is_empty() && left.is_empty() && self.plan.parts().is_empty() {
            return Ok(());
        }
        let ours: BTreeSet<String> = self.plan.parts().iter().cloned().collect();
        let same =
            |note: &Option<Note>| note.as_ref().is_some_and(|n| n.parts == self.plan.parts());
        if notes.iter().all(same) && !notes.is_empty() && left.is_empty() {
            return Ok(());
        }
        if !notes.is_empty() || !left.is_empty() || self.has_journal().await? {
            let mut parts = ours;
            parts.extend(left);
            parts.extend(notes.into_iter().flatten().flat_map(|note| note.parts));
            return self.redivide(&parts).await;
        }
        self.write().await
    }
}
