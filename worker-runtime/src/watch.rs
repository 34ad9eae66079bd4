//! Watches manifests for changes: files and directories, editors that write in place and those that replace a file.
//! Many events of one save are one change.

use crate::error::CliError;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

/// Quiet for so long after an event, a save is taken for finished.
const QUIET: Duration = Duration::from_millis(150);
/// A stream of events that never gets quiet is a change after so long.
const LONGEST: Duration = Duration::from_secs(2);
/// A file that is empty or gone may be about to be written: it is looked at again after so long.
const DOUBT: Duration = Duration::from_millis(500);

/// A watch on a set of paths.
pub struct Watch {
    paths: Vec<PathBuf>,
    /// Files that had something in them when they were last looked at.
    full: BTreeSet<PathBuf>,
    events: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts watching. Standard input cannot be watched and is left out.
    pub fn start(paths: &[PathBuf]) -> Result<Self, CliError> {
        let events = Arc::new(Notify::new());
        let heard = Arc::clone(&events);
        let failed = |error: &notify::Error, path: &Path| {
            CliError::environment(format!("cannot watch {}: {error}", path.display()))
        };
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading the files is an event too, and would make them change for ever.
                if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                    heard.notify_one();
                }
            })
            .map_err(|error| failed(&error, Path::new(".")))?;
        let paths: Vec<PathBuf> = paths
            .iter()
            .filter(|path| path.as_os_str() != "-")
            .cloned()
            .collect();
        let mut folders = BTreeSet::new();
        for path in &paths {
            // A file is watched through its folder: editors put another file in its place.
            let folder = match path.is_dir() {
                true => path.clone(),
                false => match path.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                    _ => PathBuf::from("."),
                },
            };
            folders.insert(folder);
        }
        for folder in folders.iter().filter(|folder| folder.exists()) {
            watcher
                .watch(folder, RecursiveMode::NonRecursive)
                .map_err(|error| failed(&error, folder))?;
        }
        let full = full_files(&paths);
        Ok(Self {
            paths,
            full,
            events,
            _watcher: watcher,
        })
    }

    /// Resolves when something changed and has been quiet for a moment. Safe to drop and call again.
    pub async fn changed(&mut self) {
        self.events.notified().await;
        let deadline = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            if timeout_at(quiet, self.events.notified()).await.is_err() {
                break;
            }
        }
        let mut now = full_files(&self.paths);
        if !self.full.is_subset(&now) {
            // Half-way through a save there may be no file, or an empty one: what takes something away is believed
            // only when it is still so a moment later.
            sleep(DOUBT).await;
            now = full_files(&self.paths);
        }
        self.full = now;
    }
}

/// The files of `paths` that are not empty.
fn full_files(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path.clone()),
        }
    }
    files
        .into_iter()
        .filter(|file| {
            file.extension()
                .is_some_and(|ending| ending == "yaml" || ending == "yml")
                || paths.contains(file)
        })
        .filter(|file| {
            std::fs::metadata(file).is_ok_and(|about| about.is_file() && about.len() > 0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn changes(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.changed())
            .await
            .is_ok()
    }

    async fn stays_quiet(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_millis(700), watch.changed())
            .await
            .is_err()
    }

    #[tokio::test]
    async fn a_file_written_in_place_replaced_or_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::start(std::slice::from_ref(&file)).unwrap();
        fs::read_to_string(&file).unwrap();
        assert!(stays_quiet(&mut watch).await, "reading is no change");
        fs::write(&file, "two").unwrap();
        assert!(changes(&mut watch).await);
        let draft = folder.path().join(".a.yaml.swp");
        fs::write(&draft, "three").unwrap();
        fs::rename(&draft, &file).unwrap();
        assert!(changes(&mut watch).await);
        // The replaced file is still watched.
        fs::write(&file, "four").unwrap();
        assert!(changes(&mut watch).await);
        assert!(stays_quiet(&mut watch).await, "one save is one change");
    }

    #[tokio::test]
    async fn files_come_and_go_in_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "a").unwrap();
        let mut watch = Watch::start(&[folder.path().to_owned()]).unwrap();
        fs::write(folder.path().join("b.yaml"), "b").unwrap();
        assert!(changes(&mut watch).await);
        fs::rename(
            folder.path().join("b.yaml"),
            folder.path().join("b.yaml.off"),
        )
        .unwrap();
        assert!(changes(&mut watch).await);
    }

    #[tokio::test]
    async fn a_file_that_is_empty_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::start(&[folder.path().to_owned()]).unwrap();
        let writer = {
            let file = file.clone();
            tokio::spawn(async move {
                fs::write(&file, "").unwrap();
                sleep(QUIET + Duration::from_millis(100)).await;
                fs::write(&file, "two").unwrap();
            })
        };
        assert!(changes(&mut watch).await);
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        writer.await.unwrap();
    }
}
