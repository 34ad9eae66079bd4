//! `vumi status`: what the workers of a running process are doing.

use crate::error::CliError;
use crate::output::Format;
use crate::{output, process};
use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
pub use vumi_cli::table::{ago, aligned, counted};
use vumi_core::error::WorkError;
use vumi_core::supervisor::control::{Request, ask, runtime_folder, socket_path};
use vumi_core::supervisor::status::{ProcessStatus, WorkerStatus};

/// Arguments of `vumi status`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi status
  vumi status --name telnet-echo --watch
  vumi status --state ~/campaign-state --format json | jq '.workers[] | select(.ready | not)'

DONE, RETRIED, JOURNALED and PARKED count since the worker began; what waits or is set aside now, `vumi journal list` and
`vumi parked list` say. FLIGHT is what it works on.

Exit codes: 0 every worker is ready · 1 some are not, or the process is still starting · 3 no process answers.")]
pub struct Arguments {
    /// The process.
    #[command(flatten)]
    pub which: Which,
    /// How the state is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print it again every second, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Whoever looks once waits so long for each process.
pub const ONCE: Duration = Duration::from_secs(5);

/// Which process is meant. With none of these, the only one that runs.
#[derive(clap::Args, Debug, Default)]
pub struct Which {
    /// Control socket of the process
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// State folder of the process
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub state: Option<PathBuf>,
    /// Name of the process
    #[arg(long, value_name = "NAME", conflicts_with = "socket", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
}

impl Which {
    /// The socket that is meant.
    pub fn socket(&self) -> Result<PathBuf, CliError> {
        if let Some(path) = &self.socket {
            return Ok(path.clone());
        }
        let folder = self.state.clone().unwrap_or_else(runtime_folder);
        let sockets = live_sockets(&folder);
        if let Some(name) = &self.name {
            let path = socket_path(&folder, name);
            if sockets.contains(&path) || sockets.is_empty() {
                return Ok(path);
            }
            let names: Vec<String> = sockets.iter().map(|path| stem(path)).collect();
            return Err(CliError::environment(format!(
                "no process is called {name} in {}; there are: {}",
                folder.display(),
                names.join(", ")
            )));
        }
        match &sockets[..] {
            [one] => Ok(one.clone()),
            [] => Err(nobody(&folder, self.state.is_some())),
            several => {
                let names: Vec<String> = several.iter().map(|path| stem(path)).collect();
                Err(CliError::environment(format!(
                    "several processes run; choose one with --name: {}",
                    names.join(", ")
                )))
            }
        }
    }
}

/// No process answers in this folder: whether there is one at all, and what was left of one that was killed.
fn nobody(folder: &Path, is_named: bool) -> CliError {
    let place = folder.display();
    if let (true, Err(error)) = (is_named, std::fs::read_dir(folder)) {
        return CliError::unreadable(place, &error);
    }
    let left: Vec<String> = sockets(folder).iter().map(|path| stem(path)).collect();
    CliError::environment(match left.is_empty() {
        true => format!(
            "no process has a control socket in {place}; is `vumi run` running? Name its --state folder or --socket if it is elsewhere"
        ),
        false => format!(
            "no process listens in {place}, although control sockets are there: {}; a process that was killed left them, and what it kept in its own --state folder is read when `vumi run` is started with that folder again",
            left.join(", ")
        ),
    })
}

/// Control sockets in a folder, also those that dead processes left, sorted.
fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "sock"))
        .collect();
    found.sort();
    found
}

/// Sockets of processes that answer, sorted.
pub fn live_sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = sockets(folder);
    found.retain(|path| std::os::unix::net::UnixStream::connect(path).is_ok());
    found
}

/// What each of these processes says of itself, all asked at once; none of one that says nothing for so long, perhaps
/// because it is stopped.
pub async fn ask_all(
    sockets: &[PathBuf],
    patience: Duration,
) -> Vec<Option<Result<Value, WorkError>>> {
    let asks = sockets.iter().map(|socket| async move {
        let answer = tokio::time::timeout(patience, ask(socket, &Request::Status)).await;
        answer.ok()
    });
    futures::future::join_all(asks).await
}

/// The name of the process behind a socket, as far as it is a file's name.
pub fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Prints the state once, or until interrupted.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let socket = arguments.which.socket()?;
    process::block_on(async {
        loop {
            let value = ask(&socket, &Request::Status).await?;
            let status: ProcessStatus = serde_json::from_value(value)
                .map_err(|e| CliError::runtime(format!("the process runs another version: {e}")))?;
            let text = match arguments.format {
                Format::Table => table(&status, SystemTime::now()),
                Format::Json => format!("{}\n", serde_json::json!(status)),
            };
            if arguments.watch
                && arguments.format == Format::Table
                && std::io::stdout().is_terminal()
            {
                output::print("\x1b[2J\x1b[H")?;
            }
            output::print(&text)?;
            if !arguments.watch {
                return match is_well(&status) {
                    true => Ok(()),
                    false => Err(CliError::silent(CliError::RUNTIME)),
                };
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Whether everything runs that is to run. A process that has no workers yet is not well for that.
fn is_well(status: &ProcessStatus) -> bool {
    let all_run = status.problem.is_none() && status.starting.is_none();
    all_run && status.workers.iter().all(|worker| worker.ready)
}

/// The table: a head, a line per worker, and below it what is not well.
fn table(status: &ProcessStatus, now: SystemTime) -> String {
    let mut rows = vec![
        [
            "WORKER",
            "TYPE",
            "STATE",
            "READY",
            "DONE",
            "FLIGHT",
            "RETRIED",
            "JOURNALED",
            "PARKED",
            "SINCE",
            "LISTENS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(status.workers.iter().map(|worker| row(worker, now)));
    let mut text = format!(
        "{} (process {}, vumi {}) on {}\n",
        status.name,
        status.pid,
        status.version,
        match status.brokers.is_empty() {
            true if status.starting.is_some() => "no broker yet".into(),
            true => "no broker".into(),
            false => status.brokers.join(", "),
        }
    );
    text += &stores(status);
    if status.stopping {
        text += "it is stopping: intakes are closed, and what is in hand is finished\n";
    }
    match &status.starting {
        Some(waits) => text += &format!("it is starting and has no workers yet: {waits}\n"),
        None => text += &aligned(&rows),
    }
    if let Some(problem) = &status.problem {
        text += &format!("\nThe manifests as they are now are not applied:\n{problem}\n");
    }
    let mut notes = String::new();
    for worker in &status.workers {
        let mut note = |what: &str| notes += &format!("{}: {what}\n", worker.worker);
        // Why the broker is away is also what the worker waits for, and what its part `broker` reports: it is said once.
        let away = worker.link.strip_prefix("connecting: ");
        if away.is_some() || worker.link.starts_with("blocked") {
            note(&format!("broker {}", worker.link));
        }
        if !worker.why.is_empty() && away != Some(&worker.why) {
            note(&worker.why);
        }
        let waits = |state: &str| away.is_some() && state == "connecting";
        for queue in worker
            .queues
            .iter()
            .filter(|queue| queue.state != "consuming" && !waits(&queue.state))
        {
            note(&format!("{} {} {}", queue.queue, queue.state, queue.detail));
        }
        if let Some(store) = &worker.store
            && store.health != "up"
        {
            note(&format!("state store {}: {}", store.name, store.health));
        }
        for part in worker.components.iter().filter(|part| part.level != "ok") {
            if part.component == "broker" && away == Some(&part.message) {
                continue;
            }
            note(&format!(
                "{} {}: {}",
                part.component, part.level, part.message
            ));
        }
    }
    if !notes.is_empty() {
        text += &format!("\n{notes}");
    }
    text
}

/// Which state stores there are, what each survives, and whose it is where there are several.
fn stores(status: &ProcessStatus) -> String {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    for worker in &status.workers {
        let store = match &worker.store {
            Some(store) => format!("{}, survives {}", store.name, survives(&store.durability)),
            None if worker.state == "stalled" || worker.state == "stopped" => continue,
            None => "none".to_owned(),
        };
        match found.iter_mut().find(|(known, _)| *known == store) {
            Some((_, workers)) => workers.push(&worker.worker),
            None => found.push((store, vec![&worker.worker])),
        }
    }
    let alone = found.len() == 1;
    let lines = found.iter().map(|(store, workers)| match alone {
        true => format!("state store: {store}\n"),
        false => format!("state store of {}: {store}\n", workers.join(", ")),
    });
    lines.collect()
}

/// What the words for durability mean.
fn survives(durability: &str) -> String {
    let what = match durability {
        "memory" => "nothing",
        "process" => "a killed process",
        "host" => "a power loss",
        other => return other.to_owned(),
    };
    format!("{what} ({durability})")
}

fn row(worker: &WorkerStatus, now: SystemTime) -> Vec<String> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    vec![
        worker.worker.clone(),
        worker.type_name.clone(),
        worker.state.clone(),
        if worker.ready { "yes" } else { "no" }.into(),
        worker.done.to_string(),
        worker.in_flight.to_string(),
        worker.retried.to_string(),
        worker.journaled.to_string(),
        worker.parked.to_string(),
        ago(now.saturating_sub(worker.since)),
        worker.listens.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_has_a_line_per_worker_and_one_per_trouble() {
        let status: ProcessStatus = serde_json::from_value(json!({
            "name": "demo", "pid": 7, "version": "1.0", "brokers": ["embedded"],
            "workers": [{
                "worker": "transport/t", "type": "telnet", "ready": true, "accepting": true,
                "state": "running", "why": "", "listens": ["0.0.0.0:9010"],
                "queues": [{"queue": "t.outbound", "state": "consuming"}], "link": "up, embedded",
                "durability": "memory",
                "store": {"name": "embedded /data/store", "durability": "process", "health": "up"},
                "components": [{"component": "listener", "level": "degraded", "reason": "accept_failed",
                                "message": "a connection could not be taken"}],
                "received": 3, "done": 2, "retried": 0, "parked": 0, "returned": 0, "inFlight": 1,
                "since": 1000,
            }, {
                "worker": "application/e", "type": "echo", "ready": false, "state": "stalled",
                "why": "Secret \"s\" has no key \"k\"", "queues": [], "link": "connecting",
                "durability": "memory", "components": [],
                "received": 0, "done": 0, "retried": 0, "parked": 0, "returned": 0, "inFlight": 0,
                "since": 0,
            }],
        }))
        .unwrap();
        let text = table(&status, UNIX_EPOCH + Duration::from_secs(1075));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "demo (process 7, vumi 1.0) on embedded");
        assert_eq!(
            lines[1],
            "state store: embedded /data/store, survives a killed process (process)"
        );
        assert_eq!(
            lines[3],
            "transport/t    telnet  running  yes    2     1       0        0          0       1m15s   0.0.0.0:9010"
        );
        assert_eq!(
            lines[6],
            "transport/t: listener degraded: a connection could not be taken"
        );
        assert_eq!(lines[7], "application/e: Secret \"s\" has no key \"k\"");
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn that_the_broker_is_away_is_said_once() {
        let why = "IO error: Connection refused (os error 111)";
        let status: ProcessStatus = serde_json::from_value(json!({
            "name": "demo", "pid": 7, "version": "1.0", "brokers": ["amqp://localhost:5672//"],
            "workers": [{
                "worker": "application/e", "type": "echo", "ready": false, "state": "connecting", "why": why,
                "queues": [{"queue": "t.inbound", "state": "connecting"},
                           {"queue": "t.event", "state": "refused", "detail": "not ours"}],
                "link": format!("connecting: {why}"), "durability": "process",
                "components": [{"component": "broker", "level": "down", "reason": "unreachable", "message": why},
                               {"component": "peer", "level": "down", "reason": "unreachable", "message": why}],
                "received": 0, "done": 0, "retried": 0, "parked": 0, "returned": 0, "inFlight": 0, "since": 0,
            }],
        }))
        .unwrap();
        let text = table(&status, UNIX_EPOCH);
        let notes: Vec<&str> = text.lines().skip(5).collect();
        let expected = [
            format!("application/e: broker connecting: {why}"),
            "application/e: t.event refused not ours".to_owned(),
            format!("application/e: peer down: {why}"),
        ];
        assert_eq!(notes, expected, "{text}");
    }

    #[test]
    fn several_stores_are_told_with_their_workers() {
        let worker = |name: &str, store: serde_json::Value| {
            let mut worker = json!({
                "worker": name, "type": "telnet", "ready": true, "state": "running", "why": "",
                "queues": [], "link": "up", "durability": "memory", "components": [],
                "received": 0, "done": 0, "retried": 0, "parked": 0, "returned": 0, "inFlight": 0, "since": 0,
            });
            if !store.is_null() {
                worker["store"] = store;
            }
            worker
        };
        let redis = json!({"name": "redis h:6379/0", "durability": "host", "health": "up"});
        let status: ProcessStatus = serde_json::from_value(json!({
            "name": "demo", "pid": 7, "version": "1.0", "brokers": [], "stopping": true,
            "workers": [worker("transport/a", redis.clone()), worker("transport/b", redis), worker("application/c", json!(null))],
        }))
        .unwrap();
        let text = table(&status, UNIX_EPOCH);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "state store of transport/a, transport/b: redis h:6379/0, survives a power loss (host)"
        );
        assert_eq!(lines[2], "state store of application/c: none");
        assert!(lines[3].starts_with("it is stopping"), "{text}");
    }

    #[test]
    fn a_process_that_starts_says_what_it_waits_for_and_is_not_well() {
        let status = |more: serde_json::Value| {
            let mut status =
                json!({"name": "demo", "pid": 7, "version": "1.0", "brokers": [], "workers": []});
            if !more.is_null() {
                status["starting"] = more;
            }
            serde_json::from_value::<ProcessStatus>(status).unwrap()
        };
        let starting = status(json!("transport/t opens its broker (first)"));
        assert!(!is_well(&starting));
        assert_eq!(
            table(&starting, UNIX_EPOCH),
            "demo (process 7, vumi 1.0) on no broker yet\n\
             it is starting and has no workers yet: transport/t opens its broker (first)\n"
        );
        assert!(is_well(&status(json!(null))));
    }

    #[test]
    fn lengths_of_time() {
        for (seconds, text) in [(5, "5s"), (65, "1m5s"), (3720, "1h2m"), (90_000, "1d1h")] {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn without_a_process_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let which = Which {
            state: Some(folder.path().to_owned()),
            ..Which::default()
        };
        let error = which.socket().unwrap_err();
        assert_eq!(error.code, CliError::ENVIRONMENT);
        assert!(
            error.text.contains(&folder.path().display().to_string()),
            "{error}"
        );
        // A killed process leaves its file behind.
        let left = socket_path(folder.path(), "campaign");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        let error = which.socket().unwrap_err();
        assert_eq!(error.code, CliError::ENVIRONMENT);
        assert!(
            error
                .text
                .contains("are there: campaign; a process that was killed"),
            "{error}"
        );
        let nowhere = Which {
            state: Some(folder.path().join("absent")),
            ..Which::default()
        };
        let error = nowhere.socket().unwrap_err();
        assert_eq!(error.code, CliError::ENVIRONMENT);
        assert!(error.text.contains("absent: it does not exist"), "{error}");
        let listeners: Vec<_> = ["a", "b"]
            .map(|name| std::os::unix::net::UnixListener::bind(socket_path(folder.path(), name)))
            .into();
        assert!(listeners.iter().all(Result::is_ok));
        let error = which.socket().unwrap_err();
        assert!(error.text.ends_with("--name: a, b"), "{error}");
        let named = |name: &str| Which {
            name: Some(name.into()),
            state: Some(folder.path().to_owned()),
            ..Which::default()
        };
        assert!(named("a").socket().is_ok());
        let error = named("c").socket().unwrap_err();
        assert!(error.text.ends_with("there are: a, b"), "{error}");
    }
}
