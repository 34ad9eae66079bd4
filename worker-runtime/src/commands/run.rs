//! `vumi run`: a whole campaign in one process, from its manifests; edits take effect while it runs.

use crate::brokers::Choice;
use crate::error::CliError;
use crate::manifests::{self, Campaign};
use crate::output;
use crate::process::{self, LOCAL_ADMIN, Process, Setup};
use crate::stores;
use crate::watch::Watch;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vumi_api::{Resource, Severity, Target};
use vumi_cli::table::counted;
use vumi_core::broker::embedded::EmbeddedOptions;
use vumi_core::secrets::Secrets;
use vumi_core::state::StoreHealth;
use vumi_core::state::embedded::EmbeddedStoreOptions;
use vumi_core::supervisor::Supervisor;
use vumi_core::supervisor::plan::shown_address;

/// Arguments of `vumi run`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi run -f examples/telnet-echo
  vumi run -f campaign/ --state ~/campaign-state          messages survive a crash of the process
  vumi run -f campaign/ --broker amqp://guest:guest@localhost/ --redis redis://localhost/
  vumi run -f campaign/ --secrets ~/campaign-secrets --log-format json

Files are watched: a saved edit replaces only the workers that it changes, and what is not valid or does not build leaves
the old version running. `vumi diff OLD NEW` shows what an edit would do; `vumi status` what runs.
State (ledger, journal, sessions, …) is kept where spec.state says, else in the process's own store.
Secrets: `kind: Secret` documents among the manifests, else files DIR/<name>/<key> of --secrets.
Exit codes: 1 runtime · 2 a manifest is not valid · 3 a file, port, broker or folder cannot be used · 128+signal.")]
pub struct Arguments {
    /// Files or directories (their .yaml and .yml files), or - for standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Directory where the broker and the state store inside the process keep what they have [default: none: it ends with
    /// the process]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Confirm messages, and operations on the state store, only when they would survive a power cut
    #[arg(long, requires = "state")]
    pub state_sync: bool,
    /// Directory with one folder per Secret and one file per key
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// What every process takes.
    #[command(flatten)]
    pub process: process::Common,
}

/// Runs until a signal ends it.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    process::start_log(&arguments.process)?;
    process::block_on(campaign(arguments))
}

async fn campaign(arguments: &Arguments) -> Result<(), CliError> {
    // Watched before they are read, so that no edit falls between.
    let mut watch = Watch::start(&arguments.files)?;
    let first = read(arguments)?;
    say(&first);
    let mut resources = match usable(&first) {
        true => resources_of(&first),
        false => return Err(CliError::silent(CliError::VALIDATION)),
    };
    let programs = programs_of(&first);
    let mut documents = first.documents;
    let secrets = Arc::new(Secrets::new(documents.clone(), arguments.secrets.clone()));
    let embedded = EmbeddedOptions {
        state: arguments.state.as_ref().map(|dir| dir.join("broker")),
        sync: arguments.state_sync,
        ..EmbeddedOptions::default()
    };
    let store = EmbeddedStoreOptions {
        folder: arguments.state.as_ref().map(|dir| dir.join("store")),
        sync: arguments.state_sync,
    };
    let setup = Setup {
        default_name: process::name_of(&arguments.files),
        default_admin: LOCAL_ADMIN.into(),
        admin_required: false,
        state: arguments.state.clone(),
        broker: Choice::Embedded(embedded),
        store: stores::Choice::Embedded(store),
        secrets,
    };
    let mut process = Process::open(&arguments.process, setup).await?;
    let supervisor = Arc::clone(&process.supervisor);
    // A signal that comes while the first workers start is not waited for.
    let signal = tokio::select! {
        signal = process.ended() => Some(signal),
        _ = supervisor.apply(resources.clone()) => None,
    };
    if let Some(signal) = signal {
        return Err(process.shut_down(signal).await);
    }
    let unusable = unusable_addresses(&supervisor).await;
    if !unusable.is_empty() {
        let _ = process.shut_down(0).await;
        return Err(CliError::environment(unusable.join("\n")));
    }
    let brokers = supervisor.describe_brokers();
    let stores = stores_of(&supervisor).await;
    let mut greeting = greeting(
        &process,
        &resources,
        &brokers,
        &stores,
        arguments.state.as_deref(),
    );
    greeting += &programs;
    output::print(&greeting)?;
    // Whether the last edit could not be used.
    let mut invalid = false;
    let signal = loop {
        tokio::select! {
            signal = process.ended() => break signal,
            () = watch.changed() => {}
        }
        let next = match read(arguments) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "the manifests cannot be read; everything runs on as it was");
                supervisor.set_problem(Some(error.text));
                invalid = true;
                continue;
            }
        };
        if !usable(&next) {
            say(&next);
            tracing::error!(
                "the manifests are not valid as they are now; everything runs on as it was"
            );
            supervisor.set_problem(Some(errors(&next).join("\n")));
            invalid = true;
            continue;
        }
        supervisor.set_problem(None);
        if std::mem::take(&mut invalid) {
            tracing::info!("the manifests are valid again");
        }
        let (wanted, texts) = (resources_of(&next), next.documents.clone());
        if wanted == resources && texts == documents {
            continue;
        }
        say(&next);
        let rotated = texts != documents;
        let reload = async {
            if rotated {
                supervisor.secrets_changed(texts.clone()).await;
            }
            supervisor.apply(wanted.clone()).await
        };
        // A signal ends only the waiting: the reload goes on, and the shutdown waits for it.
        tokio::select! {
            signal = process.ended() => break signal,
            outcome = reload => {
                let held = outcome.not_applied.len();
                tracing::info!(held, "manifests applied");
            }
        }
        (resources, documents) = (wanted, texts);
    };
    Err(process.shut_down(signal).await)
}

/// Listening workers that could not be built, with the reason. Whoever starts a campaign by hand wants to know at once;
/// later, while others run, such a worker waits instead.
async fn unusable_addresses(supervisor: &Supervisor) -> Vec<String> {
    let snapshots = supervisor.snapshots().await;
    let unusable = snapshots
        .iter()
        .filter(|s| s.state == "stalled" && s.accepting == Some(false));
    unusable.map(|s| format!("{}: {}", s.key, s.why)).collect()
}

fn read(arguments: &Arguments) -> Result<Campaign, CliError> {
    manifests::campaign(
        &arguments.files,
        Target::Local,
        arguments.secrets.as_deref(),
        arguments.process.backing.services()?,
    )
}

fn usable(read: &Campaign) -> bool {
    !read.manifests.has_errors() && !read.manifests.resources.is_empty()
}

fn errors(read: &Campaign) -> Vec<String> {
    let findings = read.manifests.findings.iter();
    let mut lines: Vec<String> = findings
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if read.manifests.resources.is_empty() && lines.is_empty() {
        lines.push("no worker in these manifests; see `vumi explain transport`".into());
    }
    lines
}

/// Prints what was found, to standard error.
fn say(read: &Campaign) {
    for finding in &read.manifests.findings {
        output::note(&finding.to_string());
    }
    if read.manifests.resources.is_empty() && !read.manifests.has_errors() {
        errors(read)
            .iter()
            .for_each(|line| output::note(&format!("error: {line}")));
    }
}

/// The workers that this process runs: all but the programs in containers.
fn resources_of(read: &Campaign) -> Vec<Resource> {
    let loaded = read.manifests.resources.iter();
    let resources = loaded.map(|loaded| &loaded.resource);
    resources.filter(|r| !r.in_container()).cloned().collect()
}

/// What a campaign needs beside this process, in lines.
fn programs_of(read: &Campaign) -> String {
    let loaded = read.manifests.resources.iter();
    let programs = loaded.filter(|loaded| loaded.resource.in_container());
    let line =
        |key: String| format!("{key} is a program of your own: start it beside this process\n");
    programs.map(|loaded| line(loaded.resource.key())).collect()
}

/// The open state stores, with what they survive. Each is given a moment to answer.
async fn stores_of(supervisor: &Supervisor) -> Vec<String> {
    let mut stores = Vec::new();
    for (_, store) in supervisor.stores() {
        let mut health = store.health();
        let up = health.wait_for(|health| *health == StoreHealth::Up);
        let _ = tokio::time::timeout(Duration::from_secs(2), up).await;
        let name = store.describe();
        stores.push(match &*store.health().borrow() {
            StoreHealth::Up => format!("{name} (durability {})", store.durability().as_str()),
            StoreHealth::Away(why) => format!("{name} (away: {why})"),
        });
    }
    stores
}

/// What runs, and what to try.
fn greeting(
    process: &Process,
    resources: &[Resource],
    brokers: &[String],
    stores: &[String],
    state: Option<&std::path::Path>,
) -> String {
    let on = match brokers {
        [] => "no broker yet".to_owned(),
        brokers => brokers.join(", "),
    };
    let workers = counted(resources.len(), "worker");
    let mut text = format!("{workers} of {} on {on}\n", process.name);
    if state.is_none() && brokers.iter().any(|broker| broker == "embedded") {
        text += "messages are kept in memory only; --state DIR keeps them on disk\n";
    }
    if !stores.is_empty() {
        text += &format!("state is kept in {}\n", stores.join(", "));
    }
    let mut rows = Vec::new();
    let mut tries = String::new();
    for resource in resources {
        let listens = resource.topology().listens;
        let addresses: Vec<String> = listens.iter().map(shown_address).collect();
        rows.push(vec![
            format!("  {}", resource.key()),
            resource.worker_type().map_or("", |w| w.key).to_owned(),
            addresses.join(" "),
        ]);
        if let Some(line) = listens.first().and_then(|at| to_try(resource, at)) {
            tries += &format!("  {line}\n");
        }
    }
    text += &crate::commands::status::aligned(&rows);
    if !tries.is_empty() {
        text += &format!("try:\n{tries}");
    }
    if process.socket.is_some() {
        // The control socket stands where the state is.
        text += &match state {
            Some(folder) => format!("  vumi status --state {}\n", folder.display()),
            None => format!("  vumi status --name {}\n", process.name),
        };
    }
    if let Some(address) = process.admin {
        text += &format!("health and metrics: http://{address}/\n");
    }
    text + "edits of the manifests take effect at once; Ctrl-C stops\n"
}

/// A command that talks to a transport.
fn to_try(resource: &Resource, (host, port): &(String, u16)) -> Option<String> {
    let host = match host.as_str() {
        "0.0.0.0" | "::" | "[::]" => "localhost",
        host => host,
    };
    let transport = resource.transport()?;
    let Some(http) = &transport.http else {
        return Some(format!("telnet {host} {port}"));
    };
    let host = shown_address(&(host.to_owned(), *port));
    let path = http.path.as_deref().unwrap_or("/");
    Some(match transport.http_api {
        Some(_) => {
            format!("curl 'http://{host}{path}?content=hello&from_addr=27820000001&to_addr=12345'")
        }
        None => format!("curl 'http://{host}{path}'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_broker_of_the_command_line_needs_no_secret_of_the_manifests() {
        let folder = tempfile::tempdir().unwrap();
        let text = "apiVersion: vumi.dev/v1alpha1\nkind: Transport\nmetadata: {name: t}\nspec: {telnet: {port: 9010}, broker: {secretRef: {name: rabbit}}}\n";
        std::fs::write(folder.path().join("t.yaml"), text).unwrap();
        let usable = |more: &[&str]| {
            let mut line = vec!["run", "-f", folder.path().to_str().unwrap()];
            line.extend(more);
            usable(&read(&Line::parse_from(line).arguments).unwrap())
        };
        assert!(!usable(&[]));
        assert!(usable(&["--broker", "amqp://localhost"]));
    }
}
