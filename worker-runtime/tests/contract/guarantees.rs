//! The pages that promise something name the test that proves it; here: every test they name exists.

use crate::root;
use std::path::Path;

const PAGES: &[&str] = &["docs/guarantees.md", "docs/outages.md"];

/// A command of a page: `cargo test -p PACKAGE --lib -- NAME`, or `--test TARGET` instead.
struct Command {
    package: String,
    /// Where its sources are, below the package's folder.
    folder: String,
    test: String,
}

fn commands(text: &str) -> Vec<Command> {
    let spans = text.split('`').skip(1).step_by(2);
    let commands = spans.filter(|span| span.starts_with("cargo test -p "));
    commands
        .map(|command| {
            let words: Vec<&str> = command.split_whitespace().collect();
            let ["cargo", "test", "-p", package, target @ .., "--", test] = &words[..] else {
                panic!("{command} does not run one test");
            };
            let folder = match target {
                ["--lib"] => "src".to_owned(),
                ["--test", name] => format!("tests/{name}"),
                _ => panic!("{command} does not say where its test is"),
            };
            Command {
                package: (*package).to_owned(),
                folder,
                test: (*test).to_owned(),
            }
        })
        .collect()
}

/// Whether these sources have a test of this name: a function with an attribute, or a case of a suite that a macro makes
/// tests of.
fn has_test(code: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let begins = code.match_indices(&function).map(|(at, _)| &code[..at]);
    let mut attributes = begins.filter_map(|before| before.rsplit("\n\n").next());
    let is_test = |lines: &str| lines.contains("#[test]") || lines.contains("#[tokio::test");
    attributes.any(is_test) || code.lines().any(|line| line.trim() == name)
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
        for Command {
            package: name,
            folder,
            test,
        } in commands
        {
            let Some(package) = package(&name) else {
                missing.push(format!("{page}: no package {name}"));
                continue;
            };
            let (mut code, folder) = (String::new(), package.join(folder));
            if folder.is_dir() {
                sources(&folder, &mut code);
            }
            let function = test.rsplit("::").next().unwrap();
            if !has_test(&code, function) {
                missing.push(format!("{page}: no test {test} in {}", folder.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
