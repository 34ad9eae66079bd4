//! The page of one worker type: its head, its own fields, the settings that it honours, examples and codes.
//! An error names what is missing for it.

use super::header::{Header, code_names};
use super::text::{anchor, cell, rule_list, sentence, table};
use super::{CodeText, Facts, ordering_text};
use crate::crds::{of_our_own, only_for, spec_schema};
use crate::fields::{Field, fields, rules};
use crate::resource::WorkerType;
use std::fmt::Write;

pub(super) fn type_page(
    worker: &WorkerType,
    facts: &Facts,
    codes: &[CodeText],
) -> Result<String, String> {
    let key = worker.key;
    let header = Header::of(worker.source);
    let mut text = format!("# {key}\n\nWorker type of kind `{}`.\n", worker.kind);
    let what = header.get("What it is").unwrap_or_default();
    let _ = write!(text, "\n{}\n", sentence(what));
    for (title, body) in &header.sections {
        if !["What it is", "Codes"].contains(&title.as_str()) {
            let _ = write!(text, "\n**{title}:** {body}\n");
        }
    }
    let _ = write!(text, "\n**Order:** {}.\n", ordering_text(worker));
    let repeats = facts
        .repeats
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, sentence)| sentence)
        .ok_or_else(|| format!("{key} is not registered: add it to its family's table"))?;
    let _ = write!(text, "\n**Repeats:** {}\n", sentence(repeats));

    if !header.more.is_empty() {
        let _ = write!(text, "\n{}\n", header.more);
    }

    text.push_str("\n## Fields\n");
    let spec = spec_schema(worker.kind);
    let own: Vec<Field> = fields(&spec["properties"][key], key)
        .into_iter()
        .filter(|field| field.path != key)
        .collect();
    match own.is_empty() {
        true => {
            let _ = write!(
                text,
                "\nIt has none: write `{key}: {{}}` in a resource's `spec`.\n"
            );
        }
        false => text.push_str(&table(&own)),
    }
    text.push_str(&rule_list(&rules(&spec["properties"][key])));

    text.push_str("\n## Settings beside it\n\n");
    let types: Vec<&str> = worker.kind.worker_types().iter().map(|w| w.key).collect();
    let links: Vec<String> = spec["properties"]
        .as_object()
        .into_iter()
        .flat_map(|properties| properties.keys())
        .map(String::as_str)
        .filter(|name| !types.contains(name) && honours(worker, name))
        .map(|name| format!("[{name}](../settings.md#{})", name.to_lowercase()))
        .collect();
    let _ = writeln!(text, "{}", links.join(", "));

    text.push_str("\n## Examples\n");
    for (file, title) in [("minimal", "The least"), ("full", "Every field")] {
        let path = format!("{}/{key}/{file}.yaml", worker.kind.plural());
        let example = facts
            .examples
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| text.trim_end())
            .ok_or_else(|| format!("examples/{path} is missing: every worker type has one"))?;
        let _ = write!(text, "\n{title}:\n\n```yaml\n{example}\n```\n");
    }

    let named = code_names(&header);
    if !named.is_empty() {
        text.push_str("\n## Codes\n\n| Code | Meaning |\n|---|---|\n");
        for name in named {
            let code = codes
                .iter()
                .find(|code| code.name == name.as_str())
                .ok_or_else(|| {
                    format!(
                        "the head of {key}'s config module names code {name}, which does not exist"
                    )
                })?;
            let _ = writeln!(
                text,
                "| [{name}](../codes.md#{}) | {} |",
                anchor(&name),
                cell(code.meaning)
            );
        }
    }
    Ok(text)
}

/// Whether a worker type honours a setting of its kind.
fn honours(worker: &WorkerType, setting: &str) -> bool {
    if worker.container && of_our_own(worker.kind, spec_schema(worker.kind)).contains(&setting) {
        return false;
    }
    only_for(worker.kind)
        .iter()
        .filter(|(name, _)| *name == setting)
        .all(|(_, types)| types.contains(&worker.key))
}
