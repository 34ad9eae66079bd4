//! `vumi explain WORD`: a kind, a worker type, a field or a code in words for the command line.

use crate::crds::spec_schema;
use crate::docs::{CodeText, Header, ordering_text};
use crate::fields::{Field, fields};
use crate::names::{listed, nearest};
use crate::resource::{Kind, WorkerType};
use std::collections::BTreeSet;

/// A word that means nothing here, and the nearest one that does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The word.
    pub word: String,
    /// What may have been meant.
    pub nearest: Option<String>,
}

impl std::fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nothing is called {:?} here; ", self.word)?;
        match &self.nearest {
            Some(name) => write!(f, "did you mean {name}?"),
            None => f.write_str(
                "give a worker type (telnet), a field (telnet.port, spec.ordering), a code (route.none) or a reason of a status (slowed_down)",
            ),
        }
    }
}

impl std::error::Error for UnknownWord {}

/// Explains a kind (`Transport`), a worker type (`telnet`), a field (`telnet.port`, `spec.ordering`, `maxBody`) or one
/// of `codes`.
pub fn explain(word: &str, codes: &[CodeText]) -> Result<String, UnknownWord> {
    let word = word.trim();
    if let Some(code) = codes.iter().find(|code| code.name == word) {
        return Ok(code_page(code));
    }
    if let Some(kind) = Kind::ALL
        .into_iter()
        .find(|kind| word.eq_ignore_ascii_case(kind.as_str()) || word == kind.plural())
    {
        return Ok(kind_page(kind));
    }
    // `transport.spec.telnet.port`, as `kubectl explain` writes it, is `telnet.port` of kind Transport.
    let (only, path) = match word.split_once('.') {
        Some((first, rest)) => match Kind::ALL
            .into_iter()
            .find(|kind| first.eq_ignore_ascii_case(kind.as_str()) || first == kind.plural())
        {
            Some(kind) => (Some(kind), rest),
            None => (None, word),
        },
        None => (None, word),
    };
    let path = path.strip_prefix("spec.").unwrap_or(path);
    if let Some(worker) = WorkerType::find(path) {
        return Ok(type_page(worker));
    }
    let known = known_fields();
    let asked = general(path);
    let exact: Vec<&Known> = known
        .iter()
        .filter(|k| only.is_none_or(|kind| kind == k.kind) && general(&k.field.path) == asked)
        .collect();
    let found = match exact.is_empty() {
        false => exact,
        // A bare name such as `maxBody`: every field that is called so.
        true => known
            .iter()
            .filter(|k| {
                only.is_none_or(|kind| kind == k.kind)
                    && general(&k.field.path).ends_with(&format!(".{asked}"))
            })
            .collect(),
    };
    if !found.is_empty() {
        return Ok(field_pages(&found, &known));
    }
    let candidates: BTreeSet<&str> = codes
        .iter()
        .map(|code| code.name)
        .chain(Kind::ALL.map(Kind::as_str))
        .chain(WorkerType::all().map(|worker| worker.key))
        .chain(known.iter().map(|k| k.field.path.as_str()))
        .collect();
    let last_names: BTreeSet<&str> = known.iter().map(|k| last(&k.field.path)).collect();
    Err(UnknownWord {
        word: word.to_owned(),
        nearest: nearest(path, candidates)
            .or_else(|| nearest(path, last_names))
            .map(str::to_owned),
    })
}

/// A field of a kind.
struct Known {
    kind: Kind,
    field: Field,
}

fn known_fields() -> Vec<Known> {
    Kind::ALL
        .into_iter()
        .flat_map(|kind| {
            fields(spec_schema(kind), "")
                .into_iter()
                .map(move |field| Known { kind, field })
        })
        .collect()
}

/// A path without indexes and wildcards: `middleware[0].name` and `middleware[].name` are one field.
fn general(path: &str) -> String {
    path.split('.')
        .filter(|part| *part != "*")
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect::<Vec<_>>()
        .join(".")
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn code_page(code: &CodeText) -> String {
    let mut text = format!("{}\n\n{}\n", code.name, plain(code.meaning));
    if !code.fix.is_empty() {
        text.push_str(&format!("What to do: {}\n", plain(code.fix)));
    }
    if !code.who.is_empty() {
        text.push_str(&format!("Who must act: {}\n", code.who));
    }
    text
}

fn kind_page(kind: Kind) -> String {
    let about = spec_schema(kind)["description"]
        .as_str()
        .unwrap_or_default();
    let mut text = format!("{kind}\n\n{}\n", plain(about));
    if kind.worker_types().is_empty() {
        return text;
    }
    text.push_str("\nWorker types (exactly one per resource):\n");
    for worker in kind.worker_types() {
        let about = spec_schema(kind)["properties"][worker.key]["description"]
            .as_str()
            .unwrap_or_default();
        text.push_str(&format!("  {}: {}\n", worker.key, plain(about)));
    }
    text.push_str("\nSettings beside the type:\n");
    for (name, schema) in spec_schema(kind)["properties"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if kind.worker_types().iter().all(|worker| worker.key != name) {
            let about = schema["description"].as_str().unwrap_or_default();
            text.push_str(&format!("  {name}: {}\n", first_paragraph(about)));
        }
    }
    text
}

fn type_page(worker: &WorkerType) -> String {
    let header = Header::of(worker.source);
    let mut text = format!("{} ({})\n", worker.key, worker.kind);
    for (title, body) in &header.sections {
        text.push_str(&format!("\n{title}: {}\n", plain(body)));
    }
    text.push_str(&format!("\nOrder: {}\n", plain(ordering_text(worker))));
    let own = fields(
        &spec_schema(worker.kind)["properties"][worker.key],
        worker.key,
    );
    let own: Vec<&Field> = own.iter().filter(|f| f.path != worker.key).collect();
    if own.is_empty() {
        text.push_str(&format!(
            "\nIt has no settings of its own: write `{}: {{}}`\n",
            worker.key
        ));
    } else {
        text.push_str("\nFields:\n");
        own.iter()
            .for_each(|field| text.push_str(&field_line(field)));
    }
    text
}

fn field_line(field: &Field) -> String {
    let need = match (field.required, field.default.as_str()) {
        (true, _) => ", required".to_owned(),
        (false, "") => String::new(),
        (false, default) => format!(", default {default}"),
    };
    format!(
        "  {} ({}{}): {}\n",
        field.path,
        field.kind,
        plain(&need),
        first_paragraph(&field.text)
    )
}

fn field_pages(found: &[&Known], known: &[Known]) -> String {
    // The same field of several kinds, word by word, is one field.
    let mut groups: Vec<(Vec<Kind>, &Field)> = Vec::new();
    for k in found {
        match groups.iter_mut().find(|(_, field)| **field == k.field) {
            Some((kinds, _)) => kinds.push(k.kind),
            None => groups.push((vec![k.kind], &k.field)),
        }
    }
    let pages: Vec<String> = groups
        .iter()
        .map(|(kinds, field)| field_page(kinds, field, known))
        .collect();
    pages.join("\n")
}

fn field_page(kinds: &[Kind], field: &Field, known: &[Known]) -> String {
    let names = listed(kinds.iter().map(|kind| kind.as_str()));
    let mut text = format!("spec.{} ({names})\n\n", field.path);
    text.push_str(&format!("{}\n\nType: {}\n", plain(&field.text), field.kind));
    if field.required {
        text.push_str("Required\n");
    } else if !field.default.is_empty() {
        text.push_str(&format!("Default: {}\n", plain(&field.default)));
    }
    if !field.limits.is_empty() {
        text.push_str("Limits:\n");
    }
    for limit in &field.limits {
        text.push_str(&format!("  {}\n", plain(limit)));
    }
    let below: Vec<&Field> = known
        .iter()
        .filter(|k| k.kind == kinds[0])
        .map(|k| &k.field)
        .filter(|f| {
            f.path
                .strip_prefix(&field.path)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        })
        .collect();
    if !below.is_empty() {
        text.push_str("\nFields:\n");
        below
            .iter()
            .for_each(|field| text.push_str(&field_line(field)));
    }
    text
}

fn first_paragraph(text: &str) -> String {
    plain(text.split("\n\n").next().unwrap_or(text))
}

/// Text without the marks of Markdown, for a terminal.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: &[CodeText] = &[CodeText {
        name: "route.none",
        meaning: "No route for this message.",
        fix: "Add the missing row.",
        who: "operator",
    }];

    fn says(word: &str, expected: &[&str]) {
        let text = explain(word, CODES).unwrap_or_else(|e| panic!("{e}"));
        for part in expected {
            assert!(text.contains(part), "{word}: {part:?} is not in\n{text}");
        }
    }

    #[test]
    fn explains_types_kinds_fields_and_codes() {
        says(
            "telnet",
            &[
                "telnet (Transport)",
                "What it is",
                "telnet.port",
                "required",
            ],
        );
        says("echo", &["echo: {}"]);
        says("Transport", &["httpApi", "transportName"]);
        says("dispatchers", &["routingTable"]);
        says(
            "telnet.port",
            &["spec.telnet.port", "1024 to 65535", "9464"],
        );
        says(
            "transport.spec.telnet.port",
            &["spec.telnet.port (Transport)"],
        );
        says("http.maxBody", &["Default: 1Mi", "Type: size"]);
        says("maxBody", &["spec.http.maxBody"]);
        says(
            "spec.ordering",
            &["Transport, Application and Dispatcher", "ordering.mode"],
        );
        says("middleware[0].logging.level", &["one of debug, info, warn"]);
        says(
            "route.none",
            &["No route", "Add the missing row.", "Who must act: operator"],
        );
    }

    #[test]
    fn a_setting_that_differs_by_kind_is_shown_for_each() {
        let text = explain("transportName", CODES).unwrap();
        assert!(text.contains("(Transport)") && text.contains("(Application)"));
    }

    #[test]
    fn a_miss_names_the_nearest_word() {
        for (word, right) in [
            ("telnt", Some("telnet")),
            ("telnet.prot", Some("telnet.port")),
            ("route.non", Some("route.none")),
            ("maxbdy", Some("maxBody")),
            ("zzzzzz", None),
        ] {
            let error = explain(word, CODES).unwrap_err();
            assert_eq!(error.nearest.as_deref(), right, "{word}");
        }
        let error = explain("telnt", CODES).unwrap_err().to_string();
        assert_eq!(
            error,
            "nothing is called \"telnt\" here; did you mean telnet?"
        );
    }
}
