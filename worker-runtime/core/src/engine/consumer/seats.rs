//! How much of a window each batch has: one that has a large share leaves the rest to others, and waits in the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Messages in one window, by the group of their labels.
#[derive(Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<String, usize>>,
}

/// One message in the window, until it is dropped.
pub(in crate::engine) struct Seat {
    seats: Arc<Seats>,
    group: String,
}

impl Seats {
    /// A place for one message of `group`; none if it has `most` already.
    pub(super) fn take(self: &Arc<Self>, group: &str, most: usize) -> Option<Seat> {
        let mut taken = self.lock();
        let count = taken.entry(group.to_owned()).or_default();
        (*count < most).then(|| {
            *count += 1;
            Seat {
                seats: Arc::clone(self),
                group: group.to_owned(),
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(count) = taken.get_mut(&self.group) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.group);
            }
        }
    }
}
