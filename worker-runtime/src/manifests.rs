//! Reading manifests from files, directories and standard input, and secrets from a directory: the same for every
//! command.

use crate::error::CliError;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use vumi_api::manifest::{
    Manifests, Texts, broker_findings, campaign_findings, load, state_findings,
};
use vumi_api::{Severity, Target};

/// A campaign as it is written.
pub struct Campaign {
    /// Its manifests with every finding, and all Secrets at hand.
    pub manifests: Manifests,
    /// Secret documents among them, without files.
    pub documents: Texts,
}

/// How bad it is that the Secret of a broker or state store is missing; no finding without it, where the command line
/// names another for all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Services {
    /// Of brokers.
    pub brokers: Option<Severity>,
    /// Of state stores.
    pub stores: Option<Severity>,
}

/// Reads the manifests under `paths`, and the Secrets in the folder `secrets`; documents win over files, as at run time.
pub fn campaign(
    paths: &[PathBuf],
    target: Target,
    secrets: Option<&Path>,
    services: Services,
) -> Result<Campaign, CliError> {
    let mut manifests = load(&read(paths)?, target);
    let documents = manifests.secrets.clone();
    if let Some(folder) = secrets {
        for (name, keys) in self::secrets(folder)? {
            let held = manifests.secrets.entry(name).or_default();
            for (key, value) in keys {
                held.entry(key).or_insert(value);
            }
        }
    }
    manifests.one_broker = services.brokers.is_none();
    let mut of_campaign = campaign_findings(&manifests);
    if let Some(severity) = services.brokers {
        of_campaign.extend(broker_findings(&manifests, severity));
    }
    if let Some(severity) = services.stores {
        of_campaign.extend(state_findings(&manifests, severity));
    }
    manifests.findings.extend(of_campaign);
    Ok(Campaign {
        manifests,
        documents,
    })
}

/// Texts of the manifests under `paths`, as `(name, text)` in the order of the arguments, sorted within a directory.
///
/// A path is a file, a directory, or `-` for standard input. Of a directory, the `.yaml` and `.yml` files directly in
/// it are read, as `kubectl apply -f` does; names that begin with a dot are left out. A file named twice is read once.
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
fn entries(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
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

/// Secrets of `--secrets DIR`: one folder per Secret, one file per key. A line end after a value is not part of it.
fn secrets(folder: &Path) -> Result<Texts, CliError> {
    let mut secrets = Texts::new();
    for secret in entries(folder)? {
        if !secret.is_dir() {
            continue;
        }
        let keys = secrets.entry(name_of(&secret)).or_default();
        for key in entries(&secret)? {
            if key.is_file() {
                // Bytes that are not text are no value that a worker could use; the key is then missing.
                let bytes = std::fs::read(&key).map_err(|error| unreadable(&key, &error))?;
                if let Ok(value) = String::from_utf8(bytes) {
                    keys.insert(
                        name_of(&key),
                        value.trim_end_matches(['\r', '\n']).to_owned(),
                    );
                }
            }
        }
    }
    Ok(secrets)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
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

    #[test]
    fn secrets_are_files_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("smsc")).unwrap();
        fs::write(root.join("smsc/password"), "hunter2\n").unwrap();
        fs::write(root.join("smsc/bytes"), [0xff]).unwrap();
        fs::write(root.join("README"), "x").unwrap();
        let secrets = secrets(root).unwrap();
        assert_eq!(secrets.len(), 1);
        assert_eq!(secrets["smsc"].get("password").unwrap(), "hunter2");
        assert_eq!(secrets["smsc"].len(), 1);
        assert!(super::secrets(&root.join("absent")).is_err());
    }

    #[test]
    fn a_secret_document_wins_over_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let document = root.join("secret.yaml");
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: smsc}\nstringData: {password: written}\n";
        fs::write(&document, text).unwrap();
        fs::create_dir_all(root.join("secrets/smsc")).unwrap();
        fs::write(root.join("secrets/smsc/password"), "of the file").unwrap();
        fs::write(root.join("secrets/smsc/user"), "me").unwrap();
        let secrets = root.join("secrets");
        let read = campaign(
            &[document],
            Target::Local,
            Some(&secrets),
            Services::default(),
        )
        .unwrap();
        let keys = &read.manifests.secrets["smsc"];
        assert_eq!((&*keys["password"], &*keys["user"]), ("written", "me"));
        assert_eq!(read.documents["smsc"].len(), 1, "documents alone");
    }
}
