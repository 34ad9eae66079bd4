//! What became of tests: for people and for build servers.

use super::file::{Test, TestFile};
use crate::error::CliError;
use crate::junit::{End, Entry};
use std::path::PathBuf;
use std::time::Duration;

/// A test that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its file.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// Why it did not pass.
    pub outcome: Result<(), CliError>,
}

impl Ended {
    pub(super) fn new(
        file: &TestFile,
        test: &Test,
        took: Duration,
        outcome: Result<(), CliError>,
    ) -> Self {
        Self {
            file: file.path.clone(),
            name: test.name.clone(),
            took,
            outcome,
        }
    }

    /// The line, and lines, about it.
    pub fn shown(&self) -> String {
        let millis = self.took.as_millis();
        let place = format!("{}: {}", self.file.display(), self.name);
        match &self.outcome {
            Ok(()) => format!("ok    {place} ({millis} ms)\n"),
            Err(error) => {
                let lines: String = error.text.lines().map(|l| format!("      {l}\n")).collect();
                let end = if could_not_run(error) {
                    "ERROR"
                } else {
                    "FAIL "
                };
                format!("{end} {place} ({millis} ms)\n{lines}")
            }
        }
    }
}

/// What is written in the test or in its manifests is not valid, or this machine lacks something; nothing was found out.
fn could_not_run(error: &CliError) -> bool {
    error.code != CliError::RUNTIME
}

/// The last line.
pub fn summary(ended: &[Ended]) -> String {
    let not_passed = || ended.iter().filter_map(|test| test.outcome.as_ref().err());
    let broken = not_passed().filter(|error| could_not_run(error)).count();
    let failed = not_passed().count() - broken;
    let passed = ended.len() - failed - broken;
    let could_not_run = match broken {
        0 => String::new(),
        some => format!(", {some} could not run"),
    };
    let took: Duration = ended.iter().map(|test| test.took).sum();
    format!(
        "{passed} passed, {failed} failed{could_not_run} ({} ms)\n",
        took.as_millis()
    )
}

/// JUnit XML: a suite for each file.
///
/// # Errors
/// See [`crate::junit::document`].
pub fn junit(ended: &[Ended]) -> std::io::Result<Vec<u8>> {
    let entries = ended.iter().map(|test| Entry {
        suite: test.file.display().to_string(),
        name: test.name.clone(),
        took: test.took,
        end: match &test.outcome {
            Ok(()) => End::Passed,
            Err(error) if could_not_run(error) => End::Broken(error.text.clone()),
            Err(error) => End::Failed(error.text.clone()),
        },
    });
    crate::junit::document(&entries.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_failed_says_where_and_why() {
        let test = |name: &str, outcome| Ended {
            file: "a/tests/x.yaml".into(),
            name: name.into(),
            took: Duration::from_millis(12),
            outcome,
        };
        let ended = [
            test("one & two", Ok(())),
            test("three", Err(CliError::runtime("step 1:\n  no"))),
            test(
                "four",
                Err(CliError::validation("step 1: no such connector")),
            ),
        ];
        assert_eq!(summary(&ended[..2]), "1 passed, 1 failed (24 ms)\n");
        assert_eq!(
            summary(&ended),
            "1 passed, 1 failed, 1 could not run (36 ms)\n"
        );
        assert!(
            ended[1]
                .shown()
                .starts_with("FAIL  a/tests/x.yaml: three (12 ms)\n      step 1:\n")
        );
        assert!(ended[2].shown().starts_with("ERROR a/tests/x.yaml: four"));
        let xml = String::from_utf8(junit(&ended).unwrap()).unwrap();
        for part in [
            "failures=\"1\" errors=\"1\"",
            "<failure message=\"step 1:\">",
            "<error message=\"step 1: no such connector\">",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
    }
}
