//! How a queue was divided when messages were last passed on. After a change, what waits in the queues of the old parts is
//! finished before anything is passed on: else a user's later messages could overtake the earlier ones in another part.
//! What waits in the journals of the old parts, perhaps for days, moves along, lane by lane, into those of the new ones.
//!
//! The division is written down at the broker, in `<queue>.layout`, by whoever holds the fence of the queue.

use super::super::backlog::Backlog;
use super::super::consumer::{Counters, Parts, Phase};
use super::super::delivery::Desk;
use super::super::lanes::LaneChooser;
use super::crew::Crew;
use super::plan::{Plan, is_part, queue_of};
use crate::broker::{
    Acker, Broker, Confirmation, ConsumerState, Publication, PublicationClass, QueueSpec,
};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::message::Message;
use crate::state::journal::{Filter, Lane as Place};
use crate::state::{Journal, StateStore};
use crate::status::{StatusDesk, StatusLevel, StatusReport};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use vumi_api::{Flow, Kind, OrderingMode};

/// Between two looks at what is left in the old parts.
const LOOK: Duration = Duration::from_millis(500);
/// The parts must have been empty for so long: what the broker had on its way to us is here by then.
const QUIET: Duration = Duration::from_secs(1);
/// Between two tries after the broker did not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// Notes that one look takes in; there is one, or two after a crash.
const NOTES: usize = 10;

/// What is written down.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    parts: Vec<String>,
}

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
        let mut anew = false;
        if !notes.is_empty() || !left.is_empty() || self.has_journal().await? {
            let mut parts = ours;
            parts.extend(left);
            parts.extend(notes.into_iter().flatten().flat_map(|note| note.parts));
            anew = self.empty(parts).await?;
        }
        self.write().await?;
        if let (true, Some((_, acker))) = (anew, self.leader.get()) {
            // Which lanes have a journal is known by heart: whoever reads the queue itself begins anew.
            let asked = self.asked.load(Ordering::SeqCst);
            let now = acker.generation().unwrap_or(0);
            self.void.store(asked.max(now), Ordering::SeqCst);
            acker.rebuild();
        }
        Ok(())
    }

    /// Whether anything waits in the journal of the queue itself.
    async fn has_journal(&self) -> Result<bool, WorkError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let depth = Journal::depth(&**store, self.plan.queue()).await?;
        Ok(depth.messages > 0)
    }

    /// Parts that there are no more and whose journals hold messages: found without a note too, since a broker may be
    /// replaced while the store is kept. An error is never none.
    async fn left_in_journals(&self) -> Result<BTreeSet<String>, WorkError> {
        let Some(store) = &self.store else {
            return Ok(BTreeSet::new());
        };
        let queues = store.queues().await?;
        let part = |queue: &String| {
            let part = queue.strip_prefix(self.plan.queue())?.strip_prefix('.')?;
            is_part(part).then(|| part.to_owned())
        };
        let mut left: BTreeSet<String> = queues.iter().filter_map(part).collect();
        left.retain(|part| !self.plan.parts().contains(part));
        Ok(left)
    }

    /// Whether nothing waits in the queue of a part. An error is never zero.
    async fn is_empty(&self, part: &str) -> bool {
        let depth = self.broker.depth(&queue_of(self.plan.queue(), part)).await;
        matches!(depth, Ok(Some(depth)) if depth.ready == 0)
    }

    /// Moves what waits in the journals of these parts, and of the queue itself, to where it belongs now, lane by lane and
    /// in order. Nobody reads the parts meanwhile, so nobody misses what came. True if whoever reads the queue itself must
    /// begin anew, because that has another journal now.
    async fn move_journals(&self, parts: &BTreeSet<String>) -> Result<bool, WorkError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let own = self.plan.queue();
        let (mut moved, mut anew) = (0, false);
        let queues = parts.iter().map(|part| queue_of(own, part));
        for queue in queues.chain([own.to_owned()]) {
            if self.mode != OrderingMode::None && queue != own {
                // Of a reader that ended without a word.
                store.reclaim(&queue).await?;
            }
            let mut targets: BTreeMap<String, Vec<Place>> = BTreeMap::new();
            for place in Journal::lanes(&**store, &queue).await? {
                let target = self.target(&**store, &queue, &place).await?;
                targets.entry(target).or_default().push(place);
            }
            targets.remove(&queue);
            for (target, lanes) in targets {
                let messages = store.relocate(&queue, &target, &lanes).await?;
                moved += messages;
                anew |= messages > 0 && (queue == own || target == own);
            }
        }
        if moved > 0 {
            tracing::info!(
                queue = self.plan.queue(),
                messages = moved,
                "what waited in the journals of its former parts moved along"
            );
        }
        Ok(anew && self.mode != OrderingMode::None)
    }

    /// The queue to which a lane of a journal belongs, by its first message.
    async fn target(
        &self,
        store: &dyn StateStore,
        queue: &str,
        place: &Place,
    ) -> Result<String, WorkError> {
        let [first, ..] = self.plan.parts() else {
            return Ok(self.plan.queue().to_owned());
        };
        let filter = Filter {
            group: Some(place.group.clone()),
            lane: Some(place.number),
            ..Filter::default()
        };
        let head = store.list(queue, &filter, 1).await?.pop();
        let message = head.and_then(|head| Message::decode(self.flow, &head.entry.body).ok());
        Ok(match message {
            Some(message) => {
                let mode = match self.mode {
                    OrderingMode::None => OrderingMode::PerUser,
                    mode => mode,
                };
                let lane = LaneChooser::new(mode).lane(self.flow, &message);
                self.plan.target(&message, lane)
            }
            // Whoever reads it sets it aside.
            None => queue_of(self.plan.queue(), first),
        })
    }

    fn note_queue(&self) -> String {
        format!("{}.layout", self.plan.queue())
    }

    /// What is written down, none for what cannot be read; an empty list if the queue was never divided.
    async fn read(&self) -> Result<Vec<Option<Note>>, WorkError> {
        let queue = self.note_queue();
        if self.broker.depth(&queue).await?.is_none() {
            return Ok(Vec::new());
        }
        let shelf = self.broker.shelf(&queue, NOTES).await?;
        let notes = shelf.messages().iter();
        let notes = notes
            .map(|m| serde_json::from_slice(&m.body).ok())
            .collect();
        shelf.close().await;
        Ok(notes)
    }

    /// Writes down how it is divided now. A crash in between leaves both notes, which is a change again.
    async fn write(&self) -> Result<(), WorkError> {
        let queue = self.note_queue();
        self.broker
            .declare(&QueueSpec::Parking(queue.clone()))
            .await?;
        let mut shelf = self.broker.shelf(&queue, NOTES).await?;
        let note = Note {
            parts: self.plan.parts().to_vec(),
        };
        let written = self
            .broker
            .publish(Publication {
                exchange: String::new(),
                routing_key: queue.clone(),
                body: serde_json::to_vec(&note).unwrap_or_default().into(),
                message_id: None,
                class: PublicationClass::Direct,
            })
            .await;
        match written.confirmation().await {
            Confirmation::Confirmed => {}
            other => {
                return Err(WorkError::new(
                    ErrorClass::Connect,
                    codes::BROKER_UNREACHABLE,
                    format!("the broker did not take a note for {queue}: {other:?}"),
                ));
            }
        }
        let old: Vec<u64> = shelf.messages().iter().map(|m| m.tag).collect();
        for tag in old {
            shelf.remove(tag).await?;
        }
        shelf.close().await;
        tracing::info!(
            queue = self.plan.queue(),
            parts = self.plan.parts().len(),
            "the queue is divided"
        );
        Ok(())
    }

    /// Has all these parts for itself until nothing is left in them. The fence of each part proves that nobody else holds
    /// a message of it, and nobody else passes messages on, since this replica holds the fence of the queue. True if
    /// whoever reads the queue itself must begin anew.
    async fn empty(self: &Arc<Self>, parts: BTreeSet<String>) -> Result<bool, WorkError> {
        let component = format!("partitions of {}", self.plan.queue());
        let text = "its queue was divided differently before: what waits in the former partitions or classes is finished \
                    first, and new messages wait; what waits in the journal moves along";
        tracing::warn!(queue = self.plan.queue(), "the {component}: {text}");
        let report = StatusReport::new(
            component.as_str(),
            StatusLevel::Degraded,
            "redividing",
            text,
        );
        self.status.report(report);
        let anew = match &self.readers {
            None => self.emptied_and_moved(&parts, true).await?,
            Some(readers) => self.emptied_by(readers, &parts).await?,
        };
        let report = StatusReport::new(
            component.as_str(),
            StatusLevel::Ok,
            "divided",
            "as they should be",
        );
        self.status.report(report);
        Ok(anew)
    }

    /// Once nothing is left in the queues of these parts, moves what is left in their journals.
    async fn emptied_and_moved(
        &self,
        parts: &BTreeSet<String>,
        order: bool,
    ) -> Result<bool, WorkError> {
        let _alone = self.emptied(parts, order).await;
        if order {
            self.alone.send_replace(Some(Alone {
                parts: parts.clone(),
                closed: true,
            }));
            let mut here = self.here.subscribe();
            let _ = here.wait_for(|here| here.posts == 0).await;
        }
        self.move_journals(parts).await
    }

    /// Reads parts for as long as there is something in their queues.
    async fn emptied_by(
        self: &Arc<Self>,
        readers: &Parts,
        parts: &BTreeSet<String>,
    ) -> Result<bool, WorkError> {
        let plan = Plan::former(self.plan.queue(), parts);
        let phase = watch::Sender::new(Phase::Run);
        let halt = readers.desk.halt.child_token();
        let desk = Desk {
            counters: Arc::clone(&self.leftover),
            halt: halt.clone(),
            ..(*readers.desk).clone()
        };
        let backlog = Arc::new(Backlog::new(Kind::Dispatcher, readers.backlog.limit()));
        let mode = match readers.mode {
            // Nobody waits for a fence where no order is kept.
            OrderingMode::None => OrderingMode::None,
            _ => OrderingMode::PerUser,
        };
        let readers = Parts {
            desk: Arc::new(desk),
            phase: phase.subscribe(),
            mode,
            ..readers.clone()
        };
        let (crew, _) = Crew::new(readers, plan, Arc::clone(self), backlog);
        let mut crew = crew.run().boxed();
        let anew = tokio::select! {
            // The worker stops.
            () = &mut crew => return std::future::pending().await,
            anew = self.emptied_and_moved(parts, mode != OrderingMode::None) => anew,
        };
        phase.send_replace(Phase::Drain);
        halt.cancel();
        crew.await;
        anew
    }

    /// Returns once nothing is left in the queues of these parts. In `order`, this replica alone must have read them to
    /// the end, and has them for itself until what is returned is dropped.
    async fn emptied(&self, parts: &BTreeSet<String>, order: bool) -> Option<Lonely<'_>> {
        let alone = order.then(|| {
            self.alone.send_replace(Some(Alone {
                parts: parts.clone(),
                closed: false,
            }));
            Lonely(&self.alone)
        });
        let mut quiet: Option<(Instant, u64)> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let here = self.here.borrow().clone();
            let mut still = here.in_hand == 0;
            still &= !order || (self.leads() && here.reads.is_superset(parts));
            for part in parts {
                if !still {
                    break;
                }
                still = self.is_empty(part).await;
            }
            quiet = match quiet {
                _ if !still => None,
                Some((since, received)) if received == here.received => {
                    if since.elapsed() >= QUIET {
                        return alone;
                    }
                    Some((since, received))
                }
                _ => Some((Instant::now(), here.received)),
            };
        }
    }
}

/// While it lives, this replica wants to have the parts for itself.
struct Lonely<'l>(&'l watch::Sender<Option<Alone>>);

impl Drop for Lonely<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}
