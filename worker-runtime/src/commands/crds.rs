//! `vumi crds`: the custom resource definitions, made from the types.

use crate::error::CliError;
use crate::output;
use std::path::{Path, PathBuf};

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

/// Writes `files`, given as path below `folder` and text; folders are made as needed, unchanged files left untouched.
pub(super) fn write_files(folder: &Path, files: &[(String, String)]) -> Result<(), CliError> {
    for (name, text) in files {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|held| held == *text) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| {
                CliError::environment(format!(
                    "cannot write {}: {error}; choose another --out directory or check its permissions",
                    path.display()
                ))
            })?;
        println_path(&path)?;
    }
    Ok(())
}

fn println_path(path: &Path) -> Result<(), CliError> {
    output::print(&format!("wrote {}\n", path.display()))
}
