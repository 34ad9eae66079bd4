//! Hands out what the messages of a transport share, a few at a time, in the order of a [`Line`].

use super::super::labels::Labels;
use super::line::Line;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use vumi_api::shared::Classes;

struct Inside {
    free: usize,
    line: Line<oneshot::Sender<Turn>>,
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
            // Nobody waits while a place is free.
            if inside.free > 0 {
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
        loop {
            let next = {
                let mut inside = gate.lock();
                let next = inside.line.pop();
                if next.is_none() {
                    inside.free += 1;
                }
                next
            };
            let Some(call) = next else { return };
            let turn = Turn {
                gate: Some(Arc::clone(&gate)),
            };
            match call.send(turn) {
                Ok(()) => return,
                // It has stopped waiting; this place is still ours to give.
                Err(mut unused) => unused.gate = None,
            }
        }
    }
}
