//! How a queue was divided when messages were last passed on. After a change, what waits in the queues of the old parts is
//! finished before anything is passed on: else a user's later messages could overtake the earlier ones in another part.
//! What waits in the journals of the old parts, perhaps for days, moves along, lane by lane, into those of the new ones.
//!
//! The division is written down at the broker, in `<queue>.layout`, by whoever holds the fence of the queue.

mod emptying;
mod journals;
mod notes;

use super::super::consumer::{Counters, Parts};
use super::plan::{Plan, is_part, queue_of};
use crate::broker::{Acker, Broker, ConsumerState};
use crate::error::WorkError;
use crate::state::StateStore;
use crate::status::StatusDesk;
use notes::Note;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use vumi_api::{Flow, OrderingMode};

/// Between two tries after the broker did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// What the crew knows of the parts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Parts that this replica reads.
    pub(super) reads: BTreeSet<String>,
    /// Parts that it has a consumer of, whether that reads already, or still.
    pub(super) posts: usize,
    /// Messages in hand.
    pub(super) in_hand: u64,
    /// Messages taken so far.
    pub(super) received: u64,
}

/// The parts that a replica wants to have for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alone {
    pub(super) parts: BTreeSet<String>,
    /// Nobody is to read them, not this replica either: their journals move.
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
    /// What a reader of parts is made of where nothing reads parts otherwise: the queue is not divided any more.
    readers: Option<Parts>,
    /// Messages of such parts.
    leftover: Arc<Counters>,
    /// Consumer of the queue as a whole: the holder of its fence decides.
    leader: OnceLock<(watch::Receiver<ConsumerState>, Arc<dyn Acker>)>,
    /// Generation of the channel for which it is agreed: a new one may follow another holder, who divided differently.
    agreed: watch::Sender<u64>,
    /// The journal of the queue itself was changed, and whoever reads it knows by heart which lanes are in it.
    stale: AtomicBool,
    /// The newest generation that somebody asked about.
    asked: AtomicU64,
    /// Messages up to this generation come again, to be looked at by what the journal holds now.
    void: AtomicU64,
    turn: Mutex<()>,
    /// The parts that this replica wants to empty.
    alone: watch::Sender<Option<Alone>>,
    here: watch::Sender<Here>,
}

impl Layout {
    /// For a queue that is to be divided so; `parts` is what a consumer of it as a whole would be made of.
    pub(super) fn new(parts: &Parts, plan: Plan) -> Self {
        let readers = plan.parts().is_empty().then(|| parts.clone());
        Self {
            broker: Arc::clone(&parts.broker),
            status: Arc::clone(&parts.status),
            store: parts.journal.as_ref().map(|j| Arc::clone(&j.store)),
            plan,
            flow: parts.desk.port.flow,
            mode: parts.mode,
            readers,
            leftover: Arc::default(),
            leader: OnceLock::new(),
            agreed: watch::Sender::new(0),
            stale: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            void: AtomicU64::new(0),
            turn: Mutex::new(()),
            alone: watch::Sender::new(None),
            here: watch::Sender::default(),
        }
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

    /// The parts that this replica wants to have for itself.
    pub(super) fn alone(&self) -> watch::Receiver<Option<Alone>> {
        self.alone.subscribe()
    }

    /// The crew says what it reads now.
    pub(super) fn tell(&self, here: Here) {
        self.here.send_replace(here);
    }

    /// Returns once messages of this generation may be passed on; false if they are no longer ours before.
    pub(in crate::engine) async fn agreed(
        self: &Arc<Self>,
        generation: u64,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> bool {
        if *self.agreed.borrow() == generation {
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
            self.agreed.send_replace(generation);
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
            _ = known.wait_for(|agreed| *agreed == generation) => true,
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
        }
        std::future::pending().await
    }

    /// Agrees, however long broker and store do not answer.
    async fn agreed_at_last(self: &Arc<Self>) {
        let _turn = self.turn.lock().await;
        while let Err(error) = self.agree().await {
            tracing::debug!(queue = self.plan.queue(), reason = %error, "the division of the queue is not known yet");
            tokio::time::sleep(AGAIN).await;
        }
        if let (true, Some((_, acker))) = (self.stale.load(Ordering::SeqCst), self.leader.get()) {
            let asked = self.asked.load(Ordering::SeqCst);
            let now = acker.generation().unwrap_or(0);
            self.void.store(asked.max(now), Ordering::SeqCst);
            self.stale.store(false, Ordering::SeqCst);
            acker.rebuild();
        }
    }

    async fn agree(self: &Arc<Self>) -> Result<(), WorkError> {
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
            self.empty(parts).await?;
        }
        self.write().await
    }
}
