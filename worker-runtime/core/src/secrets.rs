//! Secrets by name and key: from `kind: Secret` documents beside the manifests, or from files `DIR/<name>/<key>` that
//! may rotate while the worker runs (S14, K9). Values never reach a log line.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::RwLock;
use vumi_api::SecretValue;

/// Where secret values come from. Documents win over files.
#[derive(Default)]
pub struct Secrets {
    documents: RwLock<BTreeMap<String, BTreeMap<String, String>>>,
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Secrets from documents, and from files under `folder` for those that no document holds.
    pub fn new(
        documents: BTreeMap<String, BTreeMap<String, String>>,
        folder: Option<PathBuf>,
    ) -> Self {
        Self {
            documents: RwLock::new(documents),
            folder,
        }
    }

    /// Replaces the documents after the manifests were read again.
    pub fn replace(&self, documents: BTreeMap<String, BTreeMap<String, String>>) {
        if let Ok(mut held) = self.documents.write() {
            *held = documents;
        }
    }

    /// The value of one key now; read anew at every call, so that rotated files take effect. A line end after a
    /// file's value is not part of it.
    pub fn get(&self, name: &str, key: &str) -> Option<String> {
        if let Ok(held) = self.documents.read()
            && let Some(value) = held.get(name).and_then(|secret| secret.get(key))
        {
            return Some(value.clone());
        }
        let path = self.folder.as_ref()?.join(name).join(key);
        let value = std::fs::read_to_string(path).ok()?;
        Some(value.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Whether any key of the Secret exists.
    pub fn exists(&self, name: &str) -> bool {
        self.documents
            .read()
            .is_ok_and(|held| held.contains_key(name))
            || self.folder.as_ref().is_some_and(|f| f.join(name).is_dir())
    }

    /// The value behind a reference, or the plain value.
    pub fn resolve(&self, value: &SecretValue) -> Result<String, WorkError> {
        if let Some(plain) = &value.value {
            return Ok(plain.clone());
        }
        let Some(reference) = &value.secret_key_ref else {
            return Err(WorkError::new(
                ErrorClass::Config,
                codes::CONFIG_INVALID,
                "a secret field needs secretKeyRef: {name, key}",
            ));
        };
        self.get(&reference.name, &reference.key).ok_or_else(|| {
            WorkError::new(
                ErrorClass::Config,
                codes::SECRET_MISSING,
                format!("Secret {:?} has no key {:?}", reference.name, reference.key),
            )
        })
    }
}
