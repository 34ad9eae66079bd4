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
    /// Names the options that decide which messages are made of what is read, without telling them; empty in files of earlier versions.
    #[serde(default)]
    pub options: String,
    /// From which the ids of messages are derived.
    pub run: String,
    /// The first so many valid records are confirmed.
    pub confirmed: u64,
    /// Those records, as a hash; empty in files of earlier versions, and where there are none.
    #[serde(default)]
    pub contents: String,
}

impl Progress {
    /// What an earlier run wrote, else `fresh`.
    pub fn read(path: &Path, fresh: Self) -> Result<Self, CliError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
            Err(error) => return Err(CliError::unreadable(path.display(), &error)),
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
        if !known.options.is_empty() && known.options != fresh.options {
            return Err(CliError::validation(format!(
                "{} is the progress of a command with other contents, addresses or labels, or with another --as or --skip-invalid; give the same options, or name another file",
                path.display()
            )));
        }
        Ok(known)
    }

    /// Whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        // Beside it, and of no other progress.
        let mut draft = path.as_os_str().to_owned();
        draft.push(".draft");
        std::fs::write(&draft, json!(self).to_string())
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(|error| unwritable(path, &error))
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::environment(format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_share_a_draft() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("a.draft");
        std::fs::write(&mine, "mine").unwrap();
        let progress = Progress {
            target: "sms.inbound".into(),
            input: Vec::new(),
            options: String::new(),
            run: "run".into(),
            confirmed: 0,
            contents: String::new(),
        };
        for name in ["a.1", "a.2"] {
            progress.write(&folder.path().join(name)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 3);
    }

    #[test]
    fn another_command_does_not_go_on_from_here() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let progress = Progress {
            target: "sms.inbound".into(),
            input: vec!["--count 3".into()],
            options: "one".into(),
            run: "run".into(),
            confirmed: 2,
            contents: String::new(),
        };
        progress.write(&path).unwrap();
        let fresh = |change: fn(&mut Progress)| {
            let mut fresh = Progress {
                run: "new".into(),
                confirmed: 0,
                ..progress.clone()
            };
            change(&mut fresh);
            Progress::read(&path, fresh).map_err(|error| error.text)
        };
        assert_eq!(fresh(|_| {}), Ok(progress.clone()));
        let options = fresh(|p| p.options = "two".into()).unwrap_err();
        assert!(
            options.contains("other contents, addresses or labels"),
            "{options}"
        );
        let target = fresh(|p| p.target = "ussd.inbound".into()).unwrap_err();
        assert!(
            target.contains("is the progress of --count 3 into sms.inbound"),
            "{target}"
        );
        // What an earlier version wrote.
        let old = r#"{"target":"sms.inbound","input":["--count 3"],"run":"run","confirmed":2}"#;
        std::fs::write(&path, old).unwrap();
        assert_eq!(fresh(|_| {}).unwrap().confirmed, 2);
    }
}
