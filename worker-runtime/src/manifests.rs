//! Reading a campaign: its manifests, and secrets from a directory: the same for every command.

use crate::error::CliError;
use std::path::{Path, PathBuf};
use vumi_api::manifest::{
    Manifests, Texts, broker_findings, campaign_findings, load, state_findings,
};
use vumi_api::{Severity, Target};
pub use vumi_cli::files::read;
use vumi_cli::files::{entries, unreadable};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
