//! Tests of providers as data: files in `cases/`, each a manifest and what happens with it, run by one runner, which adds
//! what nobody writes: paths that do not exist, bodies that are too large, what is missing, doubled, of another type, no text
//! or cut off in a request, requests that come again, secrets in the log, calls that nobody expects.
//!
//! ```yaml
//! manifest: ../../../../examples/generic-http/apposit.yaml   # or the manifest itself
//! cases:
//!   - name: a message comes in and is answered
//!     steps:
//!       - request: {method: POST, path: /in, form: {from: "27", text: hi}}
//!         message: {from_addr: "27", content: hi}      # what is published: these fields, and perhaps others
//!         reply: {content: hello, close: true}         # the application's reply, for a request that waits
//!         response: {status: 200, body: hello}
//!         event: {event_type: ack}
//!       - send: {to_addr: "27", content: hi}           # an outbound message
//!         calls: [{method: POST, url: "https://…", form: {to: "27"}}]
//!         answers: [{status: 200, body: OK}]           # what the provider says to each call
//!         event: {event_type: ack}                     # or error: {class: throttled, code: peer.throttled}
//!         count: []                                    # all that it counts beside requests: `receipt unknown`, `late reply`, …
//! ```

mod agree;
mod file;
mod interrupted;
mod log;
mod long;
mod mangle;
mod orphans;
mod scene;
mod secrets;
mod unwritten;

use file::{CaseFile, Step};
pub(crate) use log::Log;
use scene::Scene;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Runs one case, and what is known of every case; what it finds wrong.
async fn run(file: &CaseFile, case: &file::Case) -> Result<(), String> {
    let mut scene = Scene::start(file).await?;
    for (n, step) in case.steps.iter().enumerate() {
        let done = scene.step(step).await;
        done.map_err(|what| format!("step {}: {what}", n + 1))?;
    }
    scene.stop().await
}

/// Runs every case of a file, and what nobody wrote.
fn check(path: &Path) -> Vec<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let file = match CaseFile::read(path) {
        Ok(file) => file,
        Err(what) => return vec![format!("{name}: {what}")],
    };
    let mut wrong = Vec::new();
    for case in &file.cases {
        if let Err(what) = logged(&file, run(&file, case)) {
            wrong.push(format!("{name}: {}: {what}", case.name));
        }
    }
    for (what, found) in [
        (
            "a path that is not there",
            logged(&file, unwritten::unknown_path(&file)),
        ),
        (
            "a body that is too large",
            logged(&file, unwritten::oversize(&file)),
        ),
        (
            "a request with something wrong in it",
            logged(&file, unwritten::mangled(&file)),
        ),
        (
            "a request that comes again",
            logged(&file, unwritten::repeat(&file)),
        ),
    ] {
        if let Err(found) = found {
            wrong.push(format!("{name}: {what}: {found}"));
        }
    }
    wrong
}

/// Runs with a log of its own, in which nothing private may be.
fn logged(file: &CaseFile, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let log = Log::default();
    log.capture(work)?;
    let text = log.text();
    match file.private().into_iter().find(|word| text.contains(word)) {
        Some(word) => {
            let line = text
                .lines()
                .find(|line| line.contains(&word))
                .unwrap_or_default();
            Err(format!(
                "the log holds a secret, a text or an address: {}",
                line.replace(&word, "<private>")
            ))
        }
        None => Ok(()),
    }
}

#[test]
fn every_provider_does_as_its_file_says() {
    let paths = files();
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || check(path)))
            .collect();
        running
            .into_iter()
            .flat_map(|one| one.join().unwrap())
            .collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A type without a file would not be asked what every provider is asked.
#[test]
fn every_type_has_a_file() {
    let files: Vec<CaseFile> = files()
        .iter()
        .map(|path| CaseFile::read(path).unwrap())
        .collect();
    for worker in crate::WORKERS {
        let has = files.iter().any(|file| (worker.matches)(&file.resource));
        assert!(has, "{} has no file in cases/", worker.type_name);
    }
}

/// Longest declaration of a provider.
const DECLARATION: usize = 150;

/// Types that are longer, and why; one that is not longer any more is wrong here.
const LONGER: &[(&str, &str)] = &[(
    "httpApi",
    "a program behind the seam, whose fields and checks are those of Vumi's HTTP API",
)];

/// What a type says of its provider stays short: its module, and its description beside it.
#[test]
fn every_type_is_a_short_declaration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for worker in crate::WORKERS {
        let words = worker.type_name.chars().flat_map(|c| match c {
            c if c.is_ascii_uppercase() => vec!['_', c.to_ascii_lowercase()],
            c => vec![c],
        });
        let module: String = words.collect();
        let text =
            |ending: &str| std::fs::read_to_string(folder.join(format!("{module}.{ending}")));
        let code = text("rs").unwrap();
        let description = text("yaml").unwrap_or_default();
        let lines = code.lines().count() + description.lines().count();
        let why = LONGER.iter().find(|(name, _)| *name == worker.type_name);
        assert_eq!(
            lines > DECLARATION,
            why.is_some(),
            "{}: {lines} lines of at most {DECLARATION}, {why:?}",
            worker.type_name
        );
    }
}

/// A runner that finds nothing would pass everything.
#[test]
fn what_is_not_as_the_file_says_is_found() {
    let path = folder().join("acme.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    for (from, to, finds) in [
        ("content: hello there", "content: hello you", "message"),
        ("body: taken", "body: refused", "response"),
        ("event_type: ack", "event_type: nack", "event"),
        (
            "url: https://acme.example/send",
            "url: https://acme.example/sent",
            "calls",
        ),
        ("sent_message_id: A-1", "sent_message_id: A-2", "event"),
        ("[receipt unknown]", "[receipt pending]", "count"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let file = CaseFile::parse(&changed, &path).unwrap();
        let found: Vec<String> = file
            .cases
            .iter()
            .filter_map(|case| logged(&file, run(&file, case)).err())
            .collect();
        assert!(
            found.iter().any(|what| what.contains(finds)),
            "{to}: {found:?}"
        );
    }
    let unknown = text.replacen("response:", "respones:", 1);
    assert!(CaseFile::parse(&unknown, &path).is_err_and(|what| what.contains("respones")));
    let step: Step = serde_yaml::from_str("request: {path: /x}").unwrap();
    assert!(step.check().is_err(), "a step without expectations");
}

/// Nor does one pass that had nothing to look at.
#[test]
fn a_check_without_anything_to_look_at_fails() {
    let acme = folder().join("acme.yaml");
    let text = std::fs::read_to_string(&acme).unwrap();
    let mut file = CaseFile::parse(&text.replace(", id: m-", ", parts: m-"), &acme).unwrap();
    let found = logged(&file, unwritten::repeat(&file));
    assert!(found.is_err_and(|what| what.contains("no case has a request with one")));
    file.cases
        .retain(|case| case.steps.iter().all(|step| step.request.is_none()));
    assert!(!file.cases.is_empty());
    for found in [
        logged(&file, unwritten::oversize(&file)),
        logged(&file, unwritten::mangled(&file)),
        logged(&file, unwritten::repeat(&file)),
    ] {
        assert!(found.is_err_and(|what| what.contains("no case has a request that is taken")));
    }
}
