//! Temporary folders of stores: a process that is killed cannot remove its own, so the next one does.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Once;
use std::time::Duration;
use tempfile::TempDir;

/// What their names begin with.
const PREFIX: &str = "vumi-state-";
/// The database's own lock file: as long as the database is open, this is locked.
const LOCK: &str = "lock";
/// A younger folder may be one whose process is about to lock it.
const SETTLED: Duration = Duration::from_secs(60);

/// A new temporary folder, gone when it is dropped, for this user alone.
pub(super) fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
}

/// Removes what killed processes left beside it, on a thread of its own, once in the life of a process.
pub(super) fn clear_soon() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let clear = || {
            let count = clear(&std::env::temp_dir());
            if count > 0 {
                tracing::debug!(count, "removed temporary stores of processes that are gone");
            }
        };
        let thread = std::thread::Builder::new().name("leftovers".into());
        // It costs disk space and nothing else.
        let _ = thread.spawn(clear);
    });
}

/// Removes those in `place` that nobody has open; how many. What cannot be read or removed, as another user's, stays.
pub(super) fn clear(place: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(place) else {
        return 0;
    };
    let ours = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with(PREFIX)
    });
    let left = ours.filter(|entry| is_left(&entry.path()));
    left.filter(|entry| std::fs::remove_dir_all(entry.path()).is_ok())
        .count()
}

fn is_left(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else {
        return false;
    };
    let changed = lock.metadata().and_then(|lock| lock.modified());
    let settled = changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > SETTLED));
    settled && lock.try_lock().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn folders_of_killed_processes_go_and_those_in_use_stay() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let folder = place.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let lock = File::create(folder.join(LOCK)).unwrap();
            lock.set_modified(SystemTime::now() - age).unwrap();
            lock
        };
        let old = SETTLED * 2;
        let in_use = make("vumi-state-used", old);
        in_use.lock().unwrap();
        drop(make("vumi-state-left", old));
        drop(make("vumi-state-new", Duration::ZERO));
        drop(make("other", old));
        std::fs::create_dir(place.path().join("vumi-state-unlocked")).unwrap();
        assert_eq!(clear(place.path()), 1);
        let there = |name: &str| place.path().join(name).exists();
        assert!(!there("vumi-state-left"));
        for name in [
            "vumi-state-used",
            "vumi-state-new",
            "vumi-state-unlocked",
            "other",
        ] {
            assert!(there(name), "{name}");
        }
        drop(in_use);
        assert_eq!(clear(place.path()), 1);
        assert!(!there("vumi-state-used"));
    }
}
