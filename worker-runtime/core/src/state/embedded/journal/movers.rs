//! Who may move lanes. In memory: the folder has one owner, and what an earlier one began ended with it.

use crate::state::journal::Mover;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The token of each queue's mover.
#[derive(Default)]
pub(in crate::state::embedded) struct Movers(Mutex<HashMap<String, String>>);

impl Movers {
    pub(super) fn appoint(&self, mover: Mover) {
        let mut movers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        movers.insert(mover.queue, mover.token);
    }

    pub(super) fn dismiss(&self, queue: &str) {
        let mut movers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        movers.remove(queue);
    }

    pub(super) fn may(&self, mover: &Mover) -> bool {
        let movers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        movers.get(&mover.queue) == Some(&mover.token)
    }
}
