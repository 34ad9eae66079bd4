//! Tests of the contract as a whole: generated CRDs, manifests good and bad, campaigns, names, and text of any kind.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

mod any_text;
mod bad_manifests;
mod campaign;
mod crds;
mod fuzz_smoke;
mod secrets;
mod table;
mod unknown_keys;

use std::path::{Path, PathBuf};

/// The examples of this source tree, as file name and text, one folder after the other.
fn examples() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut folders = vec![root];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                // Campaign tests are no manifests.
                true if path.ends_with("tests") => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "yaml") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    assert!(files.len() >= 12, "{files:?}");
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.display().to_string(), text)
        })
        .collect()
}
