//! `vumi diff`: what `vumi run` would do to the workers of one set of manifests when it becomes another.

use crate::error::CliError;
use crate::{manifests, output};
use std::io::IsTerminal;
use std::path::PathBuf;
use vumi_api::manifest::{Manifests, campaign_findings, load};
use vumi_api::{Severity, Target};
use vumi_core::supervisor::plan::plan;

/// Arguments of `vumi diff`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi diff campaign/ campaign-next/
  git show HEAD:campaign.yaml | vumi diff - campaign.yaml
  vumi diff old.yaml new.yaml --exit-code || echo 'something changes'

Exit codes: 0 printed · 1 there are changes (with --exit-code) · 2 a manifest is not valid · 3 a path cannot be read.")]
pub struct Arguments {
    /// File or directory as it is now, or - for standard input
    pub old: PathBuf,
    /// File or directory as it will be, or - for standard input
    pub new: PathBuf,
    /// End with exit code 1 when something changes
    #[arg(long)]
    pub exit_code: bool,
}

/// Prints the plan.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let (old, new) = (read(&arguments.old)?, read(&arguments.new)?);
    fn resources(set: &Manifests) -> impl Iterator<Item = &vumi_api::Resource> {
        set.resources.iter().map(|loaded| &loaded.resource)
    }
    let plan = plan(resources(&old), resources(&new));
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    output::print(&plan.render(colour))?;
    match arguments.exit_code && !plan.is_empty() {
        true => Err(CliError::silent(1)),
        false => Ok(()),
    }
}

/// The manifests of one side; an error if one of them could not run.
fn read(path: &PathBuf) -> Result<Manifests, CliError> {
    let texts = manifests::read(std::slice::from_ref(path))?;
    let mut set = load(&texts, Target::Local);
    let of_campaign = campaign_findings(&set);
    set.findings.extend(of_campaign);
    // Secrets may be elsewhere: what is compared is the manifests.
    set.findings
        .retain(|f| f.severity == Severity::Error && f.code != "campaign.secret_missing");
    if set.findings.is_empty() {
        return Ok(set);
    }
    let mut text = format!("{} is not valid:", path.display());
    for finding in &set.findings {
        text.push_str(&format!("\n  {finding}"));
    }
    Err(CliError::validation(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: e}\nspec: {echo: {}, transportName: t}\n";

    fn diff(old: &str, new: &str, exit_code: bool) -> Result<(), CliError> {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        std::fs::write(&a, old).unwrap();
        std::fs::write(&b, new).unwrap();
        run(&Arguments {
            old: a,
            new: b,
            exit_code,
        })
    }

    #[test]
    fn the_exit_code_tells_of_changes_only_when_asked() {
        let changed = ECHO.replace("transportName: t", "transportName: u");
        assert_eq!(diff(ECHO, &changed, false), Ok(()));
        assert_eq!(diff(ECHO, ECHO, true), Ok(()));
        assert_eq!(diff(ECHO, &changed, true), Err(CliError::silent(1)));
    }

    #[test]
    fn an_invalid_side_is_named() {
        let error = diff(ECHO, &ECHO.replace("echo: {}", "ecko: {}"), false).unwrap_err();
        assert_eq!(error.code, CliError::VALIDATION);
        assert!(error.text.contains("b.yaml:4"), "{error}");
    }
}
