//! Writing results to standard output. A reader that closes the pipe early (`vumi crds | head`) is not an error.

use crate::error::CliError;
use std::io::Write;

/// How a result is printed, for every command that can print both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines and tables for people
    Table,
    /// JSON for programs
    Json,
}

/// Writes a line to standard error. Where nobody reads it, it is lost.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes `text` to standard output as it is.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(CliError::environment(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}
