//! The files of campaign tests: found, read and checked before anything runs. A step with nothing or two things to do, a test
//! that expects nothing, and names that mean nothing are errors.

use super::file::{Action, Expect, Server, Step, Test, TestFile};
use super::way::Place;
use crate::error::CliError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folder of the tests, beside the manifests.
const FOLDER: &str = "tests";

impl TestFile {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CliError::unreadable(path.display(), &error))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CliError> {
        let wrong = |what: String| CliError::validation(format!("{}: {what}", path.display()));
        let mut file: Self = serde_yaml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        file.path = path.to_owned();
        if file.tests.is_empty() {
            return Err(wrong("it has no tests".into()));
        }
        for (name, server) in &file.servers {
            let at = server.at.as_deref();
            at.ok_or_else(|| {
                "nobody can call it without `at`: where it is in the manifests".into()
            })
            .and_then(Place::parse)
            .map_err(|why| wrong(format!("server {name:?}: {why}")))?;
        }
        let mut names = BTreeSet::new();
        for test in &file.tests {
            if !names.insert(&test.name) {
                return Err(wrong(format!("two tests are named {:?}", test.name)));
            }
            check(test, &file.servers)
                .map_err(|why| wrong(format!("test {:?}: {why}", test.name)))?;
        }
        Ok(file)
    }

    /// Paths of the manifests.
    pub fn manifest_paths(&self) -> Vec<PathBuf> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        self.manifests
            .iter()
            .map(|path| folder.join(path))
            .collect()
    }
}

fn check(test: &Test, servers: &BTreeMap<String, Server>) -> Result<(), String> {
    let mut expects = false;
    for (at, step) in test.steps.iter().enumerate() {
        let at = at + 1;
        let actions = step.actions();
        match &actions[..] {
            [(_, action)] => match action {
                Action::Expect(expect) if expect.is_empty() => {
                    return Err(format!(
                        "step {at}: it expects nothing; write [] where nothing should come"
                    ));
                }
                Action::Expect(expect) => {
                    expects = true;
                    names(expect, &test.steps, servers)
                        .map_err(|why| format!("step {at}: {why}"))?;
                }
                Action::Servers(changed) => {
                    if let Some(name) = changed.keys().find(|name| !servers.contains_key(*name)) {
                        return Err(format!(
                            "step {at}: there is no server {name:?} at the head of the file"
                        ));
                    }
                    if changed.values().any(|server| server.at.is_some()) {
                        return Err(format!("step {at}: where a server is cannot change"));
                    }
                }
                Action::Transports(changed) if changed.values().any(|t| t.real) => {
                    return Err(format!(
                        "step {at}: whether a transport runs is said at the head of the file"
                    ));
                }
                Action::Request(request) => {
                    let bodies = [
                        request.body.is_some(),
                        request.json.is_some(),
                        request.form.is_some(),
                    ];
                    if bodies.into_iter().filter(|there| *there).count() > 1 {
                        return Err(format!("step {at}: write one of body, json and form"));
                    }
                }
                _ => {}
            },
            [] => {
                return Err(format!(
                    "step {at} does nothing; write one of {}",
                    Step::NAMES.join(", ")
                ));
            }
            several => {
                let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "step {at} does several things ({}); write a step for each",
                    names.join(", ")
                ));
            }
        }
    }
    match expects {
        true => Ok(()),
        false => Err("it expects nothing; add a step `expect`".into()),
    }
}

/// Users, requests and servers that are expected something of must be among those of the test.
fn names(
    expect: &Expect,
    steps: &[Step],
    servers: &BTreeMap<String, Server>,
) -> Result<(), String> {
    let known = |what: &str, name: &String, known: Vec<&String>| match known.contains(&name) {
        true => Ok(()),
        false => {
            let known: BTreeSet<&str> = known.into_iter().map(String::as_str).collect();
            let known: Vec<&str> = known.into_iter().collect();
            Err(format!(
                "there is no {what} {name:?}; there are: {}",
                known.join(", ")
            ))
        }
    };
    let users = || {
        steps
            .iter()
            .filter_map(|step| Some(&step.line.as_ref()?.user))
            .collect()
    };
    let heard = expect.lines.iter().flat_map(BTreeMap::keys);
    for user in heard.chain(expect.closed.iter().flatten()) {
        known("user", user, users())?;
    }
    let requests = || {
        let requests = steps.iter().filter_map(|step| step.request.as_ref());
        requests
            .map(|request| request.named.as_ref().unwrap_or(&request.to))
            .collect()
    };
    let responses = expect.responses.iter().flatten();
    for name in responses.filter_map(|response| response.of.as_ref()) {
        known("request", name, requests())?;
    }
    let calls = expect.calls.iter().flatten();
    for name in calls.filter_map(|call| call.server.as_ref()) {
        known("server", name, servers.keys().collect())?;
    }
    Ok(())
}

/// Test files under `paths`: files as they are, and of folders every `tests/*.yaml` in or below them, sorted.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut found = BTreeSet::new();
    for path in paths {
        let before = found.len();
        let about = std::fs::metadata(path)
            .map_err(|error| CliError::unreadable(path.display(), &error))?;
        if about.is_file() {
            found.insert(path.clone());
            continue;
        }
        below(path, &mut found)?;
        if found.len() == before {
            return Err(CliError::environment(format!(
                "no {FOLDER}/*.yaml in or below {}; a test file stands in a folder {FOLDER} beside the manifests",
                path.display()
            )));
        }
    }
    Ok(found.into_iter().collect())
}

fn below(folder: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), CliError> {
    let unreadable = |error| CliError::unreadable(folder.display(), &error);
    let of_tests = std::fs::canonicalize(folder)
        .is_ok_and(|whole| whole.file_name().is_some_and(|name| name == FOLDER));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links are not followed: they may lead in circles.
        if !hidden && entry.file_type().map_err(unreadable)?.is_dir() {
            below(&path, found)?;
        } else if !hidden
            && of_tests
            && path
                .extension()
                .is_some_and(|ending| ending == "yaml" || ending == "yml")
        {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TestFile, String> {
        TestFile::parse(Path::new("t.yaml"), text).map_err(|error| error.text)
    }

    #[test]
    fn a_whole_file_is_read() {
        let file = parse(
            "manifests: [../a.yaml]\nservers: {crm: {at: 'https://crm', answers: [{status: 500, delay: 2s}, {json: {ok: true}}]}}\ntransports: {sms: {answers: [ack, {nack: no credit}, none]}}\ntests:\n- name: one\n  steps:\n  - inbound: {from: '2782', content: hi}\n  - advance: 30s\n  - expect: {outbound: [{content: {contains: x}, to: null}], calls: []}\n",
        )
        .unwrap();
        assert_eq!(file.manifest_paths(), [PathBuf::from("../a.yaml")]);
        assert_eq!(file.tests[0].steps.len(), 3);
        let Some(("expect", Action::Expect(expect))) = file.tests[0].steps[2].action() else {
            panic!("an expectation")
        };
        let first = &expect.outbound.as_ref().unwrap()[0];
        assert!(first.to.as_ref().unwrap().fits(None) && first.from.is_none());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_runs() {
        let step = |step: &str| {
            parse(&format!(
                "tests:\n- name: one\n  steps:\n  - {step}\n  - expect: {{outbound: []}}\n"
            ))
            .unwrap_err()
        };
        assert!(step("inbuond: {}").contains("unknown field `inbuond`"));
        assert!(step("inbound: {form: x}").contains("unknown field `form`"));
        assert!(step("inbound: {from: [x]}").contains("line 4"));
        assert!(step("{}").contains("step 1 does nothing; write one of inbound, outbound"));
        assert!(step("{advance: 1s, hangUp: ann}").contains("several things (hangUp, advance)"));
        assert!(step("expect: {within: 3s}").contains("step 1: it expects nothing"));
        assert!(step("servers: {crm: {}}").contains("no server \"crm\""));
        assert!(
            step("transports: {sms: {answers: [maybe]}}").contains("ack, none or {nack: REASON}")
        );
        assert!(step("expect: {closed: [anne]}").contains("there is no user \"anne\""));
        assert!(step("expect: {responses: [{of: x}]}").contains("there is no request \"x\""));
        let nothing = parse("tests:\n- name: one\n  steps:\n  - advance: 1s\n").unwrap_err();
        assert!(
            nothing.contains("test \"one\": it expects nothing"),
            "{nothing}"
        );
        for (server, why) in [
            ("{}", "server \"crm\": nobody can call it without `at`"),
            (
                "{at: crm.org}",
                "server \"crm\": at: \"crm.org\" is no http://",
            ),
        ] {
            let text = format!(
                "servers: {{crm: {server}}}\ntests: [{{name: one, steps: [{{expect: {{outbound: []}}}}]}}]\n"
            );
            let said = parse(&text).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        let twice = "tests:\n- {name: one, steps: [{expect: {outbound: []}}]}\n- {name: one, steps: [{expect: {outbound: []}}]}\n";
        assert!(parse(twice).unwrap_err().contains("two tests are named"));
        assert!(parse("tests: []\n").unwrap_err().contains("no tests"));
    }

    #[test]
    fn tests_are_found_in_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for file in [
            "a/tests/one.yaml",
            "a/b/tests/two.yml",
            "a/manifest.yaml",
            "a/tests/notes.txt",
            ".hidden/tests/x.yaml",
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |paths: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(|path| root.join(path)).collect();
            find(&paths).map(|found| found.len())
        };
        assert_eq!(found(&["."]).unwrap(), 2);
        assert_eq!(found(&["a/tests"]).unwrap(), 1);
        assert_eq!(found(&["a/manifest.yaml", "a/b"]).unwrap(), 2);
        std::fs::create_dir(root.join("empty")).unwrap();
        assert_eq!(found(&["empty"]).unwrap_err().code, CliError::ENVIRONMENT);
    }
}
