//! Folders in which a process keeps what outlives it: made for nobody else, there after power loss, and the embedded
//! database's errors in plain words.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes the folder with mode 0700, unless it exists: it holds what people wrote. With `sync` it survives power loss.
pub(crate) fn create(folder: &Path, sync: bool) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| in_the_way(folder, error))?;
    if sync {
        sync_above(folder);
    }
    Ok(())
}

/// The error, with the file that stands where a folder is to be.
fn in_the_way(folder: &Path, error: io::Error) -> io::Error {
    let file = folder
        .ancestors()
        .find(|place| place.exists() && !place.is_dir());
    match file {
        Some(file) => io::Error::new(
            error.kind(),
            format!("{} is a file, not a folder", file.display()),
        ),
        None => error,
    }
}

/// A new folder survives power loss only when its parents were synced. Those we may not open are not ours to sync.
fn sync_above(folder: &Path) {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    for parent in absolute.ancestors().skip(1) {
        if let Ok(open) = std::fs::File::open(parent) {
            let _ = open.sync_all();
        }
    }
}

/// The database's errors in plain words: the system's own, where it was one.
pub(crate) fn plain(error: &fjall::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.to_string();
        }
        cause = error.source();
    }
    match error {
        fjall::Error::Poisoned => "an earlier write failed".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_way_is_named() {
        let around = tempfile::tempdir().expect("a folder");
        let file = around.path().join("state");
        std::fs::write(&file, "notes").expect("written");
        for folder in [file.clone(), file.join("store")] {
            let error = create(&folder, false).expect_err("it is a file");
            let expected = format!("{} is a file, not a folder", file.display());
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn the_database_says_what_the_system_said() {
        let full = || io::Error::from_raw_os_error(28);
        for error in [
            fjall::Error::Io(full()),
            fjall::Error::Storage(fjall::LsmError::Io(full())),
        ] {
            assert_eq!(plain(&error), full().to_string());
        }
        assert_eq!(plain(&fjall::Error::Poisoned), "an earlier write failed");
    }
}
