//! The `kubectl-vumi` command.

use clap::Parser;
use kubectl_vumi::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match kubectl_vumi::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
