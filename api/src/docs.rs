//! The reference pages (`docs/reference`), made from the types: an index, one page per worker type, the shared settings,
//! codes and metrics. What `api` cannot know (codes and metrics of the runtime, examples) is handed in.

use crate::crds::{only_for, spec_schema};
use crate::fields::{Field, fields, rules};
use crate::names::listed;
use crate::resource::{Kind, WorkerType};
use crate::shared::OrderingMode;
use std::fmt::Write;

/// One registered code of an error or a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeText {
    /// Dotted name.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What to do; empty if the meaning says it.
    pub fix: &'static str,
}

/// The codes of findings, as [`CodeText`].
pub fn finding_codes() -> impl Iterator<Item = CodeText> {
    crate::manifest::CODES
        .iter()
        .map(|(name, meaning)| CodeText {
            name,
            meaning,
            fix: "",
        })
}

/// One metric of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricText {
    /// Name as Prometheus sees it.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Label keys.
    pub labels: Vec<String>,
    /// What it counts, with its unit.
    pub meaning: String,
}

/// What the pages need and the contract does not know.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Codes of errors; those of findings are added.
    pub codes: Vec<CodeText>,
    /// Metrics; without any, there is no page of metrics.
    pub metrics: Vec<MetricText>,
    /// Worker type → how repeats of the peer's deliveries are recognised, as a sentence.
    pub repeats: Vec<(String, String)>,
    /// Example manifests as path below `examples` and text, such as `transports/telnet/minimal.yaml`.
    pub examples: Vec<(String, String)>,
}

/// The `//!` lines of a config module: paragraphs with a title, and after them, from the first heading on, Markdown.
pub(crate) struct Header {
    /// Title and text, in order.
    pub sections: Vec<(String, String)>,
    /// The Markdown, as it is; empty if there is none.
    pub more: String,
}

impl Header {
    /// Reads the head of a source file.
    pub fn of(source: &str) -> Self {
        let lines: Vec<&str> = source
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
            .collect();
        let heading = lines.iter().position(|line| line.starts_with("## "));
        let (paragraphs, more) = lines.split_at(heading.unwrap_or(lines.len()));
        let sections = paragraphs
            .split(|line| line.is_empty())
            .map(|paragraph| paragraph.join(" "))
            .filter_map(|paragraph| {
                let (title, text) = paragraph.split_once(": ")?;
                Some((title.to_owned(), text.to_owned()))
            })
            .collect();
        Self {
            sections,
            more: more.join("\n"),
        }
    }

    /// The text under a title.
    pub fn get(&self, title: &str) -> Option<&str> {
        let section = self.sections.iter().find(|(name, _)| name == title);
        section.map(|(_, text)| text.as_str())
    }
}

/// What a worker type keeps in order when the manifest does not say.
pub(crate) fn ordering_text(worker: &WorkerType) -> &'static str {
    match worker.ordering {
        OrderingMode::PerUser => {
            "`perUser` by default: one user's messages one after the other, users in parallel; one replica consumes, the others stand by"
        }
        OrderingMode::PerQueue => {
            "`perQueue` by default: the whole queue one after the other; one replica consumes, the others stand by"
        }
        OrderingMode::None => "`none` by default: replicas compete for messages",
    }
}

/// First line of every generated page.
pub const MARK: &str =
    "<!-- Generated from the types in `api`; do not edit. Regenerate: make docs -->";

/// All pages as path below `docs/reference` and text. An error names what is missing for them.
pub fn pages(facts: &Facts) -> Result<Vec<(String, String)>, String> {
    let mut codes: Vec<CodeText> = facts.codes.clone();
    codes.extend(finding_codes());
    let mut pages = vec![
        ("README.md".to_owned(), index(facts)),
        ("settings.md".to_owned(), settings_page()),
        ("codes.md".to_owned(), codes_page(&codes)),
    ];
    if !facts.metrics.is_empty() {
        pages.push(("metrics.md".to_owned(), metrics_page(&facts.metrics)));
    }
    for worker in WorkerType::all() {
        let path = format!("{}/{}.md", worker.kind.plural(), worker.key);
        pages.push((path, type_page(worker, facts, &codes)?));
    }
    Ok(pages
        .into_iter()
        .map(|(path, text)| (path, format!("{MARK}\n\n{}\n", text.trim_end())))
        .collect())
}

fn about(worker: &WorkerType) -> &'static str {
    let schema = &spec_schema(worker.kind)["properties"][worker.key];
    schema["description"].as_str().unwrap_or_default()
}

fn index(facts: &Facts) -> String {
    let mut text = String::from(
        "# Reference\n\nA worker is a manifest of one of four kinds (`vumi.dev/v1alpha1`). Its `spec` holds exactly one worker type, \
         whose name is the key, and beside it the [settings](settings.md) that types share. \
         `vumi explain WORD` prints the same on the command line.\n",
    );
    for kind in Kind::ALL {
        let description = spec_schema(kind)["description"]
            .as_str()
            .unwrap_or_default();
        let _ = write!(text, "\n## {kind}\n\n{description}\n");
        if kind.worker_types().is_empty() {
            continue;
        }
        text.push_str("\n| Type | What it is | Order |\n|---|---|---|\n");
        for worker in kind.worker_types() {
            let mode = ordering_text(worker).split(' ').next().unwrap_or_default();
            let _ = writeln!(
                text,
                "| [{key}]({folder}/{key}.md) | {about} | {mode} |",
                key = worker.key,
                folder = kind.plural(),
                about = cell(about(worker)),
            );
        }
    }
    text.push_str("\n## More\n\n* [Shared settings](settings.md)\n* [Codes of errors and findings](codes.md)\n");
    if !facts.metrics.is_empty() {
        text.push_str("* [Metrics](metrics.md)\n");
    }
    text
}

fn type_page(worker: &WorkerType, facts: &Facts, codes: &[CodeText]) -> Result<String, String> {
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
    only_for(worker.kind)
        .iter()
        .filter(|(name, _)| *name == setting)
        .all(|(_, types)| types.contains(&worker.key))
}

/// Codes that a header lists: the words in back-quotes.
fn code_names(header: &Header) -> Vec<String> {
    let listed = header.get("Codes").unwrap_or_default();
    listed
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn settings_page() -> String {
    let mut text = String::from(
        "# Shared settings\n\nThey stand beside the worker type, directly under `spec`. A setting that a type does not honour is refused.\n",
    );
    let mut names: Vec<&str> = Vec::new();
    for kind in Kind::ALL {
        for name in spec_schema(kind)["properties"]
            .as_object()
            .into_iter()
            .flat_map(|properties| properties.keys())
        {
            let is_type = kind.worker_types().iter().any(|w| w.key == name);
            if !is_type && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    for name in names {
        // Kinds whose setting is the same word by word stand together.
        let mut groups: Vec<(Vec<Kind>, Vec<Field>)> = Vec::new();
        for kind in Kind::ALL {
            let spec = spec_schema(kind);
            let schema = &spec["properties"][name];
            if schema.is_null() {
                continue;
            }
            let mut all = fields(schema, name);
            let required = spec["required"].as_array().into_iter().flatten();
            all[0].required = required.into_iter().any(|r| r == name);
            match groups.iter_mut().find(|(_, held)| *held == all) {
                Some((kinds, _)) => kinds.push(kind),
                None => groups.push((vec![kind], all)),
            }
        }
        let _ = write!(text, "\n## {name}\n");
        for (kinds, all) in &groups {
            let of = listed(kinds.iter().map(|kind| kind.as_str()));
            let only: Vec<&str> = kinds
                .iter()
                .flat_map(|kind| only_for(*kind))
                .filter(|(setting, _)| *setting == name)
                .flat_map(|(_, types)| types)
                .collect();
            let types = match only.is_empty() {
                true => String::new(),
                false => format!(", types {}", only.join(", ")),
            };
            let _ = write!(text, "\nOf {of}{types}. {}\n", all[0].text);
            text.push_str(&table(all));
        }
    }
    text
}

fn table(all: &[Field]) -> String {
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

fn rule_list(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("\n* {rule}\n")).collect()
}

fn codes_page(codes: &[CodeText]) -> String {
    let mut text = String::from(
        "# Codes\n\nEvery error and finding has a code; it is in log lines, events, parked messages and metrics. \
         `vumi explain CODE` prints its entry.\n",
    );
    let mut group = "";
    for code in codes {
        let of = code.name.split('.').next().unwrap_or_default();
        if of != group {
            let _ = write!(text, "\n## {of}\n");
            group = of;
        }
        let _ = write!(text, "\n### {}\n\n{}\n", code.name, code.meaning);
        if !code.fix.is_empty() {
            let _ = write!(text, "\n*What to do:* {}\n", code.fix);
        }
    }
    text
}

fn metrics_page(metrics: &[MetricText]) -> String {
    let mut text = String::from(
        "# Metrics\n\nServed as Prometheus text on `/metrics`. The engine counts around every worker, so all types have the same set.\n\
         \n| Metric | Type | Labels | What it counts |\n|---|---|---|---|\n",
    );
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind,
            labels.join(", "),
            cell(&metric.meaning)
        );
    }
    text
}

/// The anchor that Markdown viewers give to a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
        .collect()
}

/// A text inside a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace("\n\n", " ")
        .replace('\n', " ")
}

/// A text that begins with a capital letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let names = WorkerType::all().map(|w| w.key.to_owned());
        let examples = WorkerType::all().flat_map(|w| {
            ["minimal", "full"].map(|file| {
                let path = format!("{}/{}/{file}.yaml", w.kind.plural(), w.key);
                (path, format!("kind: {}\n", w.kind))
            })
        });
        let codes = WorkerType::all()
            .flat_map(|w| code_names(&Header::of(w.source)))
            .map(|name| CodeText {
                name: name.leak(),
                meaning: "Something a|b.",
                fix: "Do something.",
            });
        Facts {
            codes: codes.collect(),
            metrics: vec![MetricText {
                name: "vumi_received_total".into(),
                kind: "counter".into(),
                labels: vec!["kind".into()],
                meaning: "Messages.".into(),
            }],
            repeats: names.map(|n| (n, "Not recognised.".to_owned())).collect(),
            examples: examples.collect(),
        }
    }

    #[test]
    fn every_type_has_a_page_with_all_its_parts() {
        let pages = pages(&facts()).unwrap();
        for worker in WorkerType::all() {
            let path = format!("{}/{}.md", worker.kind.plural(), worker.key);
            let (_, text) = pages.iter().find(|(name, _)| *name == path).unwrap();
            for part in [
                "## Fields",
                "## Settings beside it",
                "## Examples",
                "**Order:**",
            ] {
                assert!(text.contains(part), "{path} lacks {part}");
            }
            let index = &pages[0].1;
            assert!(
                index.contains(&format!("({path})")),
                "{path} is not in the index"
            );
        }
        let telnet = &pages
            .iter()
            .find(|(n, _)| n == "transports/telnet.md")
            .unwrap()
            .1;
        assert!(telnet.contains("| `telnet.port` | whole number | **required** |"));
        assert!(
            !telnet.contains("settings.md#http)"),
            "telnet does not honour http"
        );
        assert!(telnet.contains("Something a\\|b."));
    }

    #[test]
    fn links_lead_somewhere() {
        let pages = pages(&facts()).unwrap();
        let settings = &pages.iter().find(|(n, _)| n == "settings.md").unwrap().1;
        for (path, text) in &pages {
            for link in text
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next())
            {
                let (file, place) = link.split_once('#').unwrap_or((link, ""));
                let file = file.trim_start_matches("../");
                let target = pages.iter().find(|(name, _)| name == file);
                assert!(target.is_some(), "{path} links to {link}");
                if file == "settings.md" && !place.is_empty() {
                    let heading = settings
                        .lines()
                        .any(|l| l.to_lowercase() == format!("## {place}"));
                    assert!(heading, "{path} links to {link}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut incomplete = facts();
        incomplete
            .examples
            .retain(|(path, _)| !path.contains("telnet/full"));
        let error = pages(&incomplete).unwrap_err();
        assert!(
            error.contains("examples/transports/telnet/full.yaml"),
            "{error}"
        );
        let error = pages(&Facts::default()).unwrap_err();
        assert!(error.contains("not registered"), "{error}");
    }

    #[test]
    fn a_header_is_paragraphs_with_titles() {
        let header = Header::of(
            "//! What it is: a\n//! thing.\n//!\n//! Limits: none.\n//!\n//! ## Use\n//!\n//! ```console\n//!   $ a: b\n//! ```\n\nuse x;\n//! Not: this\n",
        );
        assert_eq!(header.get("What it is"), Some("a thing."));
        assert_eq!(header.sections.len(), 2);
        assert_eq!(header.more, "## Use\n\n```console\n  $ a: b\n```");
    }
}
