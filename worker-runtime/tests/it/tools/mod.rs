//! The tools around a campaign, on a running process and on RabbitMQ: `inject`, `tap`, `top`, `doctor`.

mod doctor;
mod inject;
mod tap;
mod top;

use crate::harness::amqp::{Amqp, user_message};
use crate::harness::campaign::Campaign;
use crate::harness::process::{Process, command, run, said};
use crate::harness::telnet::greeted;
use crate::harness::{PATIENCE, vhost, wait_for};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use vumi_testkit::redis::{Options, Redis};

const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: echo}\nspec: {echo: {}, transportName: t}\n";

/// Runs a command with something on its standard input.
fn fed(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = command(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// `vumi run` with an echo on connector `t` and a port to know when it is up.
async fn echo(more: &[&str]) -> (Campaign, Process) {
    let campaign = Campaign::empty();
    campaign.write("echo.yaml", ECHO);
    let run = campaign.run(&[&["--name", "echo"], more].concat());
    campaign.until_ready(&[], "application/echo").await;
    (campaign, run)
}

/// A `vumi tap` in the background.
fn tap(campaign: &Campaign, arguments: &[&str]) -> Process {
    let mut all = vec!["tap"];
    all.extend(arguments);
    let tap = Process::start(campaign.path(), "tap", &all);
    // It ends by itself once it has seen enough.
    tap.expect_end();
    tap
}

/// What a tap says beside the messages, for whoever waits for it.
const FOLLOWING: &str = "following; Ctrl-C ends it";

/// Until a tap has said `line`.
async fn says(tap: &Process, line: &str) {
    wait_for("the tap to say it", PATIENCE, || {
        let log = tap.log();
        async move {
            let said = log.lines().any(|said| said == line);
            said.then_some(()).ok_or(log)
        }
    })
    .await;
}
