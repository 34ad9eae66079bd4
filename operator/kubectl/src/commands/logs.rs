//! `kubectl vumi logs`: what the pods of a worker log, by the name of the resource.

use crate::cluster::{Cluster, Connection};
use crate::named::Named;
use crate::pods::{self, CONTAINER};
use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use std::collections::BTreeSet;
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
well, until Ctrl-C.
Exit codes: 0 printed · 3 there is no such resource, or it has no pods.")]
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

async fn print(arguments: &Arguments, cluster: &Cluster) -> Result<(), CliError> {
    let worker = &arguments.worker;
    let (mut known, mut streams) = (BTreeSet::new(), JoinSet::new());
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
        let begun: Vec<String> = pods
            .into_iter()
            .filter(|pod| pod.begun)
            .map(|pod| pod.name)
            .collect();
        let prefixed = arguments.follow || begun.len() > 1;
        for name in begun {
            if known.insert(name.clone()) {
                let tail = match first {
                    true => arguments.tail,
                    // Of one that came while we looked nothing was missed.
                    false => None,
                };
                let parameters = LogParams {
                    container: Some(CONTAINER.into()),
                    follow: arguments.follow,
                    previous: arguments.previous,
                    tail_lines: tail.map(i64::from),
                    since_seconds: arguments
                        .since
                        .and_then(|since| i64::try_from(since.0.as_secs()).ok()),
                    ..LogParams::default()
                };
                let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
                streams.spawn(stream(api, name, parameters, prefixed));
            }
        }
        first = false;
        if !arguments.follow {
            while let Some(ended) = streams.join_next().await {
                ended.map_err(|error| CliError::runtime(error.to_string()))??;
            }
            return Ok(());
        }
        let look = tokio::time::sleep(super::LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = &mut look => break,
                Some(ended) = streams.join_next() => {
                    // One that has stopped, or whose stream broke, is no reason to leave the others.
                    match ended {
                        Ok(Ok(true)) => {}
                        Ok(Ok(false)) => return Ok(()),
                        Ok(Err(error)) => output::note(&format!("note: {error}")),
                        Err(error) => return Err(CliError::runtime(error.to_string())),
                    }
                }
            }
        }
    }
}

/// Prints the log of a pod. False if nobody reads what is printed.
async fn stream(
    api: Api<Pod>,
    name: String,
    parameters: LogParams,
    prefixed: bool,
) -> Result<bool, CliError> {
    let unread = |error: &dyn std::fmt::Display| {
        CliError::environment(format!("the log of pod {name} cannot be read: {error}"))
    };
    let lines = api.log_stream(&name, &parameters).await;
    let lines = lines.map_err(|error| unread(&crate::cluster::Failed::from(error).text))?;
    let mut lines = std::pin::pin!(lines.lines());
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| unread(&error))?;
        let mut out = std::io::stdout().lock();
        let written = match prefixed {
            true => writeln!(out, "{name} {line}"),
            false => writeln!(out, "{line}"),
        };
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
