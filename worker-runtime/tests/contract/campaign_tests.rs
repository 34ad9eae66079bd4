//! `vumi test`: every example carries campaign tests that pass, and what a wrong one is told.

use crate::root;
use std::path::Path;
use std::process::Command;

fn test(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vumi"))
        .arg("test")
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Folders with manifests.
fn campaigns(folder: &Path, into: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let manifests = paths
        .iter()
        .any(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    if manifests {
        into.push(folder.display().to_string());
    }
    for path in paths
        .iter()
        .filter(|path| path.is_dir() && !path.ends_with("tests"))
    {
        campaigns(path, into);
    }
}

#[test]
fn every_example_has_tests_and_they_pass() {
    let mut folders = Vec::new();
    campaigns(&root().join("examples"), &mut folders);
    assert!(folders.len() > 10, "{folders:?}");
    let (code, out, err) = test(&["examples", "--list"]);
    assert_eq!(code, Some(0), "{err}");
    for folder in folders {
        let below = folder.split("examples/").last().unwrap();
        assert!(
            out.contains(&format!("examples/{below}/tests/")),
            "examples/{below} has no campaign test; see docs/testing-campaigns.md"
        );
    }
    let (code, out, err) = test(&["examples"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains(" passed, 0 failed"), "{out}");
}

/// A folder with the telnet echo and this test file.
fn campaign(tests: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["telnet.yaml", "echo.yaml"] {
        let from = root().join("examples/telnet-echo").join(file);
        std::fs::copy(from, folder.path().join(file)).unwrap();
    }
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    std::fs::write(folder.path().join("tests/t.yaml"), tests).unwrap();
    folder
}

const WRONG: &str = "
tests:
- name: the answer is another one
  steps:
  - inbound: {from: '2782', content: hello}
  - expect: {within: 100ms, outbound: [{to: '2782', content: hallo}]}
- name: there is one answer more
  steps:
  - inbound: {from: '2782', content: one}
  - inbound: {from: '2783', content: two}
  - expect: {within: 100ms, outbound: [{content: one}]}
- name: something is left at the end
  steps:
  - expect: {outbound: []}
  - inbound: {from: '2782', content: hello}
- name: the order of one user is another
  steps:
  - inbound: {from: '2782', content: one}
  - inbound: {from: '2782', content: two}
  - expect: {within: 100ms, outbound: [{content: two}, {content: one}]}
- name: a message was set aside
  steps:
  - inbound: {raw: not a message}
  - expect: {outbound: []}
- name: somebody heard a line
  steps:
  - line: {to: telnet, user: anne, text: hello}
  - expect: {inbound: [{session: new}, {content: hello}]}
- name: what is right passes
  steps:
  - inbound: {raw: not a message}
  - inbound: {from: '2782', content: hello}
  - expect: {outbound: [{content: {matches: '^h'}}], parked: [{queue: telnet.inbound, code: message.not_json}]}
";

#[test]
fn a_campaign_that_does_something_else_is_told_what() {
    let folder = campaign(WRONG);
    let report = folder.path().join("report.xml");
    let (code, out, _) = test(&[
        folder.path().to_str().unwrap(),
        "--junit",
        report.to_str().unwrap(),
    ]);
    assert_eq!(code, Some(1), "{out}");
    for part in [
        "- expected outbound: {to: \"2782\", content: \"hallo\"}",
        "content: expected \"hallo\", got \"hello\"",
        "+ not expected outbound: telnet.outbound {to: \"2783\", content: \"two\"}",
        "after the last step:",
        "messages to \"2782\" came in another order than expected",
        "+ not expected set aside: telnet.inbound message.not_json",
        "+ not expected line: anne heard",
        "1 passed, 6 failed",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    let xml = std::fs::read_to_string(report).unwrap();
    assert!(xml.contains("tests=\"7\" failures=\"6\""), "{xml}");
}

#[test]
fn a_test_that_means_nothing_does_not_run() {
    let step = |step: &str| {
        let folder = campaign(&format!(
            "tests:\n- name: one\n  steps:\n  - {step}\n  - expect: {{outbound: []}}\n"
        ));
        let (code, out, err) = test(&[folder.path().to_str().unwrap()]);
        assert_eq!(code, Some(2), "{step}: {out}{err}");
        out + &err
    };
    for (wrong, says) in [
        ("inbuond: {}", "unknown field `inbuond`"),
        (
            "inbound: {connector: telnte, content: x}",
            "\"telnte\" is no connector of this campaign; there are: telnet",
        ),
        (
            "request: {to: http, path: /}",
            "there is no transport \"http\"; there are: telnet",
        ),
        ("expect: {closed: [anne]}", "there is no user \"anne\""),
        ("{}", "step 1 does nothing"),
    ] {
        let said = step(wrong);
        assert!(said.contains(says), "{wrong}: {said}");
    }
    let silent = campaign("tests:\n- name: one\n  steps:\n  - advance: 1s\n");
    let (code, _, err) = test(&[silent.path().to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(err.contains("it expects nothing"), "{err}");
    let (code, _, err) = test(&["docs"]);
    assert_eq!(code, Some(3));
    assert!(err.contains("no tests/*.yaml in or below docs"), "{err}");
}

/// A day of a campaign is no day of the machine.
#[test]
fn time_passes_only_in_the_campaign() {
    let folder = campaign(
        "tests:\n- name: a day\n  steps:\n  - line: {to: telnet, user: ann, text: hello}\n  - advance: 1m\n  - expect: {lines: {ann: ['Enter text to echo:', hello]}}\n  - advance: 24h\n  - expect:\n      closed: [ann]\n      lines: {ann: [Closed because nothing was typed. Goodbye.]}\n",
    );
    let (code, out, err) = test(&[folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}{err}");
}

/// A transport whose provider's address is made of a Secret and of settings, and a text that only speaks of an address.
const ELSEWHERE: &str = "apiVersion: v1
kind: Secret
metadata: {name: provider}
stringData: {base: 'http://127.0.0.1:PORT'}
---
apiVersion: vumi.dev/v1alpha1
kind: Transport
metadata: {name: sms}
spec:
  genericHttp:
    settings: {account: mine}
    secrets: {base: {secretKeyRef: {name: provider, key: base}}}
    send:
      method: POST
      url: '{{ config.base }}/{{ config.account }}'
      parameters: {text: '{{ message.content }}'}
      outcomes: [{when: '{{ status == 200 }}', is: accepted}, {is: refused, code: '{{ status }}'}]
---
apiVersion: vumi.dev/v1alpha1
kind: Application
metadata: {name: help}
spec:
  staticReply: {text: 'https://example.org/help'}
  transportName: desk
";

/// Whatever an address is made of, no call leaves the test; and a text that is none is no call.
#[test]
fn nobody_outside_of_a_test_is_called() {
    let provider = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    provider.set_nonblocking(true).unwrap();
    let port = provider.local_addr().unwrap().port();
    let run = |tests: &str| {
        let folder = tempfile::tempdir().unwrap();
        let manifests = ELSEWHERE.replace("PORT", &port.to_string());
        std::fs::write(folder.path().join("campaign.yaml"), manifests).unwrap();
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        let tests = tests.replace("PORT", &port.to_string());
        std::fs::write(folder.path().join("tests/t.yaml"), tests).unwrap();
        test(&[folder.path().to_str().unwrap()])
    };
    let send = "tests:
- name: it is sent
  steps:
  - outbound: {connector: sms, to: '2782', content: hello}
  - expect: {events: [{type: ack}]";
    let (code, out, err) = run(&format!("{send}}}\n"));
    assert_eq!(code, Some(1), "{out}{err}");
    let says =
        format!("the campaign called http://127.0.0.1:{port}, and a test calls nobody outside");
    assert!(out.contains(&says), "{out}");
    assert!(
        out.contains(&format!("at: \"http://127.0.0.1:{port}\"")),
        "{out}"
    );
    let (code, out, err) = run(&format!(
        "servers: {{provider: {{at: 'http://127.0.0.1:PORT'}}}}\n{send}, calls: [{{path: /mine, headers: {{host: '127.0.0.1:PORT'}}}}]}}\n"
    ));
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, out, err) = run("tests:
- name: the text is only said
  steps:
  - inbound: {connector: desk, from: '2782', content: help}
  - expect: {outbound: [{connector: desk, content: 'https://example.org/help'}]}
");
    assert_eq!(code, Some(0), "{out}{err}");
    let reached = provider.accept().map(|_| "somebody reached the provider");
    assert_eq!(reached.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
