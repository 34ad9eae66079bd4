//! The thread that writes: one transaction and one sync for every operation that gathered during the last one. After an
//! error everything is refused until the disk works again.

use super::disk::{Disk, Failure, Tx};
use super::timetable::Fronts;
use crate::error::WorkError;
use crate::state::StoreHealth;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Most operations of one transaction.
const GROUP: usize = 256;
/// Between attempts to open the folder again, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How often operations that come meanwhile are looked for.
const GLANCE: Duration = Duration::from_millis(10);

/// An operation that waits for the writer.
pub(super) trait Job: Send {
    /// Carries it out; fails if what it wrote must not be committed.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failure>;

    /// Answers who waits: it is committed, or failed.
    fn answer(self: Box<Self>, disk: &Disk, committed: Result<(), &str>);

    /// Whether it need not survive power loss.
    fn relaxed(&self) -> bool;
}

/// What an operation found, or why it failed.
type Found<T> = Result<T, Failure>;

/// An operation with a result.
pub(super) struct Operation<T, F> {
    pub(super) work: Option<F>,
    pub(super) found: Option<Found<T>>,
    pub(super) relaxed: bool,
    pub(super) reply: oneshot::Sender<Result<T, WorkError>>,
}

impl<T, F> Job for Operation<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Found<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let before = tx.writes();
        match work(tx) {
            Err(Failure::Disk(e)) => Err(Failure::Disk(e)),
            // Half an operation must not be committed with the others.
            Err(Failure::Damaged(what)) if tx.writes() > before => {
                self.found = Some(Err(Failure::Damaged(what)));
                Err(Failure::Damaged(what))
            }
            found => {
                self.found = Some(found);
                Ok(())
            }
        }
    }

    fn answer(self: Box<Self>, disk: &Disk, committed: Result<(), &str>) {
        let found = match (committed, self.found) {
            (Ok(()), Some(found)) => found,
            (Ok(()), None) => Err(Failure::Disk("the operation was not begun".into())),
            (Err(e), _) => Err(Failure::Disk(e.to_owned())),
        };
        let _ = self.reply.send(found.map_err(|e| disk.error(e)));
    }

    fn relaxed(&self) -> bool {
        self.relaxed
    }
}

/// What the writer thread holds.
pub(super) struct Writer {
    pub(super) disk: Arc<Disk>,
    /// As many as there are callers: each waits for its answer.
    pub(super) jobs: mpsc::Receiver<Box<dyn Job>>,
    pub(super) health: watch::Sender<StoreHealth>,
    pub(super) fronts: Fronts,
}

impl Writer {
    /// Writes until the store is closed and nothing waits.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.jobs.recv() {
            let mut group = vec![first];
            while group.len() < GROUP
                && let Ok(job) = self.jobs.try_recv()
            {
                group.push(job);
            }
            match guarded(|| self.commit(&mut group)) {
                Ok(()) => {
                    for job in group {
                        job.answer(&self.disk, Ok(()));
                    }
                }
                Err(error) => {
                    self.fronts.clear();
                    for job in group {
                        job.answer(&self.disk, Err(&error));
                    }
                    if !self.recover(error) {
                        break;
                    }
                }
            }
        }
        self.disk.close();
    }

    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), String> {
        let relaxed = group.iter().all(|job| job.relaxed());
        let mut jobs = group.iter_mut();
        let carry_out = |tx: &mut Tx<'_>| {
            for job in jobs.by_ref() {
                tx.tick();
                job.run(tx)?;
            }
            Ok(())
        };
        let committed = self.disk.commit(&mut self.fronts, carry_out, relaxed);
        committed.map_err(Failure::sentence)
    }

    /// Goes on once the disk works again; false if the store was closed before.
    fn recover(&mut self, mut error: String) -> bool {
        tracing::error!(
            error,
            "the state folder cannot be used; operations fail until it can"
        );
        let mut pause = FIRST_PAUSE;
        loop {
            self.health.send_replace(StoreHealth::Away(format!(
                "the state folder cannot be used: {error}"
            )));
            if !self.refuse(pause, &error) {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let works = guarded(|| {
                self.disk.reopen()?;
                self.disk.probe()
            });
            match works {
                Ok(()) => {
                    tracing::info!("the state folder can be used again");
                    self.health.send_replace(StoreHealth::Up);
                    return true;
                }
                Err(again) => error = again,
            }
        }
    }

    /// Refuses operations for a while; false if the store is closed.
    fn refuse(&mut self, pause: Duration, error: &str) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            match self.jobs.try_recv() {
                Ok(job) => job.answer(&self.disk, Err(error)),
                Err(TryRecvError::Empty) => std::thread::sleep(GLANCE),
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }
}

/// A panic is an error like others: the folder is opened anew.
fn guarded(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the store failed in a way it should not".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;
    use crate::state::embedded::disk::{Space, View};
    use fjall::PersistMode;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Operations that came together, carried out: their answers in order, and what was told of the store's health.
    fn written_together<T, F>(
        disk: &Arc<Disk>,
        operations: impl Iterator<Item = F>,
    ) -> (Vec<Result<T, WorkError>>, watch::Receiver<StoreHealth>)
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (sender, jobs) = mpsc::channel::<Box<dyn Job>>();
        let mut answers = Vec::new();
        for work in operations {
            let (reply, answer) = oneshot::channel();
            let operation = Operation {
                work: Some(work),
                found: None,
                relaxed: false,
                reply,
            };
            assert!(sender.send(Box::new(operation)).is_ok());
            answers.push(answer);
        }
        drop(sender);
        let (health, told) = watch::channel(StoreHealth::Up);
        let fronts = Fronts::default();
        Writer {
            disk: Arc::clone(disk),
            jobs,
            health,
            fronts,
        }
        .run();
        let answers = answers.into_iter();
        let answers = answers.map(|mut answer| answer.try_recv().expect("answered"));
        (answers.collect(), told)
    }

    /// Operations that came together are committed, and synced, together.
    #[test]
    fn two_hundred_operations_at_once_are_one_commit() {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Disk::open(folder.path().to_owned(), Some(PersistMode::SyncData));
        let disk = Arc::new(disk.expect("open"));
        let commits = Arc::new(AtomicUsize::new(0));
        let operations = (0..200u8).map(|n| {
            let commits = Arc::clone(&commits);
            move |tx: &mut Tx<'_>| {
                // The first of its transaction.
                if tx.writes() == 0 {
                    commits.fetch_add(1, Ordering::Relaxed);
                }
                tx.insert(Space::Index, [n], [n]);
                Ok(n)
            }
        });
        let (answers, _) = written_together(&disk, operations);
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(usize::from(answer.expect("carried out")), n);
        }
        assert_eq!(commits.load(Ordering::Relaxed), 1);
    }

    /// What cannot be read fails the operation that met it, wholly, and none of those that came together with it.
    #[test]
    fn damage_fails_one_operation_and_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let disk = Disk::open(folder.path().to_owned(), Some(PersistMode::Buffer));
        let disk = Arc::new(disk.expect("open"));
        let operations = (0..9u8).map(|n| {
            move |tx: &mut Tx<'_>| {
                tx.insert(Space::Index, [n], [n]);
                match n % 3 {
                    1 => Err(Failure::Damaged("a lane")),
                    _ => Ok(tx.range(Space::Index, &[0], &[9]).count()),
                }
            }
        });
        let (answers, mut told) = written_together(&disk, operations);
        let mut counted = Vec::new();
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(count) => counted.push(count),
                Err(error) => assert_eq!((n % 3, error.class), (1, ErrorClass::Bug)),
            }
        }
        assert_eq!(counted, [1, 2, 3, 4, 5, 6], "each saw those before it");
        let changed = told.changed().now_or_never();
        assert!(matches!(changed, Some(Err(_))), "it was never away");
        disk.reopen().expect("reopen");
        let kept = disk.read(|look| Ok(look.range(Space::Index, &[0], &[9]).count()));
        assert_eq!(kept.expect("read"), 6);
    }
}
