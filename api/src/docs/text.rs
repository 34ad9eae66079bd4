//! Pieces of Markdown: tables of fields, cells, anchors, sentences.
//! Pure text, used by every page.

use crate::fields::Field;
use std::fmt::Write;

pub(super) fn table(all: &[Field]) -> String {
    let mut text = String::from(
        "\n| Field | Type | Default | What it is | Must be |\n|---|---|---|---|---|\n",
    );
    for field in all {
        let default = match (field.required, field.default.as_str()) {
            (true, _) => "**required**",
            (false, default) => default,
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            field.path,
            field.kind,
            cell(default),
            cell(&field.text),
            cell(&field.limits.join("; ")),
        );
    }
    text
}

pub(super) fn rule_list(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("\n* {rule}\n")).collect()
}

/// The anchor that Markdown viewers give to a heading.
pub(super) fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        .collect()
}

/// A text inside a table.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace("\n\n", " ")
        .replace('\n', " ")
}

/// A text that begins with a capital letter.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
