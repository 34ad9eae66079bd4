//! Reading files, directories and standard input as `kubectl apply -f` does.

use crate::error::CliError;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Texts of the manifests under `paths`, as `(name, text)` in the order of the arguments, sorted within a directory.
///
/// A path is a file, a directory, or `-` for standard input. Of a directory, the `.yaml` and `.yml` files directly in
/// it are read, as `kubectl apply -f` does; names that begin with a dot are left out. A file named twice is read once.
///
/// # Errors
/// Which of them cannot be read, and what to do.
pub fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>, CliError> {
    let mut texts = Vec::new();
    let mut seen = BTreeSet::new();
    for path in paths {
        if path.as_os_str() == "-" {
            if seen.insert(PathBuf::from("-")) {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| unreadable(Path::new("standard input"), &error))?;
                texts.push(("<stdin>".to_owned(), text));
            }
            continue;
        }
        let about = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let files = if about.is_dir() {
            files_of(path)?
        } else {
            vec![path.clone()]
        };
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            let whole = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            if seen.insert(whole) {
                texts.push((file.display().to_string(), text));
            }
        }
    }
    Ok(texts)
}

/// The manifest files directly in `folder`, sorted.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    let mut folders = Vec::new();
    for path in entries(folder)? {
        // Follows links: a mounted ConfigMap is a directory of links.
        let about = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if about.is_dir() {
            folders.push(path);
        } else if path
            .extension()
            .is_some_and(|ending| ending == "yaml" || ending == "yml")
        {
            files.push(path);
        }
    }
    if files.is_empty() {
        let place = folder.display();
        return Err(CliError::environment(match folders.first() {
            Some(below) => format!(
                "no .yaml or .yml file in {place}; folders below it are not read: name them, for example {}",
                below.display()
            ),
            None => format!(
                "no .yaml or .yml file in {place}; write a manifest there, or name another path"
            ),
        }));
    }
    Ok(files)
}

/// What is in a folder, sorted, without names that begin with a dot.
///
/// # Errors
/// It cannot be read.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// What is said of a file or folder that cannot be read.
pub fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::unreadable(path.display(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn texts(paths: &[&Path]) -> Result<Vec<(String, String)>, CliError> {
        read(&paths.iter().map(|p| p.to_path_buf()).collect::<Vec<_>>())
    }

    #[test]
    fn a_directory_is_read_sorted_and_not_below() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("more")).unwrap();
        for (name, text) in [
            ("b.yaml", "b"),
            ("a.yml", "a"),
            (".hidden.yaml", "h"),
            ("notes.txt", "n"),
            ("more/c.yaml", "c"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        let read: Vec<_> = texts(&[root]).unwrap().into_iter().map(|t| t.1).collect();
        assert_eq!(read, ["a", "b"]);
        // A file beside its own directory counts once; any ending is fine for a file that is named.
        let (notes, b) = (root.join("notes.txt"), root.join("b.yaml"));
        let named: [&Path; 3] = [&notes, root, &b];
        let read: Vec<_> = texts(&named).unwrap().into_iter().map(|t| t.1).collect();
        assert_eq!(read, ["n", "a", "b"]);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("transports")).unwrap();
        fs::write(root.join("bad.txt"), [0xff, 0xfe]).unwrap();
        for (path, expected) in [
            (root.join("absent"), "check the path"),
            (root.join("bad.txt"), "not UTF-8 text"),
            (root.to_owned(), "folders below it are not read: name them"),
            (root.join("transports"), "write a manifest there"),
        ] {
            let error = texts(&[&path]).unwrap_err();
            assert_eq!(error.code, CliError::ENVIRONMENT);
            assert!(error.text.contains(expected), "{error}");
            assert!(error.text.contains(&path.display().to_string()), "{error}");
        }
    }
}
