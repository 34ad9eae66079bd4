//! `kubectl vumi`: what people ask of Vumi on a cluster. It uses the rights of whoever runs it, reads what the operator says,
//! and asks pods and brokers only where a command is about these.

pub mod broker;
pub mod cluster;
pub mod commands;
pub mod named;
pub mod pods;

use clap::{Parser, Subcommand};
use cluster::Connection;
use commands::{diff, doctor, drain, logs, man, purge, restart, status, tap};
use std::time::Duration;
use vumi_cli::error::CliError;

/// What is left running at the end has this time.
const END: Duration = Duration::from_millis(200);

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-vumi",
    bin_name = "kubectl vumi",
    version,
    about = "Shows and handles Vumi's workers on a cluster",
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  kubectl vumi status
  kubectl vumi diff -f campaign/
  kubectl vumi logs transport/sms --follow
  kubectl vumi doctor

kubectl finds it as a plugin when the program kubectl-vumi is on the PATH.
Exit codes: 0 ok · 1 runtime, or differences · 2 validation · 3 environment.
`kubectl vumi COMMAND --help` shows examples of each command."
)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What is asked.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show how the resources are, with what is wrong in a sentence
    Status(status::Arguments),
    /// Show what the operator would change: of manifests, or of what is on the cluster
    Diff(diff::Arguments),
    /// Follow the messages of a worker live, without taking any away
    Tap(tap::Arguments),
    /// Print the logs of a worker's pods
    Logs(logs::Arguments),
    /// Replace the pods of a worker, one after the other
    Restart(restart::Arguments),
    /// Stop a worker when it has finished what it has in hand; messages wait in its queues
    Drain(drain::Arguments),
    /// Delete the queues of a worker that is not there any more
    Purge(purge::Arguments),
    /// Check definitions, rights, operator, brokers and versions, and say what to do
    Doctor(doctor::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

/// Does what the command line says.
///
/// # Errors
/// What went wrong, with its exit code.
pub fn run(cli: &Cli) -> Result<(), CliError> {
    let at = &cli.connection;
    if let Command::Man(arguments) = &cli.command {
        return man::run(arguments);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::environment(format!("the runtime does not start: {error}")))?;
    let result = runtime.block_on(async {
        match &cli.command {
            Command::Status(arguments) => status::run(arguments, at).await,
            Command::Diff(arguments) => diff::run(arguments, at).await,
            Command::Tap(arguments) => tap::run(arguments, at).await,
            Command::Logs(arguments) => logs::run(arguments, at).await,
            Command::Restart(arguments) => restart::run(arguments, at).await,
            Command::Drain(arguments) => drain::run(arguments, at).await,
            Command::Purge(arguments) => purge::run(arguments, at).await,
            Command::Doctor(arguments) => doctor::run(arguments, at).await,
            Command::Man(_) => Ok(()),
        }
    });
    runtime.shutdown_timeout(END);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }
}
