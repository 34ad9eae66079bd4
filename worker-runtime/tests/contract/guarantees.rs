//! The pages that promise something name the test that proves it; here: every test they name exists.

use crate::root;
use std::path::Path;

const PAGES: &[&str] = &["docs/guarantees.md", "docs/outages.md"];

/// The commands of a page: `cargo test -p PACKAGE … -- NAME`, as package and name.
fn commands(text: &str) -> Vec<(String, String)> {
    let spans = text.split('`').skip(1).step_by(2);
    let commands = spans.filter(|span| span.starts_with("cargo test -p "));
    commands
        .map(|command| {
            let words: Vec<&str> = command.split_whitespace().collect();
            let name = words.iter().rev().find(|word| !word.starts_with('-'));
            (words[3].to_owned(), (*name.unwrap()).to_owned())
        })
        .collect()
}

/// Rust sources below `folder`, without those of other packages inside it.
fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.join("Cargo.toml").exists() {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The folder of a package of the workspace.
fn package(name: &str) -> Option<std::path::PathBuf> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let quoted = manifest.split('"').skip(1).step_by(2);
    let folders = quoted.filter(|text| root().join(text).join("Cargo.toml").exists());
    folders.map(|folder| root().join(folder)).find(|folder| {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        text.contains(&format!("name = \"{name}\"\n"))
    })
}

#[test]
fn every_test_that_a_promise_names_exists() {
    let mut missing = Vec::new();
    for page in PAGES {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let commands = commands(&text);
        assert!(commands.len() > 5, "{page} names its tests");
        for (name, test) in commands {
            let mut code = String::new();
            match package(&name) {
                Some(folder) => sources(&folder, &mut code),
                None => missing.push(format!("{page}: no package {name}")),
            }
            let function = test.rsplit("::").next().unwrap();
            if !code.contains(&format!("fn {function}(")) {
                missing.push(format!("{page}: no test {test} in {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
