//! The reference pages (`docs/reference`), made from the types: an index, one page per worker type, the shared settings,
//! codes, reasons of statuses and metrics. What `api` cannot know (those of the runtime, examples) is handed in.

mod header;
mod lists;
mod page;
mod text;

pub(crate) use header::Header;

use crate::crds::spec_schema;
use crate::resource::{Kind, WorkerType};
use crate::shared::OrderingMode;
use lists::{codes_page, conditions_page, metrics_page, reasons_page, settings_page};
use page::type_page;
use std::fmt::Write;
use text::cell;

/// One registered code of an error or a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeText {
    /// Dotted name.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What to do; empty if the meaning says it.
    pub fix: &'static str,
    /// Who must act; empty if that depends on the message, or nobody needs to.
    pub who: &'static str,
}

/// One reason of a component's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonText {
    /// Components that report it.
    pub component: &'static str,
    /// What it is called and means.
    pub text: CodeText,
}

/// The codes of findings, as [`CodeText`].
pub fn finding_codes() -> impl Iterator<Item = CodeText> {
    crate::manifest::CODES
        .iter()
        .map(|(name, meaning)| CodeText {
            name,
            meaning,
            fix: "",
            who: "",
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
    /// Reasons of components' statuses; without any, there is no page of them.
    pub reasons: Vec<ReasonText>,
    /// Types of conditions, which stand nowhere, and their reasons, with the types where each stands; without any, there is no
    /// page of them.
    pub conditions: Vec<ReasonText>,
    /// Metrics; without any, there is no page of metrics.
    pub metrics: Vec<MetricText>,
    /// Worker type → how repeats of the peer's deliveries are recognised, as a sentence.
    pub repeats: Vec<(String, String)>,
    /// Example manifests as path below `examples` and text, such as `transports/telnet/minimal.yaml`.
    pub examples: Vec<(String, String)>,
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
    if !facts.reasons.is_empty() {
        pages.push(("status.md".to_owned(), reasons_page(&facts.reasons)));
    }
    if !facts.conditions.is_empty() {
        let page = conditions_page(&facts.conditions);
        pages.push(("conditions.md".to_owned(), page));
    }
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
    if !facts.reasons.is_empty() {
        text.push_str("* [Status: components and reasons](status.md)\n");
    }
    if !facts.conditions.is_empty() {
        text.push_str("* [Conditions and their reasons](conditions.md)\n");
    }
    if !facts.metrics.is_empty() {
        text.push_str("* [Metrics](metrics.md)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::header::code_names;
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
                who: "",
            });
        Facts {
            codes: codes.collect(),
            reasons: vec![ReasonText {
                component: "broker",
                text: CodeText {
                    name: "blocked",
                    meaning: "It takes nothing.",
                    fix: "Free disk.",
                    who: "operator",
                },
            }],
            conditions: vec![
                ReasonText {
                    component: "",
                    text: CodeText {
                        name: "Ready",
                        meaning: "It works.",
                        fix: "",
                        who: "",
                    },
                },
                ReasonText {
                    component: "Ready",
                    text: CodeText {
                        name: "Running",
                        meaning: "Pods run.",
                        fix: "",
                        who: "",
                    },
                },
            ],
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
        let (_, text) = pages.iter().find(|(n, _)| n == "conditions.md").unwrap();
        assert!(text.contains("| `Ready` | It works. |"));
        assert!(text.contains("| `Running` | Ready | Pods run. |"));
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
}
