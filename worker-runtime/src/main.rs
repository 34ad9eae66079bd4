//! The `vumi` command: its subcommands, their help, and the exit code.
//! 0 ok · 1 runtime · 2 validation · 3 environment · 128 + signal (`error.rs`).

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use vumi::commands::{
    batch, completions, conformance, convert, crds, diff, docs, doctor, erase, explain, inject,
    journal, ledger, lint, new, parked, render, run as campaign, status, tap, test, top, why,
    worker,
};
use vumi::error::CliError;

#[derive(Parser)]
#[command(
    name = "vumi",
    version,
    about = "Runs messaging campaigns from manifests: transports, applications and dispatchers",
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  vumi run -f examples/telnet-echo
  vumi lint examples/telnet-echo
  vumi explain telnet.port
  vumi new transport acmeSms --family http

Exit codes: 0 ok · 1 runtime · 2 validation · 3 environment · 128+signal.
`vumi COMMAND --help` shows examples of each command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a campaign from its manifests in one process; edits take effect while it runs
    Run(campaign::Arguments),
    /// Run the worker of a pod
    Worker(worker::Arguments),
    /// Show what the workers of a running process are doing
    Status(status::Arguments),
    /// Follow what the workers do: rates, in flight, oldest, parked
    Top(top::Arguments),
    /// Follow the messages of connectors live, without taking any away
    Tap(tap::Arguments),
    /// Publish messages from files, lines, CSV or JSON lines
    Inject(inject::Arguments),
    /// Test a campaign: what it answers to messages and requests, with time that is let pass
    Test(test::Arguments),
    /// Check that a worker of others, in any language, keeps to the wire protocol
    Conformance(conformance::Arguments),
    /// Check the broker, the state store and the machine that a campaign needs
    Doctor(doctor::Arguments),
    /// List, show, send back or drop messages that were set aside
    Parked(parked::Arguments),
    /// List, release or drop messages that wait for a retry, their turn or a release
    Journal(journal::Arguments),
    /// List, pause, resume, cancel, reroute or reclass the messages of a batch
    Batch(batch::Arguments),
    /// Count the rows of outbound messages, list overdue ones, compare them with the messages
    Ledger(ledger::Arguments),
    /// Tell what became of a message, of everything of a user, or of a time
    Why(why::Arguments),
    /// Remove everything that is kept of a person
    Erase(erase::Arguments),
    /// Show what would change between two sets of manifests
    Diff(diff::Arguments),
    /// Check manifests without running anything: names, types, rules, queues, ports, order, Secrets
    Lint(lint::Arguments),
    /// Print the objects that the operator makes of manifests, without a cluster
    Render(render::Arguments),
    /// Turn Vumi's configurations, supervisord files and Junebug channels into manifests
    Convert(convert::Arguments),
    /// Print the custom resource definitions of the four kinds
    Crds(crds::Arguments),
    /// Write the reference pages
    Docs(docs::Arguments),
    /// Explain a kind, a worker type, a field or an error code
    Explain(explain::Arguments),
    /// Write a new worker type into a source checkout
    New(new::Arguments),
    /// Print a shell's completion script
    Completions(completions::Arguments),
}

fn main() -> ExitCode {
    // No runtime here: the commands that need one start it with the threads it needs.
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn dispatch(command: Command) -> Result<(), CliError> {
    match command {
        Command::Run(arguments) => campaign::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Inject(arguments) => inject::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Parked(arguments) => parked::run(&arguments),
        Command::Journal(arguments) => journal::run(&arguments),
        Command::Batch(arguments) => batch::run(&arguments),
        Command::Ledger(arguments) => ledger::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Erase(arguments) => erase::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Docs(arguments) => docs::run(&arguments, Cli::command()),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    /// clap reads `{n}` in a help text as the end of a line.
    #[test]
    fn no_help_text_loses_what_clap_takes_for_a_placeholder() {
        fn look(command: &clap::Command) {
            let texts = command
                .get_arguments()
                .flat_map(|a| [a.get_help(), a.get_long_help()]);
            let texts = texts.chain([command.get_about(), command.get_after_help()]);
            for text in texts.flatten() {
                assert!(
                    !text.to_string().contains("{n}"),
                    "{}: {text}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(look);
        }
        look(&Cli::command());
    }
}
