//! `vumi convert`: what ran under Vumi, as manifests. What has no counterpart is named; nothing is dropped in silence.

mod inputs;
mod manifest;
mod shapes;
mod table;

use crate::error::CliError;
use crate::output;
use inputs::Found;
use manifest::Names;
use std::path::PathBuf;
use vumi_api::Target;
use vumi_cli::generated::write_files;

/// Said first, whatever is converted.
const BROKER: &str = "Vumi 0.6 speaks AMQP 0-8, which RabbitMQ 4 refuses: while old and new workers run beside each other, use RabbitMQ 3.x";

/// Arguments of `vumi convert`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi convert etc/supervisord.conf --out campaign
  vumi convert telnet.yaml --worker-class vumi.transports.telnet.TelnetServerTransport
  vumi convert --worker-class vumi.demos.words.EchoWorker --set-option transport_name:telnet
  curl -s http://junebug:8080/channels/ID | vumi convert - --out campaign
  vumi convert etc/supervisord.conf --beside

It reads Vumi's worker configurations (YAML), supervisord files with several workers, and Junebug's channels (JSON).
What has no counterpart is named on standard error and in a comment of the manifest. docs/migration.md says how to move.
Exit codes: 0 everything was converted · 2 something has no counterpart, the rest is written · 3 a file cannot be read; where
a supervisord file names it, the rest is written.")]
pub struct Arguments {
    /// Files to convert, or - for standard input
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The class of the worker whose configuration is given
    #[arg(long, value_name = "CLASS")]
    pub worker_class: Option<String>,
    /// One option of its configuration, as Vumi's command line has it; may be repeated
    #[arg(long, value_name = "KEY:VALUE", requires = "worker_class")]
    pub set_option: Vec<String>,
    /// Name of the resource. Default: made from the file, the program or the channel
    #[arg(long, requires = "worker_class")]
    pub name: Option<String>,
    /// Let every worker share its queues with an old one that still runs: `ordering: {mode: none}`
    #[arg(long)]
    pub beside: bool,
    /// Write one file per worker into this directory instead of printing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Prints or writes the manifests, and what could not be converted.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let found = inputs::read(arguments)?;
    if found.is_empty() {
        return Err(CliError::validation(
            "nothing to convert; name a file, or a --worker-class",
        ));
    }
    let (files, notes) = convert(&found, arguments.beside);
    output::note(&format!("note: {BROKER}"));
    for note in &notes {
        output::note(&format!("warning: {note}"));
    }
    match &arguments.out {
        Some(folder) => write_files(folder, &files)?,
        None => {
            let texts: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
            output::print(&texts.join("---\n"))?;
        }
    }
    for about in found.iter().filter(|found| !found.is_worker) {
        for dropped in &about.dropped {
            output::note(&format!("note: {}: not needed: {dropped}", about.from));
        }
    }
    let all = found.iter().filter(|found| found.is_worker).count();
    output::note(&summary(workers(&files), all, notes.len()));
    match (found.iter().any(|found| found.is_unreadable), &*notes) {
        (true, _) => Err(CliError::silent(CliError::ENVIRONMENT)),
        (false, []) => Ok(()),
        (false, _) => Err(CliError::silent(CliError::VALIDATION)),
    }
}

/// How it went, in one line.
fn summary(converted: usize, all: usize, notes: usize) -> String {
    let of = match all {
        1 => "1 worker".to_owned(),
        _ => format!("{all} workers"),
    };
    match notes {
        0 => format!("{converted} of {of} converted; everything has a counterpart"),
        1 => format!("{converted} of {of} converted; 1 warning says what to look at"),
        _ => format!("{converted} of {of} converted; {notes} warnings say what to look at"),
    }
}

fn workers(files: &[(String, String)]) -> usize {
    let secrets = files.iter().filter(|(name, _)| name == manifest::SECRETS);
    files.len() - secrets.count()
}

/// Files with their texts, and what has no counterpart.
fn convert(found: &[Found], beside: bool) -> (Vec<(String, String)>, Vec<String>) {
    let (mut files, mut notes, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
    let mut names = Names::default();
    for worker in found {
        let from = &worker.from;
        let lost = worker.lost.iter().map(|lost| format!("{from}: {lost}"));
        notes.extend(lost);
        if worker.class.is_empty() {
            continue;
        }
        match manifest::of(worker, beside, &mut names) {
            Ok(made) => {
                let named = made.lost.iter().map(|lost| format!("{from}: {lost}"));
                notes.extend(named);
                secrets.extend(made.secrets);
                files.push((made.file, made.text));
            }
            Err(why) => notes.push(format!("{from}: {why}")),
        }
    }
    if !secrets.is_empty() {
        files.push((manifest::SECRETS.to_owned(), manifest::secrets(secrets)));
    }
    let read = vumi_api::manifest::load(&files, Target::Cluster);
    notes.extend(read.findings.iter().map(|finding| finding.to_string()));
    (files, notes)
}

#[cfg(test)]
mod tests;
