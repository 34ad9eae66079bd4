//! What waits in the journals of the parts when the division changes.

use super::super::super::lanes::LaneChooser;
use super::*;
use crate::message::Message;
use crate::state::Journal;
use crate::state::journal::{Filter, Lane as Place};
use std::collections::BTreeMap;

impl Layout {
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
    pub(super) async fn move_journals(&self, parts: &BTreeSet<String>) -> Result<(), WorkError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let own = self.plan.queue();
        let mut moved = 0;
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
                if self.mode != OrderingMode::None && (queue == own || target == own) {
                    self.stale.store(true, Ordering::SeqCst);
                }
                moved += store.relocate(&queue, &target, &lanes).await?;
            }
        }
        if moved > 0 {
            tracing::info!(
                queue = self.plan.queue(),
                messages = moved,
                "what waited in the journals of its former parts moved along"
            );
        }
        Ok(())
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
}
