//! What waits in the journals of the parts when the division changes.

use super::super::super::lanes::LaneChooser;
use super::held::{HeldParts, not_yet};
use super::*;
use crate::message::{Message, random_id};
use crate::state::Journal;
use crate::state::journal::{Entry, Lane as Place, Mover};
use std::collections::{BTreeMap, HashSet};

/// Lanes that are looked at together, and then move: their first messages are in memory, and one may have a megabyte.
const SOME: usize = 100;

impl Layout {
    /// From now on nobody else moves what waits in the journals.
    pub(super) async fn appointed(&self) -> Result<Mover, WorkError> {
        let mover = Mover {
            queue: self.plan.queue().to_owned(),
            token: random_id(),
        };
        if let Some(store) = &self.store {
            store.appoint(&mover).await?;
        }
        Ok(mover)
    }

    /// Whether anything waits in the journal of the queue itself.
    pub(super) async fn has_journal(&self) -> Result<bool, WorkError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let depth = Journal::depth(&**store, self.plan.queue()).await?;
        Ok(depth.messages > 0)
    }

    /// Parts that there are no more and whose journals hold messages: found without a note too, since a broker may be
    /// replaced while the store is kept. An error is never none.
    pub(super) async fn left_in_journals(&self) -> Result<BTreeSet<String>, WorkError> {
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

    /// Moves what waits in the journals of these parts, and of the queue itself, to where it belongs now, lane by lane and
    /// in order. Nobody reads the parts meanwhile, so nobody misses what came; whoever reads the queue itself begins anew
    /// if that has another journal then.
    ///
    /// # Errors
    /// Also while another replica has claimed something that is to move: what it does not finish moves later.
    pub(super) async fn move_journals(
        &self,
        parts: &BTreeSet<String>,
        fences: &HeldParts,
        mover: &Mover,
    ) -> Result<(), WorkError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let own = self.plan.queue();
        let mut moved = 0;
        for queue in parts.iter().map(|part| queue_of(own, part)) {
            if self.mode != OrderingMode::None {
                // Of a reader that ended without a word.
                store.reclaim(&queue).await?;
            }
            let leaving = self
                .move_journal(&**store, &queue, (fences, mover), &mut moved)
                .await?;
            if leaving.is_empty() {
                continue;
            }
            let mut stay = Journal::lanes(&**store, &queue).await?;
            stay.retain(|place| leaving.contains(place));
            if !stay.is_empty() {
                return Err(not_yet(format!(
                    "another replica still has {} of the lanes in hand that wait in the journal of {queue}",
                    stay.len()
                )));
            }
        }
        // What is claimed of this one is our own consumer's, who passes it on.
        self.move_journal(&**store, own, (fences, mover), &mut moved)
            .await?;
        if moved > 0 {
            tracing::info!(
                queue = self.plan.queue(),
                messages = moved,
                "what waited in the journals of its former parts moved along"
            );
        }
        Ok(())
    }

    /// Moves the lanes of one journal that belong elsewhere; which ones that were.
    async fn move_journal(
        &self,
        store: &dyn StateStore,
        queue: &str,
        (fences, mover): (&HeldParts, &Mover),
        moved: &mut u64,
    ) -> Result<HashSet<Place>, WorkError> {
        let own = self.plan.queue();
        let mut leaving = HashSet::new();
        for some in Journal::lanes(store, queue).await?.chunks(SOME) {
            let heads = store.heads(queue, some).await?;
            let mut lanes_of: BTreeMap<String, Vec<Place>> = BTreeMap::new();
            for (head, place) in heads.into_iter().zip(some) {
                let target = self.target(head);
                if target != queue {
                    lanes_of.entry(target).or_default().push(place.clone());
                }
            }
            for (target, lanes) in lanes_of {
                if self.mode != OrderingMode::None && (queue == own || target == own) {
                    self.stale.store(true, Ordering::SeqCst);
                }
                // Whoever is frozen from here on loses the fences, and then the appointment too: the next holder dismisses
                // it before it reads anything, or is appointed itself.
                fences.check()?;
                *moved += store.relocate(mover, queue, &target, &lanes).await?;
                leaving.extend(lanes);
            }
        }
        Ok(leaving)
    }

    /// The queue to which a lane of a journal belongs, by its first message.
    fn target(&self, head: Option<Entry>) -> String {
        let [first, ..] = self.plan.parts() else {
            return self.plan.queue().to_owned();
        };
        let message = head.and_then(|head| Message::decode(self.flow, &head.body).ok());
        match message {
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
        }
    }
}
