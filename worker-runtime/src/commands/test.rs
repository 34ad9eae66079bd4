//! `vumi test`: campaign tests, whole campaigns in this process.

use crate::error::CliError;
use crate::output;
use crate::trial::{self, Ended, TestFile};
use std::path::PathBuf;
use vumi_core::logging::{self, LogFormat};

/// Arguments of `vumi test`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  vumi test campaign/
  vumi test campaign/tests/opt-out.yaml --only 'STOP'
  vumi test examples --junit results.xml
  vumi test campaign/ --log-level debug

A test file stands in a folder `tests` beside the manifests and says what comes in and what must come out; the page
docs/testing-campaigns.md describes it. Each test starts the campaign anew, in this process, on a broker and a state store of
its own; transports that no step speaks to are replaced by stand-ins. Time stands still but where a test lets it pass.
A test that could not run is marked ERROR, one that failed FAIL.
Exit codes: 0 all passed · 1 some failed · 2 a test, its file or a manifest is not valid · 3 a path or port cannot be used.")]
pub struct Arguments {
    /// Test files, or folders in and below which the folders `tests` are looked for
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Only tests with this text in their names
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// List the tests instead of running them
    #[arg(long)]
    pub list: bool,
    /// Also write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Show what the workers log, on standard error
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// Runs them all.
pub fn run(arguments: &Arguments) -> Result<(), CliError> {
    if let Some(level) = &arguments.log_level {
        logging::start(LogFormat::Text, Some(level)).map_err(CliError::validation)?;
    }
    // All are read before the first one runs: a mistake in the last file is not found after an hour.
    let files: Vec<TestFile> = trial::find(&arguments.paths)?
        .iter()
        .map(|path| TestFile::read(path))
        .collect::<Result<_, _>>()?;
    let wanted = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|text| name.contains(text))
    };
    let mut ended: Vec<Ended> = Vec::new();
    let mut listed = String::new();
    for file in &files {
        for test in file.tests.iter().filter(|test| wanted(&test.name)) {
            if arguments.list {
                listed += &format!("{}: {}\n", file.path.display(), test.name);
                continue;
            }
            let result = trial::play(file, test);
            output::print(&result.shown())?;
            ended.push(result);
        }
    }
    if arguments.list {
        return output::print(&listed);
    }
    if ended.is_empty() {
        return Err(CliError::validation(format!(
            "no test has {:?} in its name; --list shows them",
            arguments.only.as_deref().unwrap_or("")
        )));
    }
    output::print(&trial::summary(&ended))?;
    if let Some(path) = &arguments.junit {
        trial::junit(&ended)
            .and_then(|xml| std::fs::write(path, xml))
            .map_err(|error| {
                CliError::environment(format!("cannot write {}: {error}", path.display()))
            })?;
    }
    let worst = ended.iter().filter_map(|test| test.outcome.as_ref().err());
    // A test that cannot run is worse than one that fails.
    match worst.map(|error| error.code).max() {
        None => Ok(()),
        Some(code) => Err(CliError::silent(code)),
    }
}
