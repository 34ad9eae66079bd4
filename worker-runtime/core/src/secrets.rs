//! Secrets by name and key: from `kind: Secret` documents beside the manifests, or from files `DIR/<name>/<key>` that
//! may rotate while the worker runs (S14, K9). Values never reach a log line.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, RwLock};
use std::time::Duration;
use tokio::time::Instant;
use vumi_api::SecretValue;

/// A file that was read less than this ago is not read again.
const FRESH: Duration = Duration::from_secs(1);

/// Where secret values come from. Documents win over files.
#[derive(Default)]
pub struct Secrets {
    documents: RwLock<BTreeMap<String, BTreeMap<String, String>>>,
    folder: Option<PathBuf>,
    /// Values of files, with the time they were read: requests ask for the same one again and again.
    files: Mutex<HashMap<PathBuf, (Instant, String)>>,
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
            files: Mutex::default(),
        }
    }

    /// Replaces the documents after the manifests were read again.
    pub fn replace(&self, documents: BTreeMap<String, BTreeMap<String, String>>) {
        if let Ok(mut held) = self.documents.write() {
            *held = documents;
        }
    }

    /// The value of one key now: a rotated file takes effect within a second. A line end after a file's value is not
    /// part of it.
    pub fn get(&self, name: &str, key: &str) -> Option<String> {
        self.get_at(name, key, Instant::now())
    }

    fn get_at(&self, name: &str, key: &str, now: Instant) -> Option<String> {
        if let Ok(held) = self.documents.read()
            && let Some(value) = held.get(name).and_then(|secret| secret.get(key))
        {
            return Some(value.clone());
        }
        let path = self.folder.as_ref()?.join(name).join(key);
        let is_fresh = |read: &Instant| now.saturating_duration_since(*read) < FRESH;
        if let Ok(files) = self.files.lock()
            && let Some((read, value)) = files.get(&path)
            && is_fresh(read)
        {
            return Some(value.clone());
        }
        // What is missing is looked for every time: it may come any moment, and a worker waits for it.
        let value = std::fs::read_to_string(&path).ok()?;
        let value = value.trim_end_matches(['\r', '\n']).to_owned();
        if let Ok(mut files) = self.files.lock() {
            files.retain(|_, (read, _)| is_fresh(read));
            files.insert(path, (now, value.clone()));
        }
        Some(value)
    }

    /// The value behind a reference, or the plain value.
    ///
    /// # Errors
    /// There is none, or it is empty: a check of nothing would let everybody pass.
    pub fn resolve(&self, value: &SecretValue) -> Result<String, WorkError> {
        let held = self.held(value)?;
        if !held.trim().is_empty() {
            return Ok(held);
        }
        let text = match &value.secret_key_ref {
            Some(reference) => format!(
                "key {:?} of Secret {:?} is empty: write a value into it",
                reference.key, reference.name
            ),
            None => "a secret field has an empty value: write one, or leave the field out".into(),
        };
        Err(WorkError::new(
            ErrorClass::Config,
            codes::SECRET_EMPTY,
            text,
        ))
    }

    fn held(&self, value: &SecretValue) -> Result<String, WorkError> {
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
        self.required(&reference.name, &reference.key)
    }

    /// The value of one key now, which must be there.
    ///
    /// # Errors
    /// [`codes::SECRET_MISSING`], which says where it was looked for.
    pub fn required(&self, name: &str, key: &str) -> Result<String, WorkError> {
        self.get(name, key).ok_or_else(|| {
            let place = match &self.folder {
                Some(folder) => format!(
                    "no file {}; write its value there, or mount the Secret",
                    folder.join(name).join(key).display()
                ),
                None => "no `kind: Secret` beside the manifests has it, and no folder of Secrets is named (--secrets DIR)".into(),
            };
            let text = format!("Secret {name:?} has no key {key:?}: {place}");
            WorkError::new(ErrorClass::Config, codes::SECRET_MISSING, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_place_that_it_was_looked_for_in() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("api").join("password");
        let missing = |folder: Option<PathBuf>| {
            let secrets = Secrets::new(BTreeMap::new(), folder);
            let error = secrets.required("api", "password").unwrap_err();
            assert_eq!(error.code, codes::SECRET_MISSING);
            error.text
        };
        let text = missing(Some(folder.path().to_owned()));
        assert!(text.contains(&place.display().to_string()), "{text}");
        let text = missing(None);
        assert!(text.contains("--secrets DIR"), "{text}");
    }

    #[test]
    fn an_empty_value_is_no_secret() {
        let keys = [("empty", ""), ("blank", " \n"), ("full", "x")];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let documents = BTreeMap::from([("api".to_owned(), BTreeMap::from(keys))]);
        let secrets = Secrets::new(documents, None);
        let of = |key: &str| {
            secrets.resolve(&SecretValue {
                secret_key_ref: Some(vumi_api::shared::SecretKeyRef {
                    name: "api".into(),
                    key: key.into(),
                }),
                value: None,
            })
        };
        assert_eq!(of("full").expect("a value"), "x");
        for key in ["empty", "blank"] {
            let error = of(key).expect_err("no value");
            assert_eq!(error.code, codes::SECRET_EMPTY);
            assert!(error.text.contains(key), "{error}");
        }
        let plain = SecretValue {
            value: Some(String::new()),
            ..SecretValue::default()
        };
        let error = secrets.resolve(&plain).expect_err("no value");
        assert_eq!(error.code, codes::SECRET_EMPTY);
    }

    #[test]
    fn a_rotated_file_takes_effect_and_is_not_read_for_every_request() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api");
        std::fs::create_dir(&path).expect("made");
        let secrets = Secrets::new(BTreeMap::new(), Some(folder.path().to_owned()));
        let now = Instant::now();
        let get = |after: u64| {
            let at = now + Duration::from_millis(after);
            secrets.get_at("api", "password", at)
        };
        assert_eq!(get(0), None);
        std::fs::write(path.join("password"), "old\n").expect("written");
        assert_eq!(get(1).as_deref(), Some("old"), "what comes late is found");
        std::fs::write(path.join("password"), "new\r\n").expect("written");
        assert_eq!(get(1000).as_deref(), Some("old"));
        assert_eq!(get(1001).as_deref(), Some("new"));
        std::fs::remove_file(path.join("password")).expect("removed");
        assert_eq!(get(2001), None);
        let document = BTreeMap::from([("password".to_owned(), "written".to_owned())]);
        secrets.replace(BTreeMap::from([("api".to_owned(), document)]));
        assert_eq!(get(1500).as_deref(), Some("written"), "documents win");
    }
}
