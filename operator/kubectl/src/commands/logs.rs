//! `kubectl vumi logs`: what the pods of a worker log, by the name of the resource.

use crate::cluster::{Cluster, Connection};
use crate::named::Named;
use crate::pods::{self, CONTAINER};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::LogParams;
use std::collections::BTreeMap;
use std::io::Write;
use tokio::task::JoinSet;
use vumi_cli::error::CliError;
use vumi_cli::output;

/// Arguments of `kubectl vumi logs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi logs transport/sms
  kubectl vumi logs application/echo --follow --tail 20
  kubectl vumi logs transport/sms --previous

With several pods, and with --follow, each line begins with the name of its pod. With --follow, pods that come later are followed as
well, until Ctrl-C. With --previous, pods whose container was never started again are left out.
Exit codes: 0 printed · 3 there is no such resource, it has no pods, with --previous none that was started again, or the log of one
cannot be read; those of the others are printed.")]
pub struct Arguments {
    /// The worker: transport/NAME, application/NAME, …
    #[arg(value_name = "KIND/NAME")]
    pub worker: Named,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of each pod
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// Only what is younger
    #[arg(long, value_name = "DURATION")]
    pub since: Option<vumi_api::Duration>,
    /// Of the container before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
}

/// Prints until there is no more.
///
/// # Errors
/// There are no pods, or their logs cannot be read.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    tokio::select! {
        printed = print(arguments, &cluster) => printed,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// One run of a pod's container: the next pod of a StatefulSet has the same name, and a container that was started again the same pod.
type Run = (String, u64);

/// What is known of a run.
struct Followed {
    /// Whether its log is read now.
    streams: bool,
    /// When its last line was written that was printed.
    seen: Option<Timestamp>,
}

/// Which run was printed, when its last line was written, and false if nobody reads what is printed.
type Printed = (Run, (Option<Timestamp>, Result<bool, CliError>));

async fn print(arguments: &Arguments, cluster: &Cluster) -> Result<(), CliError> {
    let worker = &arguments.worker;
    let mut known: BTreeMap<Run, Followed> = BTreeMap::new();
    let mut streams = JoinSet::new();
    let mut first = true;
    loop {
        let pods = pods::of(cluster, worker).await?;
        if first && pods.is_empty() {
            worker.get(cluster).await?;
            if !arguments.follow {
                return Err(CliError::environment(format!(
                    "{worker} has no pods; `kubectl vumi status {worker}` says why"
                )));
            }
            output::note(&format!("{worker} has no pods yet; waiting for one"));
        }
        let begun: Vec<pods::Pod> = pods.into_iter().filter(|pod| pod.begun).collect();
        let prefixed = arguments.follow || begun.len() > 1;
        let begun = printable(begun, arguments.previous);
        if arguments.previous && begun.is_empty() {
            return Err(CliError::environment(format!(
                "no pod of {worker} has a run before the one of now: none was started again; leave out --previous"
            )));
        }
        for pod in begun {
            let run = (pod.uid.clone(), pod.restarts);
            let before = known.get(&run);
            if before.is_some_and(|before| before.streams || !pod.running) {
                continue;
            }
            let seen = before.and_then(|before| before.seen);
            let stream = Stream {
                api: Api::namespaced(cluster.client.clone(), &cluster.namespace),
                pod: pod.name,
                prefixed,
                seen,
            };
            // Of one that came while we looked nothing was missed.
            let tail = arguments.tail.filter(|_| first && seen.is_none());
            let since = arguments.since.filter(|_| seen.is_none());
            let parameters = LogParams {
                container: Some(CONTAINER.into()),
                follow: arguments.follow,
                previous: arguments.previous,
                tail_lines: tail.map(i64::from),
                since_seconds: since.and_then(|since| i64::try_from(since.0.as_secs()).ok()),
                since_time: seen,
                timestamps: true,
                ..LogParams::default()
            };
            let streams_now = Followed {
                streams: true,
                seen,
            };
            known.insert(run.clone(), streams_now);
            streams.spawn(async move { (run, stream.print(parameters).await) });
        }
        first = false;
        if !arguments.follow {
            return all(&mut streams).await;
        }
        let look = tokio::time::sleep(super::LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = &mut look => break,
                Some(ended) = streams.join_next() => {
                    let (run, (seen, result)) = ended.map_err(|error| CliError::runtime(error.to_string()))?;
                    // If its container still runs, it goes on where it broke.
                    known.insert(run, Followed { streams: false, seen });
                    match result {
                        Ok(true) => {}
                        Ok(false) => return Ok(()),
                        // That of one is no reason to leave the others.
                        Err(error) => output::note(&format!("note: {error}")),
                    }
                }
            }
        }
    }
}

/// The pods whose log there is: of the run of now, or of the one before.
fn printable(begun: Vec<pods::Pod>, previous: bool) -> Vec<pods::Pod> {
    let those = begun.into_iter().filter(|pod| pod.previous || !previous);
    those.collect()
}

/// Waits for all of them. What cannot be read is told at once, and is no reason to leave the others.
async fn all(streams: &mut JoinSet<Printed>) -> Result<(), CliError> {
    let mut told = Ok(());
    while let Some(ended) = streams.join_next().await {
        let (_, (_, result)) = ended.map_err(|error| CliError::runtime(error.to_string()))?;
        if let Err(error) = result {
            output::note(&format!("error: {error}"));
            told = Err(CliError::silent(error.code));
        }
    }
    told
}

/// The log of one run.
struct Stream {
    api: Api<Pod>,
    pod: String,
    /// Whether lines begin with the name of the pod.
    prefixed: bool,
    /// Lines until then were printed.
    seen: Option<Timestamp>,
}

impl Stream {
    /// Prints it. Returns when the last line was written, and false if nobody reads what is printed.
    async fn print(mut self, parameters: LogParams) -> (Option<Timestamp>, Result<bool, CliError>) {
        let result = self.lines(&parameters).await;
        (self.seen, result)
    }

    async fn lines(&mut self, parameters: &LogParams) -> Result<bool, CliError> {
        let pod = self.pod.clone();
        let unread = |error: &dyn std::fmt::Display| {
            CliError::environment(format!("the log of pod {pod} cannot be read: {error}"))
        };
        let lines = self.api.log_stream(&pod, parameters).await;
        let lines = lines.map_err(|error| unread(&crate::cluster::Failed::from(error).text))?;
        let mut lines = std::pin::pin!(lines.lines());
        let before = self.seen;
        while let Some(line) = lines.next().await {
            let line = line.map_err(|error| unread(&error))?;
            let (at, text) = timed(&line);
            // The API server begins with the second.
            if at.is_some() && at <= before {
                continue;
            }
            self.seen = at.or(self.seen);
            let mut out = std::io::stdout().lock();
            let written = match self.prefixed {
                true => writeln!(out, "{pod} {text}"),
                false => writeln!(out, "{text}"),
            };
            if written.and_then(|()| out.flush()).is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// When a line was written, and the line.
fn timed(line: &str) -> (Option<Timestamp>, &str) {
    let parts = line.split_once(' ').unwrap_or((line, ""));
    match parts.0.parse() {
        Ok(at) => (Some(at), parts.1),
        // What is not of the container, as when a log was rotated away.
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_without_an_earlier_run_have_no_log_of_it() {
        let pod = |name: &str, previous| pods::Pod {
            name: name.into(),
            uid: name.into(),
            ready: true,
            leaving: false,
            running: true,
            begun: true,
            previous,
            restarts: u64::from(previous),
        };
        let names = |previous| -> Vec<String> {
            let begun = vec![pod("a", false), pod("b", true), pod("c", false)];
            let printable = printable(begun, previous).into_iter();
            printable.map(|pod| pod.name).collect()
        };
        assert_eq!(names(true), ["b"]);
        assert_eq!(names(false), ["a", "b", "c"]);
        assert!(printable(vec![pod("a", false)], true).is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_read_of_one_does_not_end_the_others() {
        let run = |name: &str| (name.to_owned(), 0);
        let (sent, received) = tokio::sync::oneshot::channel();
        let mut streams = JoinSet::new();
        let unread = CliError::environment("away");
        let first = run("a");
        streams.spawn(async move { (first, (None, Err(unread))) });
        let second = run("b");
        streams.spawn(async move {
            // Longer than the other one takes to fail.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            sent.send("printed").unwrap();
            (second, (None, Ok(true)))
        });
        let ended = all(&mut streams).await;
        assert_eq!(ended, Err(CliError::silent(CliError::ENVIRONMENT)));
        drop(streams);
        assert_eq!(received.await, Ok("printed"));

        let mut streams = JoinSet::new();
        let alone = run("c");
        streams.spawn(async move { (alone, (None, Ok(true))) });
        assert_eq!(all(&mut streams).await, Ok(()));
    }

    #[test]
    fn a_line_says_when_it_was_written() {
        let at: Timestamp = "2026-11-26T12:00:00.5Z".parse().unwrap();
        assert_eq!(
            timed("2026-11-26T12:00:00.500000000Z a b"),
            (Some(at), "a b")
        );
        assert_eq!(timed("2026-11-26T12:00:00.500000000Z"), (Some(at), ""));
        assert_eq!(timed("unable to read"), (None, "unable to read"));
    }
}
