//! How far `vumi inject` came, in a file, so that the same command can go on.

use crate::error::CliError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

/// How far an earlier run came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// Where the messages go and what is read: another command must not go on from here.
    pub target: String,
    /// Names of what is read.
    pub input: Vec<String>,
    /// From which the ids of messages are derived.
    pub run: String,
    /// The first so many valid records are confirmed.
    pub confirmed: u64,
}

impl Progress {
    /// What an earlier run wrote, else `fresh`.
    pub fn read(path: &Path, fresh: Self) -> Result<Self, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(unwritable(path, &error)),
        };
        let known: Self = serde_json::from_str(&text).map_err(|error| {
            CliError::validation(format!("{} is no progress: {error}", path.display()))
        })?;
        if (&known.target, &known.input) != (&fresh.target, &fresh.input) {
            return Err(CliError::validation(format!(
                "{} is the progress of {} into {}, not of {} into {}; name another file",
                path.display(),
                known.input.join(" "),
                known.target,
                fresh.input.join(" "),
                fresh.target
            )));
        }
        Ok(known)
    }

    /// Whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, json!(self).to_string())
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(|error| unwritable(path, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::environment(format!("cannot use {}: {error}", path.display()))
}
