//! Messages taken off a queue of the embedded broker to look at (R18).

use super::core::Core;
use super::message::{QueueId, Stored};
use crate::broker::{RawDelivery, Shelf};
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use std::sync::Arc;

pub(super) struct EmbeddedShelf {
    pub(super) core: Arc<Core>,
    /// None if the queue does not exist: an empty shelf.
    pub(super) queue: Option<QueueId>,
    kept: Vec<Option<Stored>>,
    messages: Vec<RawDelivery>,
}

impl EmbeddedShelf {
    pub(super) fn new(core: Arc<Core>, taken: Option<(QueueId, Vec<Stored>)>) -> Self {
        let (queue, taken) = taken.map_or((None, Vec::new()), |(id, taken)| (Some(id), taken));
        Self {
            core,
            queue,
            messages: (1..)
                .zip(&taken)
                .map(|(tag, stored)| stored.delivery(tag, 0))
                .collect(),
            kept: taken.into_iter().map(Some).collect(),
        }
    }
}

fn closed() -> WorkError {
    WorkError::new(
        ErrorClass::Connect,
        codes::BROKER_UNREACHABLE,
        "the embedded broker was closed before the removal was safe; the message may come back",
    )
}

#[async_trait]
impl Shelf for EmbeddedShelf {
    fn messages(&self) -> &[RawDelivery] {
        &self.messages
    }

    async fn remove(&mut self, tag: u64) -> Result<(), WorkError> {
        let message = usize::try_from(tag)
            .ok()
            .and_then(|tag| self.kept.get_mut(tag.checked_sub(1)?)?.take());
        let (Some(message), Some(queue)) = (message, self.queue) else {
            return Err(WorkError::new(
                ErrorClass::Bug,
                codes::MESSAGE_INVALID,
                format!("there is no message {tag} on the shelf, or it was removed before"),
            ));
        };
        let written = self.core.with(|state| {
            if state.is_closed() {
                return Err(closed());
            }
            state.removed(queue, &message);
            Ok(state.flushed())
        })?;
        match written {
            None => Ok(()),
            Some(written) => written.await.map_err(|_| closed()),
        }
    }

    async fn close(self: Box<Self>) {}
}

impl Drop for EmbeddedShelf {
    fn drop(&mut self) {
        if let Some(queue) = self.queue {
            let kept = self.kept.drain(..).flatten().collect();
            self.core.with(|state| state.release(queue, kept));
        }
    }
}
