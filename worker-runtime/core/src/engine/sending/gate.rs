//! Hands out what the messages of a transport share, a few at a time, in the order of a [`Line`].

use super::super::labels::Labels;
use super::line::Line;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use vumi_api::shared::{Class, Classes};

struct Inside {
    places: usize,
    free: usize,
    line: Line<oneshot::Sender<Turn>>,
}

impl Inside {
    /// Whether a place is free for a message of this class. The less urgent ones leave some to the others: however long
    /// those inside take, an interactive message need not wait for one of them to end.
    fn has_room(&self, class: Option<Class>) -> bool {
        let kept = match class {
            None | Some(Class::Interactive) => 0,
            Some(Class::Transactional) => self.places / 8,
            Some(Class::Bulk) => self.places / 4,
        };
        self.free > kept
    }
}

/// So many may be inside at once.
pub(super) struct Gate {
    inside: Mutex<Inside>,
}

/// The right to be inside, until it is dropped.
pub(super) struct Turn {
    /// None once it is another's.
    gate: Option<Arc<Gate>>,
}

impl Gate {
    pub(super) fn new(places: usize, classes: Option<&Classes>) -> Self {
        let inside = Inside {
            places,
            free: places,
            line: Line::new(classes),
        };
        Self {
            inside: Mutex::new(inside),
        }
    }

    /// Waits for a turn. Whoever stops waiting leaves the line.
    pub(super) async fn turn(self: &Arc<Self>, labels: &Labels) -> Turn {
        let turn = || Turn {
            gate: Some(Arc::clone(self)),
        };
        let called = {
            let mut inside = self.lock();
            // Nobody waits while there is a place for it.
            if inside.has_room(inside.line.class_of(labels)) {
                inside.free -= 1;
                return turn();
            }
            let (call, called) = oneshot::channel();
            inside.line.push(labels, call);
            called
        };
        // A caller that is gone would have left its place to us.
        called.await.unwrap_or_else(|_| turn())
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        let mut inside = gate.lock();
        inside.free += 1;
        loop {
            let free = |class| inside.has_room(class);
            // The line cannot be looked at and changed at once.
            let may = [
                None,
                Some(Class::Interactive),
                Some(Class::Transactional),
                Some(Class::Bulk),
            ];
            let may: Vec<_> = may.into_iter().filter(|class| free(*class)).collect();
            let Some(call) = inside.line.pop(|class| may.contains(&class)) else {
                return;
            };
            let turn = Turn {
                gate: Some(Arc::clone(&gate)),
            };
            match call.send(turn) {
                Ok(()) => inside.free -= 1,
                // It has stopped waiting; this place is still ours to give.
                Err(mut unused) => unused.gate = None,
            }
        }
    }
}
