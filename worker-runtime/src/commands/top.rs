//! `vumi top`: what all workers of this machine do, refreshed every second.

use crate::commands::status::{ONCE, Which, ago, aligned, ask_all, counted, live_sockets, stem};
use crate::error::CliError;
use crate::output::{self, Format};
use crate::process;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use vumi_core::supervisor::control::runtime_folder;
use vumi_core::supervisor::status::{ProcessStatus, WorkerStatus};

/// Over a terminal's other screen, so that what stood there before comes back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H\x1b[2J";

/// A process that says nothing for so long holds up the others no longer.
const SOON: Duration = Duration::from_secs(1);

/// Arguments of `vumi top`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi top
  vumi top --name telnet-echo --sort oldest
  vumi top --once --format json | jq '.[] | select(.parked > 0)'

IN/S and DONE/S are messages a second since the last look. FLIGHT: being handled, retries included. OLDEST: age of the oldest
message that it holds. QUEUE: in its queues on the broker, which it looks at every five seconds. WAIT: in the
journal, waiting for a retry, their turn or a release. PARKED: set aside from its queues now, by whomever, looked at every five
seconds; `vumi parked list` says why. In JSON, `parkedSinceStart` is what the worker itself has set aside since it started.
All processes of this user are shown, unless one is named; one that does not answer within a second (with --once, within
five) is named below the table, and left out of JSON.
Where standard output is no terminal, every look is a table of its own. Ctrl-C ends it.
Exit codes: 0 ended · 3 no process answers.")]
pub struct Arguments {
    /// Which process.
    #[command(flatten)]
    pub which: Which,
    /// Look twice, one interval apart, print that and end
    #[arg(long)]
    pub once: bool,
    /// Between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub interval: vumi_api::shared::Duration,
    /// Which worker comes first
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    pub sort: Sort,
    /// How a look is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// By process and name
    Name,
    /// The one that takes most first
    Rate,
    /// The one whose oldest message is oldest first
    Oldest,
    /// The one from whose queues most is set aside first
    Parked,
}

/// One worker at one look.
#[derive(Clone, Debug)]
struct Row {
    process: String,
    worker: WorkerStatus,
    received: f64,
    done: f64,
}

/// Counters of a worker at the look before.
type Before = BTreeMap<(String, String), (u64, u64, u64)>;

/// Looks until interrupted, or once.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    if arguments.interval.0 < Duration::from_millis(50) {
        return Err(CliError::validation("--interval is at least 50ms"));
    }
    process::block_on(async {
        let screen =
            !arguments.once && arguments.format == Format::Table && std::io::stdout().is_terminal();
        if screen {
            output::print(ENTER)?;
        }
        let ended = tokio::select! {
            ended = watch(arguments, screen) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if screen {
            output::print(LEAVE)?;
        }
        ended
    })
}

async fn watch(arguments: &Arguments, screen: bool) -> Result<(), CliError> {
    let mut before = Before::new();
    let mut last = Instant::now();
    let mut first = true;
    loop {
        let (statuses, silent) = look(arguments).await?;
        let span = last.elapsed();
        last = Instant::now();
        let mut rows = rows(&statuses, &mut before, span);
        if !first {
            sort(&mut rows, arguments.sort);
            let text = match arguments.format {
                Format::Table => table(&rows, &silent),
                Format::Json => format!("{}\n", json!(rows.iter().map(object).collect::<Vec<_>>())),
            };
            output::print(&match screen {
                true => format!("{HOME}{text}"),
                false if arguments.once || arguments.format == Format::Json => text,
                false => format!("{text}\n"),
            })?;
            if arguments.once {
                return Ok(());
            }
        }
        first = false;
        tokio::time::sleep(arguments.interval.0).await;
    }
}

/// States of the processes that are meant, and names of those that did not answer.
async fn look(arguments: &Arguments) -> Result<(Vec<ProcessStatus>, Vec<String>), CliError> {
    let sockets = sockets(&arguments.which)?;
    let (mut statuses, mut silent) = (Vec::new(), Vec::new());
    let patience = if arguments.once { ONCE } else { SOON };
    let answers = ask_all(&sockets, patience).await;
    for (socket, answer) in sockets.iter().zip(answers) {
        match answer {
            Some(Ok(value)) => statuses.push(serde_json::from_value(value).map_err(|e| {
                CliError::runtime(format!("the process runs another version: {e}"))
            })?),
            Some(Err(error)) if sockets.len() == 1 => return Err(error.into()),
            // It ended meanwhile, is stopped or busy; the others are shown.
            Some(Err(_)) | None => silent.push(stem(socket)),
        }
    }
    if arguments.once && statuses.is_empty() {
        let text = format!("no process answers: {}", silent.join(", "));
        return Err(CliError::environment(text));
    }
    Ok((statuses, silent))
}

fn sockets(which: &Which) -> Result<Vec<PathBuf>, CliError> {
    if which.socket.is_some() || which.name.is_some() {
        return Ok(vec![which.socket()?]);
    }
    let folder = which.state.clone().unwrap_or_else(runtime_folder);
    match live_sockets(&folder) {
        none if none.is_empty() => Ok(vec![which.socket()?]),
        sockets => Ok(sockets),
    }
}

/// The rows of one look. A worker that was replaced begins at zero again.
fn rows(statuses: &[ProcessStatus], before: &mut Before, span: Duration) -> Vec<Row> {
    let mut now = Before::new();
    let mut rows = Vec::new();
    for status in statuses {
        for worker in &status.workers {
            let key = (status.name.clone(), worker.worker.clone());
            let counts = (worker.since, worker.received, worker.done);
            let (received, done) = match before.get(&key) {
                Some((since, received, done)) if *since == worker.since => (*received, *done),
                _ => (worker.received, worker.done),
            };
            let rate = |now: u64, before: u64| {
                now.saturating_sub(before) as f64 / span.as_secs_f64().max(0.001)
            };
            rows.push(Row {
                process: status.name.clone(),
                received: rate(worker.received, received),
                done: rate(worker.done, done),
                worker: worker.clone(),
            });
            now.insert(key, counts);
        }
    }
    *before = now;
    rows
}

fn sort(rows: &mut [Row], by: Sort) {
    let largest = |value: fn(&Row) -> f64| move |a: &Row, b: &Row| value(b).total_cmp(&value(a));
    match by {
        Sort::Name => {
            rows.sort_by(|a, b| (&a.process, &a.worker.worker).cmp(&(&b.process, &b.worker.worker)))
        }
        Sort::Rate => rows.sort_by(largest(|row| row.received)),
        Sort::Oldest => rows.sort_by(largest(|row| row.worker.oldest)),
        Sort::Parked => rows.sort_by(largest(|row| row.worker.set_aside as f64)),
    }
}

fn object(row: &Row) -> serde_json::Value {
    let worker = &row.worker;
    json!({
        "process": row.process, "worker": worker.worker, "type": worker.type_name, "state": worker.state,
        "ready": worker.ready, "why": worker.why, "receivedPerSecond": rounded(row.received),
        "donePerSecond": rounded(row.done), "inFlight": worker.in_flight, "oldest": worker.oldest,
        "queued": worker.queued, "waiting": worker.waiting, "parked": worker.set_aside,
        "parkedSinceStart": worker.parked, "retried": worker.retried,
    })
}

fn rounded(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

fn table(rows: &[Row], silent: &[String]) -> String {
    let several = rows.iter().any(|row| row.process != rows[0].process);
    let mut lines = vec![
        [
            "WORKER", "TYPE", "STATE", "IN/S", "DONE/S", "FLIGHT", "OLDEST", "QUEUE", "WAIT",
            "PARKED", "RETRIED",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    lines.extend(rows.iter().map(|row| {
        let worker = &row.worker;
        vec![
            match several {
                true => format!("{}: {}", row.process, worker.worker),
                false => worker.worker.clone(),
            },
            worker.type_name.clone(),
            match worker.ready {
                true => worker.state.clone(),
                false => format!("{} !", worker.state),
            },
            format!("{:.1}", row.received),
            format!("{:.1}", row.done),
            worker.in_flight.to_string(),
            match worker.oldest {
                0.0 => "-".into(),
                age if age < 10.0 => format!("{age:.1}s"),
                age => ago(age as u64),
            },
            worker.queued.to_string(),
            worker.waiting.to_string(),
            worker.set_aside.to_string(),
            worker.retried.to_string(),
        ]
    }));
    let (received, done): (f64, f64) = rows.iter().fold((0.0, 0.0), |sum, row| {
        (sum.0 + row.received, sum.1 + row.done)
    });
    let mut text = format!(
        "{}: {received:.1} in and {done:.1} done a second\n{}",
        counted(rows.len(), "worker"),
        aligned(&lines)
    );
    for row in rows.iter().filter(|row| !row.worker.why.is_empty()) {
        text += &format!("{}: {}\n", row.worker.worker, row.worker.why);
    }
    for name in silent {
        text += &format!("{name} does not answer\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(name: &str, since: u64, received: u64, done: u64) -> ProcessStatus {
        serde_json::from_value(json!({
            "name": name, "pid": 7, "version": "1.0", "brokers": ["embedded"],
            "workers": [{
                "worker": "transport/t", "type": "telnet", "ready": since > 0, "state": "running", "why": "",
                "queues": [], "link": "up", "durability": "memory", "components": [],
                "received": received, "done": done, "retried": 3, "parked": 9, "setAside": 1, "returned": 0, "inFlight": 2,
                "queued": 13000, "waiting": 5, "oldest": 65.4, "since": since,
            }],
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_between_two_looks_and_begin_anew_with_the_worker() {
        let mut before = Before::new();
        let span = Duration::from_secs(2);
        let first = rows(&[status("a", 1, 1000, 900)], &mut before, span);
        assert_eq!((first[0].received, first[0].done), (0.0, 0.0));
        let second = rows(&[status("a", 1, 1100, 1000)], &mut before, span);
        assert_eq!((second[0].received, second[0].done), (50.0, 50.0));
        let replaced = rows(&[status("a", 2, 10, 10)], &mut before, span);
        assert_eq!((replaced[0].received, replaced[0].done), (0.0, 0.0));
    }

    #[test]
    fn what_is_set_aside_now_is_shown_and_not_what_once_was() {
        let rows = rows(
            &[status("a", 1, 10, 10)],
            &mut Before::new(),
            Duration::from_secs(1),
        );
        let row = object(&rows[0]);
        assert_eq!(
            (&row["parked"], &row["parkedSinceStart"]),
            (&json!(1), &json!(9))
        );
    }

    #[test]
    fn the_table_names_the_process_where_there_are_several() {
        let statuses = [status("a", 1, 10, 10), status("b", 0, 10, 10)];
        let rows = rows(&statuses, &mut Before::new(), Duration::from_secs(1));
        let text = table(&rows, &["c".to_owned()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "2 workers: 0.0 in and 0.0 done a second");
        assert_eq!(
            lines[2],
            "a: transport/t  telnet  running    0.0   0.0     2       1m5s    13000  5     1       3"
        );
        assert!(lines[3].contains("running !"), "{text}");
        assert_eq!(lines[4], "c does not answer");
        let alone = table(&rows[..1], &[]);
        assert!(
            alone
                .lines()
                .nth(2)
                .is_some_and(|l| l.starts_with("transport/t")),
            "{alone}"
        );
        assert!(alone.starts_with("1 worker: "), "{alone}");
    }
}
