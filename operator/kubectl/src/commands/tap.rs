//! `kubectl vumi tap`: `vumi tap` in a pod of the worker, which knows its connectors, its broker and its Secret. Nothing of
//! these reaches whoever looks on, and what is shown is hidden there unless it is asked for.

use crate::cluster::{Cluster, Connection, Failed};
use crate::named::{Named, read};
use crate::pods::{self, CONTAINER};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use std::io::Write;
use tokio::io::{AsyncRead, AsyncReadExt};
use vumi_cli::error::CliError;
use vumi_cli::output::{self, Format};

/// `vumi tap` ends with its standard input, which ends with our connection.
const UNTIL_EOF: &str = "--until-eof";

/// Arguments of `kubectl vumi tap`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  kubectl vumi tap transport/sms
  kubectl vumi tap transport/sms --kind inbound --address +27820000001
  kubectl vumi tap application/echo --format json --count 10

Runs `vumi tap` in one of the worker's pods (right: create pods/exec). One is enough: copies are made by the broker, so messages
of all its pods are seen, and nobody misses one. It ends there when it ends here.
Without --show an address is a hash and its last three digits, and of a content only its length is shown.
Exit codes: 0 ended by --count or Ctrl-C · 2 there is nothing to tap · 3 no pod runs, or it cannot be reached.")]
pub struct Arguments {
    /// The worker: transport/NAME, application/NAME, …
    #[arg(value_name = "KIND/NAME")]
    pub worker: Named,
    /// Only these of its connectors [default: all]
    #[arg(value_name = "CONNECTOR")]
    pub connectors: Vec<String>,
    /// Only these flows, inbound, outbound or event; may be given several times
    #[arg(long, value_name = "KIND", value_parser = ["inbound", "outbound", "event"])]
    pub kind: Vec<String>,
    /// Only messages from or to this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Only messages whose content has this text, whatever the case
    #[arg(long, value_name = "TEXT")]
    pub content: Option<String>,
    /// Show addresses, contents and, in JSON, whole messages
    #[arg(long)]
    pub show: bool,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// How messages are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// What runs in the pod.
fn command(arguments: &Arguments) -> Vec<String> {
    let mut command: Vec<String> = ["vumi", "tap", UNTIL_EOF].map(str::to_owned).into();
    for kind in &arguments.kind {
        command.extend(["--kind".to_owned(), kind.clone()]);
    }
    let count = arguments.count.map(|count| count.to_string());
    for (flag, value) in [
        ("--address", arguments.address.as_ref()),
        ("--content", arguments.content.as_ref()),
        ("--count", count.as_ref()),
    ] {
        if let Some(value) = value {
            // Together, since a value may begin as a flag does.
            command.push(format!("{flag}={value}"));
        }
    }
    if arguments.show {
        command.push("--show".into());
    }
    if arguments.format == Format::Json {
        command.extend(["--format", "json"].map(str::to_owned));
    }
    command.push("--".into());
    command.extend(arguments.connectors.iter().cloned());
    command
}

/// Follows until there is enough.
///
/// # Errors
/// There is nothing to follow, or no way there.
pub async fn run(arguments: &Arguments, at: &Connection) -> Result<(), CliError> {
    let cluster = Cluster::open(at).await?;
    let worker = &arguments.worker;
    let resource = read(worker.kind, &worker.get(&cluster).await?)?;
    if resource.in_container() {
        return Err(CliError::validation(format!(
            "{worker} is a program of its own, which has no tap; tap the transport or dispatcher that it speaks with"
        )));
    }
    let pod = pods::one(&cluster, worker).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let unreachable = |error: kube::Error| {
        let pod = &pod.name;
        CliError::environment(format!(
            "nothing can be run in pod {pod}: {}; it takes the right to create pods/exec",
            Failed::from(error).text
        ))
    };
    let attach = AttachParams::default()
        .container(CONTAINER)
        .stdin(true)
        .stdout(true)
        .stderr(true);
    let begun = api.exec(&pod.name, command(arguments), &attach).await;
    let mut process = begun.map_err(unreachable)?;
    // As long as this is there, the other side follows.
    let _stdin = process.stdin();
    let (out, err) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let copied =
        async { tokio::try_join!(copy(out, std::io::stdout()), copy(err, std::io::stderr())) };
    let done = tokio::select! {
        copied = copied => copied.is_err(),
        _ = tokio::signal::ctrl_c() => true,
    };
    if done {
        process.abort();
        return Ok(());
    }
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    match status {
        None => Err(CliError::environment(format!(
            "the connection to pod {} broke; is it still there? Messages that pass meanwhile are not shown",
            pod.name
        ))),
        Some(status) if status.status.as_deref() == Some("Failure") => {
            // Its reason was printed already.
            Err(CliError::silent(code(&status)))
        }
        Some(_) => Ok(()),
    }
}

/// The exit code of a command that failed.
fn code(status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status) -> u8 {
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref());
    let mut causes = causes.into_iter().flatten();
    let exit = causes.find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let written = exit.and_then(|cause| cause.message.as_ref()?.parse().ok());
    if written.is_none()
        && let Some(message) = &status.message
    {
        output::note(&format!("error: {message}"));
    }
    written.unwrap_or(CliError::ENVIRONMENT)
}

/// Passes on what comes, until it ends; or until nobody takes it, which is the error.
async fn copy(from: Option<impl AsyncRead + Unpin>, mut to: impl Write) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut some = vec![0; 8192];
    while let Ok(length) = from.read(&mut some).await
        && length > 0
    {
        to.write_all(&some[..length])?;
        to.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, Command};
    use clap::Parser;

    fn parsed(more: &[&str]) -> Vec<String> {
        let line = ["kubectl-vumi", "tap", "transport/sms"].iter().chain(more);
        match Cli::parse_from(line).command {
            Command::Tap(arguments) => command(&arguments),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_shown_in_the_pod_unless_it_is_asked_for() {
        assert_eq!(parsed(&[]), ["vumi", "tap", "--until-eof", "--"]);
        let all = [
            "sms",
            "--kind",
            "event",
            "--address=-1",
            "--show",
            "--count",
            "2",
            "--format",
            "json",
        ];
        assert_eq!(
            parsed(&all),
            [
                "vumi",
                "tap",
                "--until-eof",
                "--kind",
                "event",
                "--address=-1",
                "--count=2",
                "--show",
                "--format",
                "json",
                "--",
                "sms"
            ]
        );
    }
}
