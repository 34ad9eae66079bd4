//! Realistic configurations become manifests that lint accepts, and whatever is lost is named.

mod described;
mod supervisord;
mod types;
mod values;

use super::inputs::{self, Found};
use super::{Arguments, convert};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

struct Folder(tempfile::TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<Found> {
        read(&[self.path(name)], None, &[])
    }
}

fn read(files: &[PathBuf], class: Option<&str>, set: &[&str]) -> Vec<Found> {
    inputs::read(&arguments(files, class, set)).unwrap()
}

fn arguments(files: &[PathBuf], class: Option<&str>, set: &[&str]) -> Arguments {
    Arguments {
        files: files.to_vec(),
        worker_class: class.map(str::to_owned),
        set_option: set.iter().map(|option| (*option).to_owned()).collect(),
        name: None,
        beside: false,
        out: None,
    }
}

/// The `spec` of each manifest, Secrets by their data, by name; and what was lost. What is made is valid but for what is
/// named as lost.
fn made(found: &[Found], beside: bool) -> (BTreeMap<String, Value>, Vec<String>) {
    let (files, notes) = convert(found, beside);
    let mut made = BTreeMap::new();
    for (_, text) in &files {
        for document in text.split("---\n") {
            let value: Value = serde_yaml::from_str(document).unwrap();
            let name = value["metadata"]["name"].as_str().unwrap().to_owned();
            let held = match value["kind"].as_str() {
                Some("Secret") => ("secret ".to_owned() + &name, value["stringData"].clone()),
                _ => (name, value["spec"].clone()),
            };
            made.insert(held.0, held.1);
        }
    }
    (made, notes)
}

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// Files of one class and configuration, and what is lost.
fn one(class: &str, text: &str) -> (BTreeMap<String, Value>, Vec<String>) {
    let folder = Folder::of(&[("worker.yaml", text)]);
    made(
        &read(&[folder.path("worker.yaml")], Some(class), &[]),
        false,
    )
}

#[test]
fn the_tutorial_s_command_lines() {
    let telnet = "vumi.transports.telnet.TelnetServerTransport";
    let options = ["transport_name:telnet", "telnet_port:9010"];
    let (transport, lost) = made(&read(&[], Some(telnet), &options), false);
    let spec = yaml("{telnet: {port: 9010}, transportName: telnet}");
    assert_eq!(transport["telnetservertransport"], spec);
    assert!(
        lost.iter().all(|lost| lost.contains("no_consumer")),
        "{lost:?}"
    );
    let echo = "vumi.demos.words.EchoWorker";
    let (echo, _) = made(&read(&[], Some(echo), &["transport_name:telnet"]), true);
    let spec = yaml("{echo: {}, transportName: telnet, ordering: {mode: none}}");
    assert_eq!(echo["echoworker"], spec);
}

#[test]
fn a_junebug_channel_alone_in_a_list_and_in_an_answer() {
    let channel = r#"{"id": "0b8f1a2c-0000-4000-8000-000000000001", "type": "telnet", "label": "My channel!",
        "config": {"twisted_endpoint": "tcp:9001", "transport_name": "other"}, "mo_url": "http://app.example/mo",
        "rate_limit_count": 5, "character_limit": null, "status": {"status": null}}"#;
    let other = r#"{"id": "x", "type": "carrier_pigeon", "config": {}}"#;
    let answer = format!(
        r#"{{"status": 200, "code": "OK", "description": "channel found", "result": {channel}}}"#
    );
    let list = format!("\n[\n  {channel},\n  {other}\n]");
    for (text, channels) in [(channel.to_owned(), 1), (answer, 1), (list, 2)] {
        let folder = Folder::of(&[("channel.json", &text)]);
        let found = folder.read("channel.json");
        assert_eq!(found.len(), channels);
        let (made, lost) = made(&found, false);
        let spec =
            yaml("{telnet: {port: 9001}, transportName: 0b8f1a2c-0000-4000-8000-000000000001}");
        assert_eq!(made["my-channel"], spec);
        assert!(
            lost.iter()
                .any(|l| l.contains("mo_url is not converted: it belongs to Junebug"))
        );
        let pigeon = lost
            .iter()
            .any(|l| l.contains("channels of type carrier_pigeon have no counterpart"));
        assert_eq!(pigeon, channels == 2, "{lost:#?}");
    }
}

#[test]
fn a_multi_worker_gives_its_workers() {
    let text = "
workers: {in: vumi.transports.telnet.TelnetServerTransport, app: vumi.demos.words.EchoWorker}
defaults: {transport_name: telnet}
in: {telnet_port: 9010}
app: {}
stray: 1
";
    let folder = Folder::of(&[("multi.yaml", text)]);
    let class = Some("vumi.multiworker.MultiWorker");
    let (made, lost) = made(&read(&[folder.path("multi.yaml")], class, &[]), false);
    assert_eq!(
        made["in"],
        yaml("{telnet: {port: 9010}, transportName: telnet}")
    );
    assert_eq!(made["app"], yaml("{echo: {}, transportName: telnet}"));
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("stray is not converted"));
}

#[test]
fn what_is_no_input_is_said() {
    let folder = Folder::of(&[
        ("worker.yaml", "transport_name: x\n"),
        ("broken.json", "{\"type\": "),
        ("other.json", "{\"a\": 1}"),
        ("list.yaml", "- 1\n"),
        ("loop.yaml", "a: !include loop.yaml\n"),
        ("empty.conf", "[supervisord]\npidfile=x\n"),
    ]);
    let failed = |file: &str, class: Option<&str>| {
        let arguments = arguments(&[folder.path(file)], class, &[]);
        inputs::read(&arguments).unwrap_err()
    };
    let class = Some("vumi.demos.words.EchoWorker");
    for (file, class, code, says) in [
        ("worker.yaml", None, 2, "say which with --worker-class"),
        ("broken.json", None, 2, "is no JSON"),
        ("other.json", None, 2, "it has no type"),
        ("list.yaml", class, 2, "holds no mapping"),
        ("loop.yaml", class, 2, "includes itself"),
        ("empty.conf", None, 2, "has no [program:…]"),
        ("missing.yaml", class, 3, "cannot read"),
    ] {
        let error = failed(file, class);
        assert_eq!(error.code, code, "{file}: {error}");
        assert!(error.text.contains(says), "{file}: {error}");
    }
    assert!(!Path::new("missing").exists());
}
