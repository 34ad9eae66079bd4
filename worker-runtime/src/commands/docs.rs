//! `vumi docs`: the reference pages, made from the types, the registration tables and the examples.

use super::crds::write_files;
use crate::error::CliError;
use crate::{output, reference, registry};
use std::path::{Path, PathBuf};
use vumi_api::docs::{MARK, pages};

/// Arguments of `vumi docs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi docs                 write docs/reference of this source tree
  vumi docs --check         only say whether it is up to date (exit code 2 if not)")]
pub struct Arguments {
    /// Directory to write into
    #[arg(long, value_name = "DIR", default_value = "docs/reference")]
    pub out: PathBuf,
    /// Directory of the example manifests
    #[arg(long, value_name = "DIR", default_value = "examples")]
    pub examples: PathBuf,
    /// Write nothing; fail if the directory is not what would be written
    #[arg(long)]
    pub check: bool,
}

/// Writes or checks the pages.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    let facts = reference::facts(examples(&arguments.examples)?);
    let pages = pages(&facts).map_err(CliError::validation)?;
    let left_over = left_over(&arguments.out, &pages);
    if !arguments.check {
        write_files(&arguments.out, &pages)?;
        for path in left_over {
            std::fs::remove_file(&path).map_err(|error| {
                CliError::environment(format!("cannot remove {}: {error}", path.display()))
            })?;
            output::print(&format!("removed {}\n", path.display()))?;
        }
        return Ok(());
    }
    let mut stale: Vec<String> = left_over.iter().map(|p| p.display().to_string()).collect();
    for (name, text) in &pages {
        let path = arguments.out.join(name);
        if std::fs::read_to_string(&path).map_or(true, |held| held != *text) {
            stale.push(path.display().to_string());
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(CliError::validation(format!(
            "{} not up to date: {}; run `make docs`",
            if stale.len() == 1 {
                "this page is"
            } else {
                "these pages are"
            },
            stale.join(", ")
        ))),
    }
}

/// The examples of every registered type, as path below `folder` and text.
fn examples(folder: &Path) -> Result<Vec<(String, String)>, CliError> {
    let mut examples = Vec::new();
    for registration in registry::all() {
        for file in ["minimal.yaml", "full.yaml"] {
            let kind = registration.kind.plural();
            let name = format!("{kind}/{}/{file}", registration.type_name);
            let path = folder.join(&name);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                CliError::environment(format!(
                    "cannot read {}: {error}; run this in the source tree, or give --examples",
                    path.display()
                ))
            })?;
            examples.push((name, text));
        }
    }
    Ok(examples)
}

/// Generated pages in `folder` that are not generated any more.
fn left_over(folder: &Path, pages: &[(String, String)]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder_now) = folders.pop() {
        for entry in std::fs::read_dir(&folder_now)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if pages.iter().all(|(name, _)| folder.join(name) != path)
                && std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(MARK))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
