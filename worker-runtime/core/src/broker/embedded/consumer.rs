//! The acknowledging side of one consumer of the embedded broker.

use super::Inner;
use crate::broker::Acker;
use std::sync::Arc;

pub(super) struct Handle {
    pub(super) inner: Arc<Inner>,
    pub(super) id: u64,
}

impl Acker for Handle {
    fn ack(&self, generation: u64, tag: u64, multiple: bool) -> bool {
        self.inner.lock().ack(self.id, generation, tag, multiple)
    }

    fn requeue(&self, generation: u64, tag: u64) -> bool {
        self.inner.lock().requeue(self.id, generation, tag)
    }

    fn cancel(&self) {
        self.inner.lock().set_cancelled(self.id, true);
    }

    fn resume(&self) {
        self.inner.lock().set_cancelled(self.id, false);
    }

    fn close(&self) {
        self.inner.lock().close_consumer(self.id);
    }

    fn rebuild(&self) {
        self.inner.lock().rebuild(self.id);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.lock().close_consumer(self.id);
    }
}
