//! The fuzz target's check on a fixed corpus: every example manifest, cut and bent in ways that do not depend on chance.

use std::path::{Path, PathBuf};

#[path = "../../../fuzz/checks/manifest.rs"]
mod check;

fn manifests(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("tests") {
            // Campaign tests are no manifests.
        } else if path.is_dir() {
            manifests(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn the_corpus_passes_the_fuzz_check() {
    let mut found = Vec::new();
    manifests(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples"),
        &mut found,
    );
    assert!(found.len() >= 10, "only {} manifests found", found.len());
    std::thread::scope(|scope| {
        for half in 0..2 {
            let paths = found.iter().skip(half).step_by(2);
            scope.spawn(move || paths.for_each(|path| cut_and_bend(path)));
        }
    });
}

fn cut_and_bend(path: &Path) {
    let body = std::fs::read(path).unwrap();
    check::manifest(&body);
    for at in (0..body.len()).step_by(199) {
        check::manifest(&body[..at]);
        for text in [
            "\t",
            "{",
            ": ",
            "&a *a ",
            "\u{0}",
            "9999999999999999999999",
            "\n---\n",
        ] {
            let bent = [&body[..at], text.as_bytes(), &body[at..]].concat();
            check::manifest(&bent);
        }
    }
}
