//! `vumi crds`: the custom resource definitions, made from the types.

use crate::error::CliError;
use crate::output;
use std::path::PathBuf;
use vumi_cli::generated::write_files;

/// Arguments of `vumi crds`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi crds | kubectl apply --server-side -f -
  vumi crds --out deploy/crds")]
pub struct Arguments {
    /// Write one file per kind into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints or writes the definitions.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let files = vumi_api::crds::crd_files();
    match &arguments.out {
        Some(folder) => write_files(folder, &files),
        None => {
            let texts: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
            output::print(&texts.join("---\n"))
        }
    }
}
