//! The threads that read. What is asked of them is in their hands at once: a caller that is not polled meanwhile, or goes
//! away, keeps no reader from others.

use super::disk::Disk;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// Reads at a time.
const READERS: usize = 4;

type Question = Box<dyn FnOnce(&Disk) + Send>;

/// They end when this is dropped.
pub(super) struct Readers(mpsc::Sender<Question>);

impl Readers {
    /// Starts them.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(disk: &Arc<Disk>) -> std::io::Result<Self> {
        let (questions, asked) = mpsc::channel::<Question>();
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..READERS {
            let (asked, disk) = (Arc::clone(&asked), Arc::clone(disk));
            let next = move || {
                let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                asked.recv().ok()
            };
            std::thread::Builder::new()
                .name("embedded-reader".into())
                .spawn(move || {
                    while let Some(question) = next() {
                        // Whoever asked sees that there is no answer.
                        let _ = catch_unwind(AssertUnwindSafe(|| question(&disk)));
                    }
                })?;
        }
        Ok(Self(questions))
    }

    /// What `look` finds, once a reader is free; none if it panics.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Disk) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let question = move |disk: &Disk| {
            if !reply.is_closed() {
                let _ = reply.send(look(disk));
            }
        };
        // They end with the sender only.
        let _ = self.0.send(Box::new(question));
        answer
    }
}
