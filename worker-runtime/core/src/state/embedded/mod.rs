//! The state store in a folder of this process, in an embedded database (fjall). Every operation is one transaction of
//! the writer thread, which commits (and syncs) together what gathered; readers use snapshots on other threads. An
//! operation that was handed over is carried out whether or not its caller goes on, so that no caller holds up others.

mod batches;
#[cfg(test)]
mod damage_test;
mod disk;
mod erase;
mod first_seen;
mod journal;
mod keys;
mod ledger;
mod leftovers;
mod rate_limits;
mod readers;
mod sessions;
mod signs;
mod suspects;
mod sweep;
mod timetable;
mod writer;

use super::{Person, StateStore, StoreHealth};
use crate::broker::Durability;
use crate::codes;
use crate::error::{ErrorClass, WorkError};
use async_trait::async_trait;
use disk::{Disk, Failure, Look, Tx};
use fjall::PersistMode;
use leftovers::Temporary;
use readers::Readers;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use timetable::Fronts;
use tokio::sync::{oneshot, watch};
use writer::{Job, Operation, Writer};

/// Where an embedded store keeps things, and how safely.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedStoreOptions {
    /// Its folder; none for a private temporary one that goes with the store.
    pub folder: Option<PathBuf>,
    /// Sync to disk before an operation is answered, so that it survives power loss (R16).
    pub sync: bool,
}

/// The state store in a folder. One process has it at a time (R20).
pub struct EmbeddedStore {
    disk: Arc<Disk>,
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    readers: Readers,
    signs: signs::Signs,
    movers: Arc<journal::Movers>,
    health: watch::Receiver<StoreHealth>,
    finished: watch::Receiver<()>,
    durability: Durability,
    name: String,
}

impl EmbeddedStore {
    /// Opens or makes the folder; blocks meanwhile.
    ///
    /// # Errors
    /// `state.in_use` if another process has the folder, `state.unusable` if it cannot be read or written, or was
    /// written by another version.
    pub fn open(options: EmbeddedStoreOptions) -> Result<Arc<Self>, WorkError> {
        let cannot = |what: &str, e: std::io::Error| {
            WorkError::new(
                ErrorClass::Connect,
                codes::STATE_UNUSABLE,
                format!("cannot {what}: {e}"),
            )
        };
        let (folder, temporary) = match options.folder {
            Some(folder) => (folder, None),
            None => {
                let place = std::env::temp_dir();
                let what = format!(
                    "make a temporary folder for the state store in {} (TMPDIR names another place)",
                    place.display()
                );
                let temporary = Temporary::new().map_err(|e| cannot(&what, e))?;
                temporary.clear_others();
                (temporary.store(), Some(temporary))
            }
        };
        let (durability, mode) = match (&temporary, options.sync) {
            (Some(_), _) => (Durability::Memory, None),
            (None, false) => (Durability::Process, Some(PersistMode::Buffer)),
            (None, true) => (Durability::Host, Some(PersistMode::SyncData)),
        };
        let name = match &temporary {
            Some(_) => "embedded".to_owned(),
            None => format!("embedded {}", folder.display()),
        };
        let disk = Arc::new(Disk::open(folder, mode)?);
        let readers = Readers::start(&disk)
            .map_err(|e| cannot("start the threads that read the state store", e))?;
        let (jobs, waiting) = mpsc::channel();
        let (health, told) = watch::channel(StoreHealth::Up);
        let (alive, finished) = watch::channel(());
        let writer = Writer {
            disk: Arc::clone(&disk),
            jobs: waiting,
            health,
            fronts: Fronts::default(),
        };
        std::thread::Builder::new()
            .name("embedded-store".into())
            .spawn(move || {
                writer.run();
                drop(temporary);
                drop(alive);
            })
            .map_err(|e| cannot("start the thread that writes the state store", e))?;
        Ok(Arc::new(Self {
            disk,
            jobs: Mutex::new(Some(jobs)),
            readers,
            signs: signs::Signs::default(),
            movers: Arc::default(),
            health: told,
            finished,
            durability,
            name,
        }))
    }

    /// Carries out an operation in a transaction; on return it is as safe as promised.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, WorkError> {
        self.submit(work, false).await
    }

    /// The same for what need not survive power loss.
    async fn write_relaxed<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, WorkError> {
        self.submit(work, true).await
    }

    async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Failure> + Send + 'static,
        relaxed: bool,
    ) -> Result<T, WorkError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs().clone().ok_or_else(|| self.closed())?;
        let operation = Operation {
            work: Some(work),
            found: None,
            relaxed,
            reply,
        };
        jobs.send(Box::new(operation)).map_err(|_| self.closed())?;
        drop(jobs);
        answer.await.map_err(|_| self.closed())?
    }

    /// Looks at what is committed, on a thread for it.
    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Look<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, WorkError> {
        self.beside(move |disk| disk.read(look)).await
    }

    /// Does something that takes time, on a thread beside the one that writes.
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, WorkError> {
        if self.jobs().is_none() {
            return Err(self.closed());
        }
        let answer = self
            .readers
            .ask(move |disk| work(disk).map_err(|e| disk.error(e)));
        answer
            .await
            .map_err(|_| self.disk.error(Failure::Disk("reading it failed".into())))?
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Box<dyn Job>>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> WorkError {
        WorkError::new(
            ErrorClass::Connect,
            codes::STATE_UNUSABLE,
            format!("the state store ({}) is closed", self.name),
        )
    }
}

#[async_trait]
impl StateStore for EmbeddedStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn has_own_clock(&self) -> bool {
        false
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.health.clone()
    }

    async fn erase(&self, person: &Person) -> Result<Vec<super::Erased>, WorkError> {
        erase::erase(self, person).await
    }

    async fn sweep(&self) -> Result<u64, WorkError> {
        sweep::sweep(self).await
    }

    async fn close(&self, deadline: Duration) {
        drop(self.jobs().take());
        let mut finished = self.finished.clone();
        // The other end goes when the database is closed.
        let gone = async { while finished.changed().await.is_ok() {} };
        let _ = tokio::time::timeout(deadline, gone).await;
    }
}
