//! The fences of all parts of a queue in one hand: while it has them, nobody else reads a part, whatever the replicas
//! believe of each other.

use super::*;
use crate::broker::{Access, QueueSpec, RawDelivery, Subscribe};
use crate::codes::{self, Code};
use crate::error::ErrorClass;
use futures::future::{BoxFuture, FutureExt, try_join_all};
use tokio::sync::mpsc;

/// What the broker had on its way when a fence was taken is here by then.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// Held until it is dropped.
pub(super) struct HeldParts {
    /// That of the queue itself, which its consumer here holds.
    own: HeldQueue,
    /// Who divides the queue: where it is competed for, several replicas would at once.
    _dividing: HeldQueue,
    parts: Vec<HeldQueue>,
}

/// One queue of which nobody else gets anything for as long as this is of one generation.
struct HeldQueue {
    queue: String,
    state: watch::Receiver<ConsumerState>,
    acker: Arc<dyn Acker>,
    generation: Option<u64>,
    /// What was delivered meanwhile; none of a queue that another consumer reads for us.
    deliveries: Option<mpsc::Receiver<RawDelivery>>,
}

impl HeldParts {
    /// Waits until nobody else has any of these parts. They must be empty then.
    pub(super) async fn take(layout: &Layout, parts: &BTreeSet<String>) -> Result<Self, WorkError> {
        let queue = layout.plan.queue();
        let Some((state, acker)) = layout.leader.get().cloned() else {
            return Err(lost(queue));
        };
        let own = HeldQueue {
            queue: queue.to_owned(),
            generation: acker.generation(),
            state,
            acker,
            deliveries: None,
        };
        let dividing = QueueSpec::Reply(format!("{queue}.dividing"));
        let dividing = HeldQueue::take(layout, dividing, 1).await?;
        let read = layout.plan.parts().len();
        let read = if read > 0 { read } else { parts.len() };
        let prefetch = window_of_part(read, layout.prefetch);
        let parts = parts.iter().map(|part| queue_of(queue, part));
        let parts = parts.map(|part| HeldQueue::take(layout, QueueSpec::Data(part), prefetch));
        let parts: Vec<BoxFuture<'_, _>> = parts.map(FutureExt::boxed).collect();
        let fences = Self {
            own,
            _dividing: dividing,
            parts: try_join_all(parts).await?,
        };
        tokio::time::sleep(ON_ITS_WAY).await;
        fences.check()?;
        Ok(fences)
    }

    /// Whether they are still held, and the parts empty.
    pub(super) fn check(&self) -> Result<(), WorkError> {
        for fence in self.parts.iter().chain([&self.own]) {
            if !fence.is_held() {
                return Err(lost(&fence.queue));
            }
            let deliveries = fence.deliveries.as_ref();
            if deliveries.is_some_and(|deliveries| !deliveries.is_empty()) {
                let text = format!("messages came into {} meanwhile", fence.queue);
                return Err(not_yet(text));
            }
        }
        Ok(())
    }
}

impl HeldQueue {
    async fn take(layout: &Layout, queue: QueueSpec, prefetch: u16) -> Result<Self, WorkError> {
        let name = queue.name().to_owned();
        let subscribe = Subscribe {
            queue,
            prefetch,
            access: Access::Fenced,
            tag: layout.tag.clone(),
        };
        let subscription = layout.broker.subscribe(subscribe).await;
        let mut fence = Self {
            queue: name,
            state: subscription.state,
            acker: subscription.acker,
            generation: None,
            deliveries: Some(subscription.deliveries),
        };
        loop {
            let state = fence.state.borrow_and_update().clone();
            match state {
                ConsumerState::Consuming => break,
                ConsumerState::Refused(code, text) => {
                    let code = Code::named(&code).unwrap_or(codes::BROKER_REFUSED);
                    return Err(WorkError::new(ErrorClass::Connect, code, text));
                }
                _ => {}
            }
            if fence.state.changed().await.is_err() {
                return Err(lost(&fence.queue));
            }
        }
        fence.generation = fence.acker.generation();
        Ok(fence)
    }

    fn is_held(&self) -> bool {
        let held = self.generation.is_some() && self.acker.generation() == self.generation;
        held && *self.state.borrow() == ConsumerState::Consuming
    }
}

fn lost(queue: &str) -> WorkError {
    let text = format!("the fence of {queue} was lost while journals moved");
    WorkError::new(ErrorClass::Connect, codes::BROKER_UNREACHABLE, text)
}

/// Something must end first.
pub(super) fn not_yet(text: String) -> WorkError {
    WorkError::new(ErrorClass::RemoteTemporary, codes::PARTITIONS_BUSY, text)
}
