//! A store for tests in which time stands still while anything is done and jumps when nothing is.

use crate::clock;
use crate::error::WorkError;
use crate::state::StateStore;
use crate::state::around::Around;
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// Who hears of operations: each by its name, and with the code of its error or nothing.
type Listener = Box<dyn Fn(&'static str, &str) + Send + Sync>;

/// The store on the thread of the test: an operation takes no time, and nothing else is done meanwhile. The stopped wall
/// clock follows Tokio's paused one.
pub(crate) struct Prompt {
    inner: Arc<dyn StateStore>,
    heard: Listener,
    seen: Mutex<Instant>,
}

impl Prompt {
    pub(crate) fn new(
        inner: &Arc<dyn StateStore>,
        heard: impl Fn(&'static str, &str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            heard: Box::new(heard),
            seen: Mutex::new(Instant::now()),
        }
    }
}

#[async_trait]
impl Around for Prompt {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    async fn around<T: Send>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, WorkError>> + Send,
    ) -> Result<T, WorkError> {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            clock::advance(now - *seen);
            *seen = now;
        }
        let done = futures::executor::block_on(tokio::task::unconstrained(work));
        let end = done.as_ref().err().map_or("", |e| e.code.name);
        (self.heard)(operation, end);
        done
    }
}
