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
        .create(folder)?;
    if sync {
        sync_above(folder);
    }
    Ok(())
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

/// The database's errors in plain words.
pub(crate) fn plain(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(e) => e.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".into(),
        other => other.to_string(),
    }
}
