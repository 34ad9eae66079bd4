//! `vumi new` in a copy of this source tree: what it writes is formatted, compiles without a warning, joins both tables,
//! passes all tests of its families, and gets its schema, page and explanation.

use crate::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy and what is built from it stay in the target folder, so that only what changed is built again.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold")
}

/// Files of a source tree: everything but build output and hidden folders.
fn files(root: &Path, below: &Path, into: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "target" || name.to_string_lossy().starts_with(".git") {
            continue;
        }
        let path = below.join(&name);
        match entry.file_type().unwrap().is_dir() {
            true => files(root, &path, into),
            false => {
                into.insert(path);
            }
        }
    }
}

/// Makes `copy` equal to `source`, touching only what differs.
fn mirror(source: &Path, copy: &Path) {
    let (mut wanted, mut held) = (BTreeSet::new(), BTreeSet::new());
    std::fs::create_dir_all(copy).unwrap();
    files(source, Path::new(""), &mut wanted);
    files(copy, Path::new(""), &mut held);
    for path in held.difference(&wanted) {
        std::fs::remove_file(copy.join(path)).unwrap();
    }
    for path in wanted {
        let text = std::fs::read(source.join(&path)).unwrap();
        let to = copy.join(&path);
        if std::fs::read(&to).is_ok_and(|held| held == text) {
            continue;
        }
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, text).unwrap();
    }
}

/// Runs a command; its output if it succeeds.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{command:?}\n{out}\n{err}");
    out
}

fn cargo(copy: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    // What `cargo test` tells this process of its package would be news to build scripts that ask for the same of theirs, as
    // ring's does: they and all that needs them would be built again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .current_dir(copy)
        // Results go to a folder of their own, or they would replace the binaries of the tests that are running;
        // compiled dependencies are shared (by Cargo 1.91 and later; an older one builds them again).
        .env("CARGO_TARGET_DIR", folder().join("target"))
        .env(
            "CARGO_BUILD_BUILD_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap(),
        )
        .env("CARGO_TERM_COLOR", "never");
    command
}

/// What is built: the packages whose tests run, and one that asks for those features of dependencies that the rest of the
/// workspace asks for, so that all these have been compiled before.
const BUILT: [&str; 6] = [
    "vumi",
    "vumi-api",
    "vumi-applications",
    "vumi-transports-http",
    "vumi-transports-chat",
    "kubectl-vumi",
];

/// Arguments that give every package of the workspace a profile of its own. To Cargo a package of the copy is the same
/// as the one it was copied from, and in a shared folder each would overwrite the other; another profile is another package. It is one
/// that is soon built: little runs here.
fn apart(copy: &Path) -> Vec<String> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let metadata: Value = serde_json::from_str(&run(&mut cargo(copy, &arguments))).unwrap();
    let names = metadata["packages"].as_array().unwrap().iter();
    names
        .map(|package| package["name"].as_str().unwrap())
        .flat_map(|name| {
            ["debug=false", "opt-level=0"]
                .map(|set| format!("--config=profile.dev.package.{name}.{set}"))
        })
        .collect()
}

/// Executables of a build, by package and kind of target.
fn executables(messages: &str) -> Vec<(String, String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let path = PathBuf::from(message["executable"].as_str()?);
            let name = message["target"]["name"].as_str()?.replace('_', "-");
            let kind = message["target"]["kind"][0].as_str()?.to_owned();
            Some((name, kind, path))
        })
        .collect()
}

#[test]
fn what_new_writes_compiles_and_passes() {
    let copy = folder().join("tree");
    mirror(&root(), &copy);
    for (arguments, files) in [
        (vec!["transport", "acmeSms", "--family", "http"], 10),
        (vec!["transport", "acmeChat", "--family", "chat"], 8),
        (vec!["application", "acmeQuiz"], 8),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vumi"));
        let said = run(command.arg("new").args(&arguments).arg("--dir").arg(&copy));
        assert_eq!(said.matches("wrote ").count(), files, "{said}");
    }
    run(&mut cargo(&copy, &["fmt", "--all", "--check"]));

    let build = "test --locked --all-features --lib --test contract --no-run --message-format=json";
    let build: Vec<&str> = build.split(' ').collect();
    let packages = BUILT.map(|package| format!("--package={package}"));
    let messages = run(cargo(&copy, &build).args(packages).args(apart(&copy)));
    let ours = |line: &&str| line.contains("\"compiler-message\"") && line.contains("acme");
    let warnings: Vec<&str> = messages.lines().filter(ours).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    let built = executables(&messages);
    let find = |name: &str, kind: &str| {
        let found = built.iter().find(|(n, k, _)| n == name && k == kind);
        let (_, _, path) = found.unwrap_or_else(|| panic!("no {kind} {name} in {built:?}"));
        path
    };

    // As docs/add-a-transport.md says: schema and pages with the new binary, then the tests.
    let vumi = find("vumi", "bin");
    run(Command::new(vumi)
        .args(["crds", "--out", "deploy/crds"])
        .current_dir(&copy));
    run(Command::new(vumi).arg("docs").current_dir(&copy));
    for (kind, name) in [
        ("transports", "acmeSms"),
        ("transports", "acmeChat"),
        ("applications", "acmeQuiz"),
    ] {
        let page = copy.join(format!("docs/reference/{kind}/{name}.md"));
        assert!(page.is_file(), "{} is missing", page.display());
        let said = run(Command::new(vumi)
            .args(["explain", name])
            .current_dir(&copy));
        assert!(said.contains("What it is: "), "{said}");
        for target in ["local", "cluster"] {
            let path = format!("examples/{kind}/{name}");
            let minimal = format!("{path}/minimal.yaml");
            let mut lint = Command::new(vumi);
            let said = run(lint
                .args(["lint", &minimal, "--for", target])
                .current_dir(&copy));
            assert!(said.contains("no errors"), "{said}");
        }
        let tests = format!("examples/{kind}/{name}");
        run(Command::new(vumi).args(["test", &tests]).current_dir(&copy));
    }
    // Every test of the families, among them the one of all examples and conformance of what is new; of the binary, that
    // both tables agree; of the contract, that schema and pages are up to date.
    for (package, kind, place, filter) in [
        (
            "vumi-applications",
            "lib",
            "worker-runtime/applications",
            "",
        ),
        (
            "vumi-transports-http",
            "lib",
            "worker-runtime/transports/http",
            "",
        ),
        (
            "vumi-transports-chat",
            "lib",
            "worker-runtime/transports/chat",
            "",
        ),
        ("vumi-api", "lib", "api", ""),
        ("vumi", "lib", "worker-runtime", "schema_and_tables"),
        ("contract", "test", "worker-runtime", "reference_pages"),
    ] {
        let said = run(Command::new(find(package, kind))
            .arg(filter)
            .env("VUMI_CONFORMANCE", "acme")
            .current_dir(copy.join(place)));
        assert!(said.contains("test result: ok"), "{said}");
        assert!(!said.contains("running 0 tests"), "{package}: {said}");
    }
}

#[test]
fn new_refuses_what_cannot_be() {
    let copy = tempfile::tempdir().unwrap();
    mirror(&root().join("api"), &copy.path().join("api"));
    let new = |arguments: &[&str], root: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
            .arg("new")
            .args(arguments)
            .arg("--dir")
            .arg(root)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for (arguments, code, says) in [
        (
            vec!["transport", "acme_sms", "--family", "http"],
            2,
            "for example acmeSms",
        ),
        (
            vec!["transport", "http", "--family", "http"],
            2,
            "is the name of a setting",
        ),
        (
            vec!["transport", "telnet", "--family", "chat"],
            2,
            "there is a worker type telnet already",
        ),
        (
            vec!["application", "telnet"],
            2,
            "there is a worker type telnet already",
        ),
        (vec!["transport", "acmeSms"], 2, "add --family http"),
        (
            vec!["application", "quiz", "--family", "http"],
            2,
            "leave --family out",
        ),
        // The families are not in this copy, so nothing may be written at all.
        (
            vec!["application", "quiz"],
            3,
            "run this at the root of the source tree",
        ),
    ] {
        let (got, said) = new(&arguments, copy.path());
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert!(!copy.path().join("examples").exists());
    assert!(!copy.path().join("api/src/applications/quiz.rs").exists());
    let empty = tempfile::tempdir().unwrap();
    let (code, said) = new(&["application", "quiz"], empty.path());
    assert_eq!(code, Some(3), "{said}");
}
