//! The database under the embedded store: its folder, its transactions and its snapshots. It is opened anew after an
//! error, since the database refuses everything after one.

use super::keys::{FORMAT, Key, tag};
use super::timetable::Fronts;
pub(super) use crate::clock::millis;
use crate::codes::{self, Code};
use crate::error::{ErrorClass, WorkError};
use crate::folder::{self, plain};
use fjall::config::{BlockSizePolicy, PinningPolicy};
use fjall::{
    Iter, KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase,
    SingleWriterTxKeyspace, SingleWriterWriteTx, Slice, Snapshot,
};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Memory for blocks read back.
const CACHE: u64 = 3 << 20;
/// Memory for writes before they become tables.
struct Memory {
    /// Of one keyspace.
    memtable: u64,
    /// Of all keyspaces, above which we wait for tables to be written. Fewer than four tables of one keyspace are waited
    /// for then: at four the database waits by itself, and for ever if its disk is full.
    all: u64,
}

/// Of a folder that is there for good.
const LASTING: Memory = Memory {
    memtable: 1 << 20,
    all: 3 << 20,
};
/// Of a folder that goes with its process, as while somebody tries things out: most of what is written is written again or
/// removed before it becomes a table.
const TEMPORARY: Memory = Memory {
    memtable: 4 << 20,
    all: 12 << 20,
};
/// Tables not yet merged above which we wait; at 20 the database waits by itself, as above.
const UNMERGED: usize = 16;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Disk space for its write-ahead log before it turns it into tables.
const LOG: u64 = 64 << 20;
/// How the names of its files end.
const LOG_FILE: &str = "jnl";
/// It is filled in pieces of this size.
const FILLER: usize = 1 << 20;
/// One thread writes tables and merges them. With more, the first puts merging off for the others by asking again and
/// again, at the cost of a core for as long as they merge (fjall 3.1).
const THREADS: usize = 1;
/// Size of a block: whole records are read back one by one, of indexes few keys.
const RECORD_BLOCK: u32 = 16 << 10;
const INDEX_BLOCK: u32 = 4 << 10;
/// Tables kept open.
const OPEN_FILES: usize = 100;

/// What went wrong in an operation.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database failed; it has to be opened anew.
    Disk(String),
    /// Something stored cannot be read.
    Damaged(&'static str),
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Self {
        Failure::Disk(plain(&error))
    }
}

/// Which part of the database.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space {
    /// What is large: entries of journals, rows, trails, answers, sessions.
    Records,
    /// What is small and changes often: indexes, counters, lanes.
    Index,
}

struct Open {
    database: SingleWriterTxDatabase,
    spaces: Spaces,
    memory: &'static Memory,
}

struct Spaces {
    records: SingleWriterTxKeyspace,
    index: SingleWriterTxKeyspace,
}

impl Spaces {
    fn of(&self, space: Space) -> &SingleWriterTxKeyspace {
        match space {
            Space::Records => &self.records,
            Space::Index => &self.index,
        }
    }
}

impl Open {
    fn new(folder: &Path, memory: &'static Memory) -> Result<Self, fjall::Error> {
        let database = SingleWriterTxDatabase::builder(folder)
            .cache_size(CACHE)
            .max_journaling_size(LOG)
            .worker_threads(THREADS)
            .max_cached_files(Some(OPEN_FILES))
            .open()?;
        // What is pinned would grow with what is stored; blocks come from the cache, which does not.
        let options = |block| {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memory.memtable)
                .data_block_size_policy(BlockSizePolicy::all(block))
                .index_block_pinning_policy(PinningPolicy::all(false))
                .filter_block_pinning_policy(PinningPolicy::all(false))
        };
        let spaces = Spaces {
            records: database.keyspace("records", || options(RECORD_BLOCK))?,
            index: database.keyspace("index", || options(INDEX_BLOCK))?,
        };
        if database.write_buffer_size() > memory.memtable {
            // What an earlier process left in its log: nobody else makes tables of it before we write, and we wait for
            // that.
            for space in [&spaces.records, &spaces.index] {
                space.inner().rotate_memtable()?;
            }
        }
        Ok(Self {
            database,
            spaces,
            memory,
        })
    }

    /// Waits while more is written than tables can be made of.
    fn throttle(&self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        let behind = || {
            self.database.write_buffer_size() > self.memory.all
                || [&self.spaces.records, &self.spaces.index]
                    .iter()
                    .any(|space| space.inner().l0_table_count() >= UNMERGED)
        };
        while behind() {
            if Instant::now() > until {
                return Err(Failure::Disk("the disk does not keep up".into()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn memory(mode: Option<PersistMode>) -> &'static Memory {
    match mode {
        Some(_) => &LASTING,
        None => &TEMPORARY,
    }
}

/// The database in its folder.
pub(super) struct Disk {
    pub(super) folder: PathBuf,
    /// How safe an operation is before it is answered; none: it need not survive the process.
    mode: Option<PersistMode>,
    open: RwLock<Option<Open>>,
}

impl Disk {
    /// Opens or makes the folder.
    pub(super) fn open(folder: PathBuf, mode: Option<PersistMode>) -> Result<Self, WorkError> {
        let place = folder.display();
        folder::create(&folder, mode == Some(PersistMode::SyncData))
            .map_err(|e| unusable(format!("cannot create the state folder {place}: {e}")))?;
        let open = match Open::new(&folder, memory(mode)) {
            Ok(open) => open,
            Err(fjall::Error::Locked) => {
                return Err(failure(
                    codes::STATE_IN_USE,
                    format!("the state folder {place} is in use by another process"),
                ));
            }
            Err(e) => {
                return Err(unusable(format!(
                    "cannot open the state folder {place}: {}",
                    plain(&e)
                )));
            }
        };
        let format = open.spaces.index.get([tag::FORMAT]);
        let foreign = open.database.keyspace_count() > 2;
        let disk = Self {
            folder,
            mode,
            open: RwLock::new(Some(open)),
        };
        disk.claim(format, foreign)?;
        Ok(disk)
    }

    /// Checks what the folder holds, and claims a new one.
    fn claim(&self, format: fjall::Result<Option<Slice>>, foreign: bool) -> Result<(), WorkError> {
        let place = self.folder.display();
        let format = format.map_err(|e| {
            unusable(format!(
                "cannot read the state folder {place}: {}",
                plain(&e)
            ))
        })?;
        match format.as_deref() {
            Some([FORMAT]) => Ok(()),
            None if foreign => Err(unusable(format!(
                "the folder {place} holds something else than a state store; name another folder"
            ))),
            None => self
                .probe()
                .map_err(|e| unusable(format!("cannot write to the state folder {place}: {e}"))),
            Some(_) => Err(unusable(format!(
                "the state folder {place} was written by another version of vumi; use that version or another folder"
            ))),
        }
    }

    fn opened(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the folder anew after an error.
    pub(super) fn reopen(&self) -> Result<(), String> {
        let mut opened = self.opened();
        *opened = None;
        let open = Open::new(&self.folder, memory(self.mode)).map_err(|e| plain(&e))?;
        let format = open.spaces.index.get([tag::FORMAT]);
        if format.map_err(|e| plain(&e))?.is_none() {
            return Err("what it held is gone; restart to begin with an empty one".into());
        }
        *opened = Some(open);
        Ok(())
    }

    /// Closes it; others may open it then.
    pub(super) fn close(&self) {
        *self.opened() = None;
    }

    /// Writes something harmless as safely as can be: whether the disk works.
    pub(super) fn probe(&self) -> Result<(), String> {
        self.with(|open| {
            let mut tx = open
                .database
                .write_tx()
                .durability(Some(PersistMode::SyncData));
            tx.insert(&open.spaces.index, [tag::FORMAT], [FORMAT]);
            Ok(tx.commit()?)
        })
        .map_err(|failure| failure.sentence())
    }

    fn with<T>(&self, use_it: impl FnOnce(&Open) -> Result<T, Failure>) -> Result<T, Failure> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open
            .as_ref()
            .ok_or_else(|| Failure::Disk("it is not open".into()))?;
        use_it(open)
    }

    /// Carries out some operations in one transaction, as safely as promised when it returns; `relaxed`: they need not
    /// survive power loss. What is damaged fails the operation that met it, and what that one wrote is undone: then
    /// `operations` is called again, to go on with the next one.
    pub(super) fn commit(
        &self,
        fronts: &mut Fronts,
        mut operations: impl FnMut(&mut Tx<'_>) -> Result<(), Failure>,
        relaxed: bool,
    ) -> Result<(), Failure> {
        let mode = match self.mode {
            Some(_) if relaxed => Some(PersistMode::Buffer),
            mode => mode,
        };
        self.with(|open| {
            open.throttle()?;
            let mut done: Vec<Written> = Vec::new();
            loop {
                let mut tx = Tx {
                    inner: open.database.write_tx().durability(mode),
                    spaces: &open.spaces,
                    fronts: &mut *fronts,
                    now: now(),
                    written: Vec::new(),
                    done: 0,
                };
                for (space, key, value) in std::mem::take(&mut done) {
                    tx.write(space, key, value);
                }
                match operations(&mut tx) {
                    Ok(()) => return Ok(tx.inner.commit()?),
                    // The database undoes whole transactions only: the operations before are written once more.
                    Err(Failure::Damaged(_)) => {
                        tx.fronts.clear();
                        done = tx.written;
                        done.truncate(tx.done);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        })
    }

    /// Reads what is committed.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&Look<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with(|open| {
            look(&Look {
                snapshot: open.database.read_tx(),
                spaces: &open.spaces,
                now: now(),
            })
        })
    }

    /// Replaces the log and writes all tables anew, so that the files do not hold any more what was removed; for as long
    /// as it takes to read and write everything.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        self.with(|open| {
            let spaces = [&open.spaces.records, &open.spaces.index];
            let logs = self.logs()?;
            let filler = vec![0; FILLER];
            let until = Instant::now() + PATIENCE;
            // The database begins a new log when one is full and cannot be told to: it is filled.
            while logs.iter().any(|log| log.exists()) {
                if Instant::now() > until {
                    return Err(Failure::Disk("its log is not replaced".into()));
                }
                open.throttle()?;
                for space in spaces {
                    space.insert([tag::FILLER], filler.as_slice())?;
                }
            }
            for space in spaces {
                space.remove([tag::FILLER])?;
                space.inner().rotate_memtable()?;
                space.inner().major_compact()?;
            }
            Ok(())
        })
    }

    /// Files of the write-ahead log.
    fn logs(&self) -> Result<Vec<PathBuf>, Failure> {
        let failed = |e: std::io::Error| Failure::Disk(e.to_string());
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == LOG_FILE) {
                logs.push(path);
            }
        }
        Ok(logs)
    }

    /// An error of an operation.
    pub(super) fn error(&self, failure: Failure) -> WorkError {
        let place = self.folder.display();
        match failure {
            Failure::Disk(e) => unusable(format!("the state folder {place} cannot be used: {e}")),
            Failure::Damaged(what) => WorkError::new(
                ErrorClass::Bug,
                codes::STATE_UNREADABLE,
                format!("the state folder {place} holds {what} that cannot be read"),
            ),
        }
    }
}

impl Failure {
    pub(super) fn sentence(self) -> String {
        match self {
            Failure::Disk(e) => e,
            Failure::Damaged(what) => format!("it holds {what} that cannot be read"),
        }
    }
}

/// The store's clock: milliseconds since 1970.
fn now() -> u64 {
    let since = crate::clock::now().duration_since(UNIX_EPOCH);
    since.map_or(0, millis)
}

fn failure(code: Code, text: String) -> WorkError {
    WorkError::new(ErrorClass::Connect, code, text)
}

fn unusable(text: String) -> WorkError {
    failure(codes::STATE_UNUSABLE, text)
}

/// What was read of a store; none if it is damaged, so that what stands beside it goes on. `of` says where it is, in the
/// log.
pub(super) fn readable<T>(of: &str, read: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Failure::Damaged(what)) => {
            let code = codes::STATE_UNREADABLE.name;
            tracing::warn!(
                code,
                of,
                "the state store holds {what} that cannot be read: it is left as it is"
            );
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// What can be read, in a transaction or a snapshot.
pub(super) trait View {
    /// The value of a key.
    fn get(&self, space: Space, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Failure>;

    /// Keys from one up to another, in order.
    fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Iter;

    /// The store's time: milliseconds since 1970.
    fn now(&self) -> u64;

    /// Keys that begin with another, in order.
    fn all(&self, space: Space, under: &Key) -> Iter {
        self.range(space, under.as_ref(), &under.end())
    }

    /// Keys that begin with another, in order, from one on.
    fn from(&self, space: Space, under: &Key, from: &[u8]) -> Iter {
        self.range(space, from, &under.end())
    }
}

/// What is committed.
pub(super) struct Look<'a> {
    snapshot: Snapshot,
    spaces: &'a Spaces,
    now: u64,
}

impl View for Look<'_> {
    fn get(&self, space: Space, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Failure> {
        Ok(self.snapshot.get(self.spaces.of(space), key)?)
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Iter {
        self.snapshot.range(self.spaces.of(space), from..to)
    }

    fn now(&self) -> u64 {
        self.now
    }
}

/// A transaction: sees what it wrote.
pub(super) struct Tx<'a> {
    inner: SingleWriterWriteTx<'a>,
    spaces: &'a Spaces,
    pub(super) fronts: &'a mut Fronts,
    now: u64,
    written: Vec<Written>,
    /// How many of them are of operations that have ended.
    done: usize,
}

/// A value that was stored under a key; none if that was removed.
type Written = (Space, Slice, Option<Slice>);

impl Tx<'_> {
    pub(super) fn insert(&mut self, space: Space, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (Slice::from(key.as_ref()), Slice::from(value.as_ref()));
        self.write(space, key, Some(value));
    }

    pub(super) fn remove(&mut self, space: Space, key: impl AsRef<[u8]>) {
        self.write(space, Slice::from(key.as_ref()), None);
    }

    fn write(&mut self, space: Space, key: Slice, value: Option<Slice>) {
        let keyspace = self.spaces.of(space);
        match &value {
            Some(value) => self.inner.insert(keyspace, key.clone(), value.clone()),
            None => self.inner.remove(keyspace, key.clone()),
        }
        self.written.push((space, key, value));
    }

    /// How much was written.
    pub(super) fn writes(&self) -> usize {
        self.written.len()
    }

    /// The next operation begins.
    pub(super) fn tick(&mut self) {
        self.now = now();
        self.done = self.written.len();
    }
}

impl View for Tx<'_> {
    fn get(&self, space: Space, key: impl AsRef<[u8]>) -> Result<Option<Slice>, Failure> {
        Ok(self.inner.get(self.spaces.of(space), key)?)
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Iter {
        self.inner.range(self.spaces.of(space), from..to)
    }

    fn now(&self) -> u64 {
        self.now
    }
}
