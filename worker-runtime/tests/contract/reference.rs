//! `docs/reference` is what `vumi docs` would write.

use crate::root;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn reference_pages_are_up_to_date() {
    let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
        .args(["docs", "--check"])
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_changed_or_left_over_page_is_noticed_and_cured() {
    let folder = tempfile::tempdir().unwrap();
    let docs = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
            .arg("docs")
            .arg("--out")
            .arg(folder.path())
            .arg("--man")
            .arg(folder.path().join("man"))
            .args(more)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(
        docs(&["--check"]).0,
        Some(2),
        "an empty folder is not up to date"
    );
    assert_eq!(docs(&[]).0, Some(0));
    assert_eq!(docs(&["--check"]).0, Some(0));
    let page = folder.path().join("transports/telnet.md");
    let text = std::fs::read_to_string(&page).unwrap();
    std::fs::write(&page, format!("{text}more")).unwrap();
    std::fs::write(folder.path().join("transports/gone.md"), &text).unwrap();
    std::fs::write(folder.path().join("notes.md"), "written by a person").unwrap();
    let (code, said) = docs(&["--check"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("telnet.md") && said.contains("gone.md"),
        "{said}"
    );
    assert!(!said.contains("notes.md"), "{said}");
    assert_eq!(docs(&[]).0, Some(0));
    assert_eq!(docs(&["--check"]).0, Some(0));
    assert!(folder.path().join("notes.md").exists());
}

/// Numbers of our own design rules, such as (R7), say nothing to a reader.
pub fn private_rule(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let mut rules = words.filter(|word| {
        let number = word.strip_prefix(['E', 'K', 'R', 'S']).unwrap_or_default();
        (1..3).contains(&number.len()) && number.chars().all(|c| c.is_ascii_digit())
    });
    rules.next()
}

#[test]
fn no_text_for_readers_names_a_private_rule() {
    assert_eq!(private_rule("the same id (R7)."), Some("R7"));
    assert_eq!(private_rule("RS232, S3x, K, R100 and 5K"), None);
    let mut all = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    pages(&root().join("docs"), &mut all);
    pages(&root().join("examples"), &mut all);
    for folder in ["deploy/crds", "worker-runtime/src/commands/new"] {
        let files = std::fs::read_dir(root().join(folder)).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        all.extend(files.filter(|path| path.extension().is_none_or(|e| e != "rs")));
    }
    assert!(all.len() > 20, "{all:?}");
    for page in all {
        let text = std::fs::read_to_string(&page).unwrap();
        assert_eq!(private_rule(&text), None, "{}", page.display());
    }
}

/// Markdown files below a folder.
fn pages(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => pages(&path, into),
            false if path.extension().is_some_and(|e| e == "md") => into.push(path),
            false => {}
        }
    }
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    let mut all = vec![root().join("README.md")];
    pages(&root().join("docs"), &mut all);
    pages(&root().join("examples"), &mut all);
    let mut dead = Vec::new();
    let mut tried = 0;
    for page in all {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            tried += 1;
            if !page.parent().unwrap().join(file).exists() {
                dead.push(format!("{} links to {link}", page.display()));
            }
        }
    }
    assert!(tried > 50, "only {tried} links found");
    assert!(dead.is_empty(), "{dead:#?}");
}
