//! What a doctor tells: each finding with what to do about it.

use crate::error::CliError;
use crate::output::{self, Format};
use vumi_core::checkup::{Finding, Level};

/// Prints what was found.
///
/// # Errors
/// There is a problem among them.
pub fn tell(findings: &[Finding], format: Format) -> Result<(), CliError> {
    output::print(&match format {
        Format::Table => table(findings),
        Format::Json => format!("{}\n", serde_json::json!(findings)),
    })?;
    let mut findings = findings.iter();
    match findings.any(|finding| finding.level == Level::Problem) {
        true => Err(CliError::silent(CliError::RUNTIME)),
        false => Ok(()),
    }
}

/// A line for each, with what to do below it, and how many problems there are.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.level {
            Level::Good => "ok   ",
            Level::Note => "note ",
            Level::Warning => "WARN ",
            Level::Problem => "FAIL ",
        };
        text += &format!("{word} {}: {}\n", finding.about, finding.says);
        if !finding.fix.is_empty() {
            text += &format!("       {}\n", finding.fix);
        }
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let counted = |level, one: &str| match count(level) {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    };
    text + &format!(
        "{} looked at: {}, {}\n",
        findings.len(),
        counted(Level::Problem, "problem"),
        counted(Level::Warning, "warning")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_to_do() {
        let findings = [
            Finding::good("a", "is well"),
            Finding::new(Level::Problem, "b", "is not", "Mend it."),
        ];
        let text = table(&findings);
        assert!(
            text.starts_with("ok    a: is well\nFAIL  b: is not\n       Mend it.\n"),
            "{text}"
        );
        assert!(
            text.ends_with("2 looked at: 1 problem, 0 warnings\n"),
            "{text}"
        );
        assert_eq!(tell(&findings, Format::Json).unwrap_err().code, 1);
        assert!(tell(&findings[..1], Format::Json).is_ok());
    }
}
