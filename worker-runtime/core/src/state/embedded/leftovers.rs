//! Temporary folders of stores: a process that is killed cannot remove its own, so a later one does.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use tempfile::TempDir;

/// What their names begin with.
const PREFIX: &str = "vumi-state-";
/// A file in each that its process keeps locked from the first moment to the last, whatever becomes of the database.
const OWNER: &str = "owner";
/// A younger folder may be one whose process is about to lock it.
const SETTLED: Duration = Duration::from_secs(60);

/// A temporary folder, gone when it is dropped.
pub(super) struct Temporary {
    folder: TempDir,
    /// Locked as long as the folder is there.
    _owner: File,
}

impl Temporary {
    /// A new one, for this user alone.
    pub(super) fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let owner = File::create_new(folder.path().join(OWNER))?;
        owner.lock()?;
        Ok(Self {
            folder,
            _owner: owner,
        })
    }

    /// Where the database goes.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Removes what killed processes of this user left beside it, on a thread of its own, once in the life of a process.
    pub(super) fn clear_others(&self) {
        static ONCE: Once = Once::new();
        let Ok(ours) = self.folder.path().metadata() else {
            return;
        };
        let place = self.folder.path().parent().map(Path::to_owned);
        ONCE.call_once(|| {
            let clear = move || {
                let count = place.map_or(0, |place| clear(&place, ours.uid()));
                if count > 0 {
                    tracing::debug!(count, "removed temporary stores of processes that are gone");
                }
            };
            let thread = std::thread::Builder::new().name("leftovers".into());
            // It costs disk space and nothing else.
            let _ = thread.spawn(clear);
        });
    }
}

/// Removes those of a user in `place` that have no owner any more; how many. What cannot be read or removed stays.
fn clear(place: &Path, user: u32) -> usize {
    let Ok(entries) = std::fs::read_dir(place) else {
        return 0;
    };
    let mut count = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Locked until it is removed, so that two do not remove it at a time.
        if let Some(_owner) = ownerless(&entry.path(), user) {
            count += usize::from(std::fs::remove_dir_all(entry.path()).is_ok());
        }
    }
    count
}

/// The lock of a folder that has no owner any more.
fn ownerless(folder: &Path, user: u32) -> Option<File> {
    // Of no link: whoever may write into the place may have made one.
    let is = |path: &Path, right: fn(&Metadata) -> bool| {
        let found = path.symlink_metadata().ok()?;
        (right(&found) && found.uid() == user).then_some(found)
    };
    is(folder, Metadata::is_dir)?;
    let path = folder.join(OWNER);
    let changed = is(&path, Metadata::is_file)?.modified().ok()?;
    let settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
    let owner = File::open(path).ok().filter(|_| settled)?;
    owner.try_lock().is_ok().then_some(owner)
}

#[cfg(test)]
mod tests {
    use super::super::{EmbeddedStore, EmbeddedStoreOptions};
    use super::*;
    use crate::state::StateStore;
    use std::time::SystemTime;

    fn user() -> u32 {
        tempfile::tempdir()
            .unwrap()
            .path()
            .metadata()
            .unwrap()
            .uid()
    }

    #[test]
    fn folders_of_killed_processes_go_and_those_in_use_stay() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let folder = place.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let owner = File::create(folder.join(OWNER)).unwrap();
            owner.set_modified(SystemTime::now() - age).unwrap();
            owner
        };
        let old = SETTLED * 2;
        let in_use = make("vumi-state-used", old);
        in_use.lock().unwrap();
        drop(make("vumi-state-left", old));
        drop(make("vumi-state-new", Duration::ZERO));
        drop(make("other", old));
        std::fs::create_dir(place.path().join("vumi-state-unowned")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join("vumi-state-link")).unwrap();
        assert_eq!(clear(place.path(), user() + 1), 0, "another user's");
        assert_eq!(clear(place.path(), user()), 1);
        let there = |name: &str| place.path().join(name).exists();
        assert!(!there("vumi-state-left"));
        for name in [
            "vumi-state-used",
            "vumi-state-new",
            "vumi-state-unowned",
            "vumi-state-link",
            "other",
        ] {
            assert!(there(name), "{name}");
        }
        drop(in_use);
        assert_eq!(clear(place.path(), user()), 1);
        assert!(!there("vumi-state-used"));
    }

    #[tokio::test]
    async fn a_store_that_lives_has_an_owner_even_while_its_database_is_closed() {
        let store = EmbeddedStore::open(EmbeddedStoreOptions::default()).unwrap();
        let folder = store.disk.folder.parent().unwrap().to_owned();
        let owner = File::open(folder.join(OWNER)).unwrap();
        owner.set_modified(SystemTime::now() - SETTLED * 2).unwrap();
        assert!(ownerless(&folder, user()).is_none());
        // As between an error and the next attempt to open it.
        store.disk.close();
        assert!(ownerless(&folder, user()).is_none());
        store.close(Duration::from_secs(10)).await;
        assert!(!folder.exists());
    }
}
