//! The pure commands as a user meets them: what they print, and their exit codes.

use crate::root;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn vumi(arguments: &[&str], stdin: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vumi"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

const TELNET: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec:\n  telnet: {port: 9010}\n";
const ECHO: &str = "---\napiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: e}\nspec: {echo: {}, transportName: t}\n";

#[test]
fn lint_accepts_the_examples() {
    for arguments in [
        vec!["lint", "examples/telnet-echo"],
        vec![
            "lint",
            "-f",
            "examples/two-transports-one-app",
            "--for",
            "cluster",
        ],
        vec![
            "lint",
            "examples/telnet-echo/echo.yaml",
            "examples/telnet-echo",
        ],
    ] {
        let ended = vumi(&arguments, "");
        assert_eq!(
            ended.code,
            Some(0),
            "{arguments:?}: {}{}",
            ended.out,
            ended.err
        );
        assert!(
            ended.out.ends_with("no errors, no warnings\n"),
            "{}",
            ended.out
        );
    }
}

#[test]
fn lint_prints_every_finding_and_a_summary() {
    let wrong = TELNET
        .replace("port:", "prot:")
        .replace("name: t", "nam: t")
        + ECHO;
    let ended = vumi(&["lint", "-"], &wrong);
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.err, "",
        "findings are the result, not an error of the command"
    );
    for part in [
        "<stdin>:5:12 spec.telnet.prot: unknown field; did you mean port? [manifest.unknown_field]",
        "<stdin>:3:12 metadata.nam: unknown field; did you mean name?",
        "1 valid worker: 4 errors, no warnings",
    ] {
        assert!(
            ended.out.contains(part),
            "{part:?} is not in\n{}",
            ended.out
        );
    }
}

#[test]
fn lint_in_json_is_one_object() {
    let ended = vumi(&["lint", "-", "--format", "json"], TELNET);
    assert_eq!(ended.code, Some(0), "a warning is no error");
    let read: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&read["errors"], &read["warnings"]), (&0.into(), &1.into()));
    assert_eq!(read["findings"][0]["code"], "campaign.no_consumer");
    assert_eq!(read["findings"][0]["file"], "<stdin>");
    assert_eq!(read["workers"], 1);
}

#[test]
fn lint_knows_where_manifests_will_run() {
    let spec = "spec:\n  httpApi: {}\n  http: {port: 8080, auth: {username: u, password: {value: hunter2}}}\n";
    let plain = TELNET.split("spec:").next().unwrap().to_owned() + spec + ECHO;
    assert_eq!(vumi(&["lint", "-"], &plain).code, Some(0));
    let cluster = vumi(&["lint", "-", "--for", "cluster"], &plain);
    assert_eq!(cluster.code, Some(2));
    assert!(cluster.out.contains("a plain value is for `vumi run` only"));
    assert!(!cluster.out.contains("hunter2"));
}

#[test]
fn lint_reads_secrets_from_a_directory() {
    let secret = "secretKeyRef: {name: partner, key: password}";
    let spec = format!(
        "spec:\n  httpApi: {{}}\n  http: {{port: 8080, auth: {{username: u, password: {{{secret}}}}}}}\n"
    );
    let text = TELNET.split("spec:").next().unwrap().to_owned() + &spec + ECHO;
    let without = vumi(&["lint", "-"], &text);
    assert_eq!(without.code, Some(2));
    assert!(
        without.out.contains("[campaign.secret_missing]"),
        "{}",
        without.out
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("partner")).unwrap();
    std::fs::write(folder.path().join("partner/password"), "x\n").unwrap();
    let secrets = folder.path().to_str().unwrap();
    let with = vumi(&["lint", "-", "--secrets", secrets], &text);
    assert_eq!(with.code, Some(0), "{}", with.out);
}

#[test]
fn a_brokers_secret_that_is_missing_is_a_warning_to_lint_and_an_error_to_run() {
    let broker = "broker: {secretRef: {name: rabbit}}";
    let echo = ECHO.replace("transportName: t", &format!("transportName: t, {broker}"));
    let text = format!("{TELNET}  {broker}\n{echo}");
    let lint = vumi(&["lint", "-"], &text);
    assert_eq!(lint.code, Some(0), "{}", lint.out);
    assert!(
        lint.out
            .contains("warning: transport/t: there is no Secret \"rabbit\""),
        "{}",
        lint.out
    );
    let cluster = vumi(&["lint", "-", "--for", "cluster"], &text);
    assert!(cluster.out.ends_with("no errors, no warnings\n"));
    let run = vumi(&["run", "-f", "-"], &text);
    assert_eq!(run.code, Some(2));
    assert!(run.err.contains("no Secret \"rabbit\""), "{}", run.err);
}

#[test]
fn exit_codes_tell_input_from_environment() {
    for (arguments, code, says) in [
        (
            vec!["lint", "no-such-file"],
            3,
            "cannot read no-such-file: it does not exist",
        ),
        (vec!["lint", "examples"], 3, "folders below it are not read"),
        (vec!["lint"], 2, "nothing to check"),
        (vec!["lint", "--for", "moon", "x"], 2, "invalid value"),
        (vec!["lnt"], 2, "lint"),
        (vec!["explain", "telnt"], 2, "did you mean telnet?"),
        (
            vec!["docs", "--examples", "nowhere"],
            3,
            "cannot read nowhere",
        ),
    ] {
        let ended = vumi(&arguments, "");
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(says), "{arguments:?}: {}", ended.err);
        assert!(
            ended.err.starts_with("error: "),
            "{arguments:?}: {}",
            ended.err
        );
    }
}

/// As with `vumi … 2>&1 | head -1`, once `head` has read enough.
#[test]
fn a_reader_that_is_gone_is_no_reason_to_panic() {
    for (arguments, code) in [
        (vec!["lint", "no-such-file"], 3),
        (vec!["lint", "examples/telnet-echo"], 0),
        (vec!["convert", "--worker-class", "no.Such"], 2),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = Command::new(env!("CARGO_BIN_EXE_vumi"))
            .args(&arguments)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn what_no_message_can_have_is_refused_before_anything_is_sent() {
    let inject = [
        "inject",
        "--connector",
        "sms",
        "--content",
        "hello",
        "--dry-run",
    ];
    for (more, says) in [
        (
            ["--from", "1", "--class", "purple"],
            "classes are interactive, transactional, bulk",
        ),
        (["--from", "", "--class", "bulk"], "--from <ADDRESS>"),
    ] {
        let ended = vumi(&[&inject[..], &more[..]].concat(), "");
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(says), "{}", ended.err);
    }
}

#[test]
fn crds_are_printed_and_written() {
    let ended = vumi(&["crds"], "");
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.out.matches("kind: CustomResourceDefinition").count(),
        4
    );
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/crds");
    let written = vumi(&["crds", "--out", out.to_str().unwrap()], "");
    assert_eq!(written.code, Some(0), "{}", written.err);
    for entry in std::fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        let held = root().join("deploy/crds").join(path.file_name().unwrap());
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), read(&held));
    }
}

#[test]
fn explain_answers_for_every_registered_word() {
    let mut words: Vec<&str> = vumi::registry::all().map(|r| r.type_name).collect();
    words.extend(vumi_core::codes::ALL.iter().map(|code| code.name));
    words.extend(vumi_api::manifest::CODES.iter().map(|code| code.0));
    let codes = vumi::reference::codes();
    for word in words {
        let text = vumi_api::explain::explain(word, &codes).unwrap_or_else(|e| panic!("{e}"));
        assert!(text.lines().count() > 2, "{text}");
    }
    let ended = vumi(&["explain", "telnet.port"], "");
    assert!(
        ended.out.starts_with("spec.telnet.port (Transport)"),
        "{}",
        ended.out
    );
}

#[test]
fn help_teaches_by_example() {
    let help = vumi(&["--help"], "").out;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() >= 5, "{help}");
    for command in commands {
        let text = vumi(&[command, "--help"], "").out;
        assert!(
            text.contains("Examples:\n  vumi "),
            "{command} shows no example:\n{text}"
        );
        assert_eq!(crate::reference::private_rule(&text), None, "{text}");
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = vumi(&["completions", shell], "");
        assert_eq!(ended.code, Some(0));
        assert!(ended.out.contains("explain") && ended.out.contains("vumi"));
    }
}
