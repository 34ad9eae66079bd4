//! The acknowledging side of one consumer of the embedded broker.

use super::core::Core;
use crate::broker::Acker;
use std::sync::Arc;

pub(super) struct Handle {
    pub(super) core: Arc<Core>,
    pub(super) id: u64,
}

impl Acker for Handle {
    fn generation(&self) -> Option<u64> {
        self.core.with(|state| state.generation(self.id))
    }

    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        self.core
            .with(|state| state.ack(self.id, generation, tag, multiple))
    }

    fn requeue(&self, generation: u64, tag: u64) -> bool {
        self.core
            .with(|state| state.requeue(self.id, generation, tag))
    }

    fn cancel(&self) {
        self.core.with(|state| state.set_cancelled(self.id, true));
    }

    fn resume(&self) {
        self.core.with(|state| state.set_cancelled(self.id, false));
    }

    fn release(&self) {
        self.core.with(|state| state.release_consumer(self.id));
    }

    fn close(&self) {
        self.core.with(|state| state.close_consumer(self.id));
    }

    fn rebuild(&self) {
        let stream = self.core.with(|state| state.rebuild(self.id));
        let (Some((sender, window)), Ok(runtime)) = (stream, tokio::runtime::Handle::try_current())
        else {
            return;
        };
        // Deliveries of the old generation still fill the stream: go on when the receiver has read them.
        let (core, id) = (Arc::clone(&self.core), self.id);
        runtime.spawn(async move {
            if sender.reserve_many(window).await.is_ok() {
                core.with(|state| state.pump_consumer(id));
            }
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
