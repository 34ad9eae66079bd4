//! Collects the findings of one file, in the order of their places.

use super::finding::{Finding, Severity};
use super::tree::Place;

/// The findings of one file.
pub(super) struct Report<'f> {
    pub file: &'f str,
    pub findings: Vec<Finding>,
}

impl<'f> Report<'f> {
    /// An empty report about `file`.
    pub fn new(file: &'f str) -> Self {
        Self {
            file,
            findings: Vec::new(),
        }
    }

    /// Adds an error.
    pub fn error(
        &mut self,
        code: &'static str,
        place: Place,
        path: impl Into<String>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Error, code, place, path, message, help);
    }

    /// Adds a warning.
    pub fn warning(
        &mut self,
        code: &'static str,
        place: Place,
        path: impl Into<String>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(Severity::Warning, code, place, path, message, help);
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: Place,
        path: impl Into<String>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.findings.push(Finding {
            severity,
            code,
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: path.into(),
            message: message.into(),
            help,
        });
    }

    /// How many errors there are so far.
    pub fn errors(&self) -> usize {
        self.findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
            .count()
    }
}
