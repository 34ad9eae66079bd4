//! `vumi explain`: what a word of a manifest, a log line or a finding means.

use crate::error::CliError;
use crate::{output, reference};

/// Arguments of `vumi explain`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi explain transport            the kind and its worker types
  vumi explain telnet               a worker type and its fields
  vumi explain telnet.port          a field
  vumi explain spec.ordering        a shared setting
  vumi explain maxBody              every field of that name
  vumi explain route.none           a code of an error or a finding
  vumi explain slowed_down          a reason of a component's status
  vumi explain QueueClash           a condition of a resource on a cluster, or its reason")]
pub struct Arguments {
    /// A kind, a worker type, a field, a code or a reason
    pub word: String,
}

/// Prints the explanation, or the nearest word.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    match vumi_api::explain::explain(&arguments.word, &reference::codes()) {
        Ok(text) => output::print(&text),
        Err(unknown) => Err(CliError::validation(unknown.to_string())),
    }
}
