//! The name of a new worker type in its spellings, and which names cannot be.

use crate::error::CliError;
use vumi_api::crds::{CEL_WORDS, RESERVED_SETTINGS};

/// Words that Rust keeps for itself; a module cannot be called so.
const RUST_WORDS: &[&str] = &[
    "abstract", "async", "await", "become", "box", "crate", "do", "dyn", "enum", "extern", "final",
    "fn", "gen", "impl", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "self", "static", "struct", "super", "trait", "try", "type", "typeof", "unsafe",
    "unsized", "use", "virtual", "where", "yield",
];

/// Names that the modules around a new type use for something else.
const USED_WORDS: &[&str] = &[
    "arc",
    "debug",
    "default",
    "deserialize",
    "duration",
    "err",
    "jsonSchema",
    "kind",
    "listenPort",
    "none",
    "ok",
    "option",
    "orderingMode",
    "resource",
    "result",
    "serialize",
    "some",
    "string",
    "tests",
    "topology",
    "vec",
    "workerConfig",
];

/// One name in three spellings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Key in manifests: `acmeSms`.
    pub camel: String,
    /// Rust type: `AcmeSms`.
    pub pascal: String,
    /// Module and field: `acme_sms`.
    pub module: String,
}

impl Names {
    /// The spellings of `name`, if a worker type may be called so.
    pub fn check(name: &str) -> Result<Self, CliError> {
        let refuse = |why: String| Err(CliError::validation(format!("{name:?} {why}")));
        let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric())
            && (2..=30).contains(&name.len());
        let upper = |c: &char| c.is_ascii_uppercase();
        let runs = name
            .chars()
            .zip(name.chars().skip(1))
            .any(|(a, b)| upper(&a) && upper(&b));
        if !shaped || runs {
            return refuse(format!(
                "is not a name for a worker type; write it in camelCase, 2 to 30 letters and digits, for example {}",
                suggestion(name)
            ));
        }
        if RESERVED_SETTINGS.contains(&name) {
            return refuse(
                "is the name of a setting that stands beside worker types; choose another name"
                    .into(),
            );
        }
        if CEL_WORDS.contains(&name) || RUST_WORDS.contains(&name) || USED_WORDS.contains(&name) {
            return refuse("is a word of the languages it is used in; choose another name".into());
        }
        let mut module = String::new();
        for c in name.chars() {
            if upper(&c) {
                module.push('_');
            }
            module.push(c.to_ascii_lowercase());
        }
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        Ok(Self {
            camel: name.to_owned(),
            pascal: first.into_iter().chain(letters).collect(),
            module,
        })
    }

    /// A template with the names put in. `{{name}}` is the name of an example resource.
    pub fn fill(&self, template: &str) -> String {
        template
            .replace("{{type}}", &self.camel)
            .replace("{{Type}}", &self.pascal)
            .replace("{{module}}", &self.module)
            .replace("{{name}}", &self.module.replace('_', "-"))
    }
}

/// A name in camelCase that is near to `name`.
fn suggestion(name: &str) -> String {
    let mut camel = String::new();
    let mut raise = false;
    let mut before = false;
    for c in name.chars().take(30) {
        if !c.is_ascii_alphanumeric() {
            raise = !camel.is_empty();
            before = false;
            continue;
        }
        if camel.is_empty() && c.is_ascii_digit() {
            continue;
        }
        let upper = !camel.is_empty() && (raise || c.is_ascii_uppercase() && !before);
        before = c.is_ascii_uppercase();
        raise = false;
        camel.push(if upper {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        });
    }
    if camel.len() < 2 {
        "acmeSms".into()
    } else {
        camel
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let names = Names::check("acmeSms2Go").unwrap();
        assert_eq!(
            (names.pascal.as_str(), names.module.as_str()),
            ("AcmeSms2Go", "acme_sms2_go")
        );
        assert_eq!(
            names.fill("{{type}} {{Type}} {{module}} {{name}}"),
            "acmeSms2Go AcmeSms2Go acme_sms2_go acme-sms2-go"
        );
    }

    #[test]
    fn names_that_cannot_be_say_why_and_what_instead() {
        for (name, says) in [
            ("AcmeSms", "for example acmeSms"),
            ("acme_sms", "for example acmeSms"),
            ("acme-sms", "for example acmeSms"),
            ("acmeSMS", "for example acmeSms"),
            ("9mobile", "for example mobile"),
            ("a", "for example acmeSms"),
            ("", "for example acmeSms"),
            ("../x", "camelCase"),
            ("http", "setting"),
            ("rateLimit", "setting"),
            ("match", "word of the languages"),
            ("in", "word of the languages"),
            ("option", "word of the languages"),
        ] {
            let error = Names::check(name).unwrap_err();
            assert_eq!(error.code, CliError::VALIDATION);
            assert!(error.text.contains(says), "{name}: {error}");
        }
    }
}
