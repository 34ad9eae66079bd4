//! A state store of which a test lets single operations fail.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use crate::state::StateStore;
use crate::state::around::Around;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct FailingStore {
    inner: Arc<dyn StateStore>,
    /// How often each operation fails yet.
    failures: Mutex<HashMap<&'static str, u32>>,
}

impl FailingStore {
    pub(crate) fn new(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            failures: Mutex::default(),
        })
    }

    /// The next `times` operations of this name, such as `sessions.create`, fail and are not carried out.
    pub(crate) fn fail(&self, operation: &'static str, times: u32) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.insert(operation, times);
    }
}

#[async_trait]
impl Around for FailingStore {
    fn inner(&self) -> &Arc<dyn StateStore> {
        &self.inner
    }

    async fn before(&self, operation: &'static str) -> Result<(), WorkError> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get_mut(operation) {
            Some(left @ 1..) => {
                *left -= 1;
                let text = "it fails in this test";
                Err(WorkError::new(
                    ErrorClass::Connect,
                    codes::STATE_UNREACHABLE,
                    text,
                ))
            }
            _ => Ok(()),
        }
    }
}
