//! The files of campaign tests: found, read and checked before anything runs. An unknown key, a step with nothing or two
//! things to do, and a test that expects nothing are errors.

use super::answers::{Answer, StandInAnswer};
use super::text::{Text, written};
use crate::error::CliError;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use vumi_api::shared::Duration;

/// Folder of the tests, beside the manifests.
const FOLDER: &str = "tests";

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestFile {
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// Manifests, relative to the file: files, or folders whose manifests are read.
    #[serde(default = "above")]
    pub manifests: Vec<PathBuf>,
    /// Secrets by name, beside those among the manifests.
    #[serde(default)]
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Fake HTTP servers by name.
    #[serde(default)]
    pub servers: BTreeMap<String, Server>,
    /// What stands in for transports, by connector.
    #[serde(default)]
    pub transports: BTreeMap<String, TransportSetting>,
    /// The tests, each of which starts the campaign anew.
    pub tests: Vec<Test>,
}

fn above() -> Vec<PathBuf> {
    vec!["..".into()]
}

/// A fake HTTP server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// Which origin it is in the manifests, e.g. `https://crm.example.org`: everything there that begins with it is sent to
    /// this server instead.
    #[serde(default)]
    pub at: Option<String>,
    /// Its answers, one after the other; the last one is given again and again. Without any, 200 and nothing more.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// Whether a transport runs, and how its stand-in answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportSetting {
    /// It runs as it is, although no step speaks to it.
    #[serde(default)]
    pub real: bool,
    /// What its stand-in tells of each outbound message, one after the other; the last one is told again and again. Without
    /// any, `ack`.
    #[serde(default)]
    pub answers: Vec<StandInAnswer>,
}

/// One test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// What is shown by it, in a sentence.
    pub name: String,
    /// What happens, in turn.
    pub steps: Vec<Step>,
}

macro_rules! steps {
    ($( #[doc = $doc:literal] $field:ident $name:literal: $type:ty => $variant:ident; )*) => {
        /// One step as it is written: exactly one of these.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct Step {
            $( #[doc = $doc] pub $field: Option<$type>, )*
        }

        /// What a step does.
        #[derive(Clone, Copy, Debug)]
        pub enum Action<'a> {
            $( #[doc = $doc] $variant(&'a $type), )*
        }

        impl Step {
            const NAMES: &'static [&'static str] = &[$( $name ),*];

            fn actions(&self) -> Vec<(&'static str, Action<'_>)> {
                let mut actions = Vec::new();
                $(
                    if let Some(action) = &self.$field {
                        actions.push(($name, Action::$variant(action)));
                    }
                )*
                actions
            }
        }
    };
}

steps! {
    /// A message from a user, as a transport would publish it.
    inbound "inbound": Given => Inbound;
    /// A message to a user, as an application or another program would publish it.
    outbound "outbound": Given => Outbound;
    /// What became of an outbound message, as a transport would tell it.
    event "event": GivenEvent => Event;
    /// A request to a transport that listens for HTTP.
    request "request": Request => Request;
    /// A line of a user to a transport that listens for connections; the first one connects.
    line "line": Line => Line;
    /// A user with this name ends the connection.
    hang_up "hangUp": String => HangUp;
    /// What fake servers answer from now on.
    servers "servers": BTreeMap<String, Server> => Servers;
    /// How stand-ins answer from now on.
    transports "transports": BTreeMap<String, TransportSetting> => Transports;
    /// Lets time pass.
    advance "advance": Duration => Advance;
    /// What came since the last time.
    expect "expect": Expect => Expect;
}

impl Step {
    /// What it does, with its name. Checked when the file was read.
    pub fn action(&self) -> Option<(&'static str, Action<'_>)> {
        self.actions().into_iter().next()
    }
}

/// A message that is published.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Given {
    /// Connector. The only one that has a stand-in (inbound) or a transport that runs (outbound), if not named.
    pub connector: Option<String>,
    /// `from_addr`.
    pub from: Option<String>,
    /// `to_addr`.
    pub to: Option<String>,
    /// `content`.
    pub content: Option<String>,
    /// `session_event`: new, resume or close.
    pub session: Option<String>,
    /// Endpoint in `routing_metadata`.
    pub endpoint: Option<String>,
    /// `helper_metadata`, such as the labels `class`, `batch` and `tenant`.
    pub helper_metadata: Option<Map<String, Value>>,
    /// A body that is published as it is, instead of a message.
    pub raw: Option<String>,
    /// Outbound: a reply to the last inbound message of the connector, which says from, to and the rest.
    pub reply: bool,
    /// Any other field of the message.
    pub fields: Map<String, Value>,
}

/// An event that is published.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenEvent {
    /// Connector.
    #[serde(default)]
    pub connector: Option<String>,
    /// `ack`, `nack` or `delivery_report`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `delivery_status`: pending, failed or delivered.
    #[serde(default)]
    pub status: Option<String>,
    /// `nack_reason`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Content of the outbound message that it is about; the last one, if not said.
    #[serde(default)]
    pub of: Option<Text>,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Name of the transport.
    pub to: String,
    /// Name for its response; that of the transport, if not given.
    #[serde(default, rename = "as")]
    pub named: Option<String>,
    /// Method; GET without a body, POST with one.
    #[serde(default)]
    pub method: Option<String>,
    /// Path and query.
    pub path: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body as it is.
    #[serde(default)]
    pub body: Option<String>,
    /// Body as JSON.
    #[serde(default)]
    pub json: Option<Value>,
    /// Body as a form.
    #[serde(default)]
    pub form: Option<BTreeMap<String, String>>,
}

/// A line.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// Name of the transport.
    pub to: String,
    /// Name of the user, within the test.
    pub user: String,
    /// What is said; nothing only connects.
    #[serde(default)]
    pub text: Option<String>,
}

/// What should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// For how long the campaign may wait until it is so. Default 5 s.
    pub within: Option<Duration>,
    /// Messages to users: all of them.
    pub outbound: Option<Vec<ExpectMessage>>,
    /// Messages from users that transports published: all of them.
    pub inbound: Option<Vec<ExpectMessage>>,
    /// Events that workers published: all of them.
    pub events: Option<Vec<ExpectEvent>>,
    /// Requests to the fake servers: all of them, in order per server.
    pub calls: Option<Vec<ExpectCall>>,
    /// Responses to requests of steps.
    pub responses: Option<Vec<ExpectResponse>>,
    /// Lines that users heard: all of them, in order, by user.
    pub lines: Option<BTreeMap<String, Vec<Text>>>,
    /// Users whose connections were ended by the transport.
    pub closed: Option<Vec<String>>,
    /// Messages that were set aside: all of them.
    pub parked: Option<Vec<ExpectParked>>,
}

impl Expect {
    /// Whether nothing is expected, not even silence.
    fn is_empty(&self) -> bool {
        self.outbound.is_none()
            && self.inbound.is_none()
            && self.events.is_none()
            && self.calls.is_none()
            && self.responses.as_ref().is_none_or(Vec::is_empty)
            && self.lines.as_ref().is_none_or(BTreeMap::is_empty)
            && self.closed.as_ref().is_none_or(Vec::is_empty)
            && self.parked.is_none()
    }
}

/// A user message that should have come. What is not written does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectMessage {
    /// Connector.
    pub connector: Option<String>,
    /// `from_addr`.
    #[serde(deserialize_with = "written")]
    pub from: Option<Text>,
    /// `to_addr`.
    #[serde(deserialize_with = "written")]
    pub to: Option<Text>,
    /// `content`.
    #[serde(deserialize_with = "written")]
    pub content: Option<Text>,
    /// `session_event`.
    #[serde(deserialize_with = "written")]
    pub session: Option<Text>,
    /// Endpoint.
    #[serde(deserialize_with = "written")]
    pub endpoint: Option<Text>,
    /// `helper_metadata`: these keys.
    pub helper_metadata: Option<Map<String, Value>>,
    /// Other fields of the message: these.
    pub fields: Map<String, Value>,
}

/// An event that should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectEvent {
    /// Connector.
    pub connector: Option<String>,
    /// `event_type`.
    #[serde(rename = "type", deserialize_with = "written")]
    pub event_type: Option<Text>,
    /// `delivery_status`.
    #[serde(deserialize_with = "written")]
    pub status: Option<Text>,
    /// `nack_reason`.
    #[serde(deserialize_with = "written")]
    pub reason: Option<Text>,
    /// Content of the message that it is about.
    #[serde(deserialize_with = "written")]
    pub of: Option<Text>,
    /// Other fields of the event: these.
    pub fields: Map<String, Value>,
}

/// A request that a fake server should have got.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectCall {
    /// Name of the server.
    pub server: Option<String>,
    /// Method.
    #[serde(deserialize_with = "written")]
    pub method: Option<Text>,
    /// Path and query.
    #[serde(deserialize_with = "written")]
    pub path: Option<Text>,
    /// Header fields: these.
    pub headers: BTreeMap<String, Text>,
    /// Body.
    #[serde(deserialize_with = "written")]
    pub body: Option<Text>,
    /// Body as JSON: these keys.
    pub json: Option<Value>,
}

/// A response that should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectResponse {
    /// Name of the request; the last one, if not given.
    pub of: Option<String>,
    /// Status.
    pub status: Option<u16>,
    /// Header fields: these.
    pub headers: BTreeMap<String, Text>,
    /// Body.
    #[serde(deserialize_with = "written")]
    pub body: Option<Text>,
    /// Body as JSON: these keys.
    pub json: Option<Value>,
}

/// A message that should have been set aside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectParked {
    /// Queue that it came from.
    #[serde(deserialize_with = "written")]
    pub queue: Option<Text>,
    /// Code of the reason.
    #[serde(deserialize_with = "written")]
    pub code: Option<Text>,
    /// The reason.
    #[serde(deserialize_with = "written")]
    pub reason: Option<Text>,
}

impl TestFile {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            CliError::environment(format!("cannot read {}: {error}", path.display()))
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CliError> {
        let wrong = |what: String| CliError::validation(format!("{}: {what}", path.display()));
        let mut file: Self = serde_yaml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        file.path = path.to_owned();
        if file.tests.is_empty() {
            return Err(wrong("it has no tests".into()));
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
        let about = std::fs::metadata(path).map_err(|error| {
            CliError::environment(format!("cannot read {}: {error}", path.display()))
        })?;
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
    let unreadable = |error: std::io::Error| {
        CliError::environment(format!("cannot read {}: {error}", folder.display()))
    };
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
