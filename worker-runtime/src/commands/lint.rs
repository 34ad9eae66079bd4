//! `vumi lint`: every finding about a set of manifests, without running anything.

use crate::error::CliError;
use crate::manifests::Services;
use crate::output::Format;
use crate::{manifests, output};
use serde_json::json;
use std::path::PathBuf;
use vumi_api::manifest::Manifests;
use vumi_api::{Finding, Severity, Target};
use vumi_cli::table::counted;

/// Arguments of `vumi lint`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi lint examples/telnet-echo
  vumi lint -f campaign/ --secrets ~/campaign-secrets
  vumi lint campaign/*.yaml --for cluster
  vumi lint campaign/ --format json | jq '.findings[].code'
  helm template my-campaign | vumi lint - --for cluster

A finding says file, line, column, field, what is wrong and what to do. `vumi explain CODE` says more.
Exit codes: 0 no errors (warnings allowed) · 2 errors found · 3 a path cannot be read.")]
pub struct Arguments {
    /// Files, directories (their .yaml and .yml files), or - for standard input
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The same as PATH, as `vumi run` and `kubectl apply` write it
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Where the manifests will run
    #[arg(long = "for", value_name = "TARGET", value_enum, default_value_t = For::Local)]
    pub target: For,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Directory with one folder per Secret and one file per key, beside `kind: Secret` documents
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

/// Where manifests are meant to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum For {
    /// `vumi run`: plain secret values are fine, listeners share one machine, Secrets must be at hand
    Local,
    /// A cluster: plain secret values are refused, Secrets may be elsewhere
    Cluster,
}

/// Prints all findings; an error if any of them is one.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let paths: Vec<PathBuf> = arguments
        .paths
        .iter()
        .chain(&arguments.files)
        .cloned()
        .collect();
    if paths.is_empty() {
        return Err(CliError::validation(
            "nothing to check; name files or directories, for example `vumi lint campaign/`",
        ));
    }
    let target = match arguments.target {
        For::Local => Target::Local,
        For::Cluster => Target::Cluster,
    };
    let manifests = manifests::campaign(
        &paths,
        target,
        arguments.secrets.as_deref(),
        // `vumi run --broker URL --redis URL` needs none of them.
        Services {
            brokers: Some(Severity::Warning),
            stores: Some(Severity::Warning),
        },
    )?
    .manifests;
    output::print(&match arguments.format {
        Format::Table => text(&manifests),
        Format::Json => format!("{:#}\n", as_json(&manifests)),
    })?;
    match manifests.has_errors() {
        true => Err(CliError::silent(CliError::VALIDATION)),
        false => Ok(()),
    }
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|f| f.severity == severity).count()
}

fn text(manifests: &Manifests) -> String {
    let mut lines = String::new();
    for finding in &manifests.findings {
        lines.push_str(&format!("{finding} [{}]\n", finding.code));
    }
    let findings = &manifests.findings;
    lines.push_str(&format!(
        "{}: {}, {}\n",
        counted(manifests.resources.len(), "valid worker"),
        counted(count(findings, Severity::Error), "error"),
        counted(count(findings, Severity::Warning), "warning"),
    ));
    lines
}

fn as_json(manifests: &Manifests) -> serde_json::Value {
    let findings: Vec<_> = manifests
        .findings
        .iter()
        .map(|f| {
            json!({
                "severity": f.severity.to_string(),
                "code": f.code,
                "file": f.file,
                "line": f.line,
                "column": f.column,
                "path": f.path,
                "message": f.message,
                "help": f.help,
            })
        })
        .collect();
    json!({
        "findings": findings,
        "workers": manifests.resources.len(),
        "errors": count(&manifests.findings, Severity::Error),
        "warnings": count(&manifests.findings, Severity::Warning),
    })
}
