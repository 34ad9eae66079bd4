//! Error tables of providers (R11): what each of a provider's codes means, whose matter it is and who must act. A table is
//! a YAML file beside its transport, so that whoever has the provider's document can correct it without reading Rust.

use super::Refusal;
use crate::codes;
use crate::error::{Classify, ErrorClass};
use crate::message::{Actor, FailureClass};
use serde::Deserialize;

pub use vumi_api::shared::ProviderCode;

/// The table of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorTable {
    /// Where the codes are from: document and version.
    pub source: String,
    /// What each means, in the order of the file.
    pub codes: Vec<ProviderCode>,
}

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It is not YAML, or not of this shape.
    #[error("the error table cannot be read: {0}")]
    Unreadable(String),
    /// It says something that it may not say.
    #[error("the error table: {0}")]
    Wrong(String),
}

impl Classify for TableError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Bug
    }

    fn code(&self) -> codes::Code {
        codes::ERROR_TABLE
    }
}

impl ErrorTable {
    /// Reads a table.
    ///
    /// # Errors
    /// What is wrong with it, with the code where it is wrong.
    pub fn parse(yaml: &str) -> Result<Self, TableError> {
        let table: Self = serde_yaml::from_str(yaml)
            .map_err(|error| TableError::Unreadable(error.to_string()))?;
        table.check().map(|()| table)
    }

    fn check(&self) -> Result<(), TableError> {
        let wrong = |text: String| Err(TableError::Wrong(text));
        if self.source.trim().is_empty() || self.codes.is_empty() {
            return wrong("it needs a source and at least one code".into());
        }
        if let Some((n, field, problem)) = ProviderCode::check(&self.codes).into_iter().next() {
            return wrong(format!("{field} of code {}: {problem}", self.codes[n].code));
        }
        Ok(())
    }

    /// Whether it says what a code means.
    pub fn knows(&self, code: &str) -> bool {
        self.codes.iter().any(|known| known.code == code)
    }

    /// The refusal that a code means. One that is not in the table is a failure of the provider, and keeps its code.
    pub fn refusal(&self, code: &str) -> Refusal {
        match self.codes.iter().find(|known| known.code == code) {
            Some(known) => known.into(),
            None => Refusal::new(
                FailureClass::Provider,
                codes::PEER_REFUSED,
                "The provider refused it with a code that is not in its table.",
                Actor::Provider,
            )
            .with_provider_code(code),
        }
    }
}

impl From<&ProviderCode> for Refusal {
    fn from(known: &ProviderCode) -> Self {
        let text = known.text.as_str();
        Refusal::new(known.class, codes::PEER_REFUSED, text, known.who)
            .with_provider_code(&known.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
source: Guide to the API, version 3
codes:
  - {code: "0x0b", class: recipient, who: nobody, text: The number does not exist.}
  - {code: "007", class: credit, who: operator, text: The account has no credit left.}
"#;

    #[test]
    fn a_code_becomes_a_fate_with_class_sentence_and_who_must_act() {
        let table = ErrorTable::parse(GOOD).unwrap();
        let fate = table.refusal("007").fate(3);
        assert_eq!(
            (fate.class.as_str(), fate.code.as_str(), fate.who.as_str()),
            ("credit", "007", "operator")
        );
        assert_eq!(fate.text, "The account has no credit left.");
        let unknown = table.refusal("99").fate(1);
        assert_eq!(
            (unknown.class.as_str(), unknown.code.as_str()),
            ("provider", "99"),
            "the raw code is kept"
        );
    }

    #[test]
    fn codes_without_quotes_stay_as_they_are_written() {
        let bare = ErrorTable::parse(&GOOD.replace('"', "")).unwrap();
        assert_eq!(bare, ErrorTable::parse(GOOD).unwrap());
    }

    #[test]
    fn a_wrong_table_is_refused_and_says_where() {
        let refused = |from: &str, to: &str| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            ErrorTable::parse(&text).unwrap_err().to_string()
        };
        let twice = refused("007", "0x0b");
        assert!(twice.contains("0x0b stands there twice"), "{twice}");
        assert!(refused("credit,", "money,").contains("money"));
        assert!(refused("who: operator", "who: somebody").contains("somebody"));
        assert!(refused("credit left.", "credit left").contains("code 007"));
        assert!(refused("007", "0 7").contains("without spaces"));
        assert!(refused("source: Guide", "soruce: Guide").contains("soruce"));
        assert!(ErrorTable::parse("source: x\ncodes: []").is_err());
    }
}
