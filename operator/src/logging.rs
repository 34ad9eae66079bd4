//! Logs: one line per event on standard error, as text or JSON. Nothing of a Secret but its name stands in them.

use std::io::IsTerminal;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Shape of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends the process's logs to standard error.
///
/// # Errors
/// The filter cannot be read.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|error| {
            format!(
                "--log-level {filter:?}: {error}; write for example info or vumi_operator=debug"
            )
        })?;
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A reader that closes standard error is no reason to end.
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    // The client logs whole answers that it cannot read, which may be Secrets, and every failure as an error, whatever comes
    // of it. What concerns anybody is said here.
    let ours = filter_fn(|about| !about.target().starts_with("kube_client"));
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(ours)
        .with(lines);
    // The only failure is that a subscriber is there already, which then goes on.
    let _ = tracing::subscriber::set_global_default(registry);
    Ok(())
}
