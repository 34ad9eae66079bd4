//! The pages that list what all worker types share: settings, codes, metrics.
//! Settings that several kinds have word by word stand once.

use super::text::{cell, table};
use super::{CodeText, MetricText, ReasonText};
use crate::crds::{only_for, spec_schema};
use crate::fields::{Field, fields};
use crate::names::listed;
use crate::resource::Kind;
use std::fmt::Write;

pub(super) fn settings_page() -> String {
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

pub(super) fn codes_page(codes: &[CodeText]) -> String {
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

pub(super) fn reasons_page(reasons: &[ReasonText]) -> String {
    let mut text = String::from(
        "# Status: components and reasons\n\nA worker reports the health of its parts: component, level (`ok`, `degraded`, `down`), reason and a sentence. \
         They are in `vumi status --format json`, and on the broker as Vumi's status messages, where the reason is the `type`. \
         `vumi explain REASON` prints its entry. A component may have the name of a queue behind it.\n\
         \n| Component | Reason | What it means | What to do | Who must act |\n|---|---|---|---|---|\n",
    );
    for ReasonText {
        component,
        text: one,
    } in reasons
    {
        let _ = writeln!(
            text,
            "| {component} | `{}` | {} | {} | {} |",
            one.name,
            cell(one.meaning),
            cell(one.fix),
            one.who
        );
    }
    text
}

pub(super) fn conditions_page(conditions: &[ReasonText]) -> String {
    let mut text = String::from(
        "# Conditions and their reasons\n\nWhat the operator says of a resource in `status.conditions`, in events and in `status.autoscaling`. \
         `vumi explain REASON` prints an entry.\n\
         \n| Condition | When it is `True` |\n|---|---|\n",
    );
    let (types, reasons): (Vec<&ReasonText>, Vec<&ReasonText>) =
        conditions.iter().partition(|one| one.component.is_empty());
    for one in types {
        let _ = writeln!(text, "| `{}` | {} |", one.text.name, cell(one.text.meaning));
    }
    text.push_str("\n| Reason | Where | What it means | What to do |\n|---|---|---|---|\n");
    for one in reasons {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            one.text.name,
            one.component,
            cell(one.text.meaning),
            cell(one.text.fix)
        );
    }
    text
}

pub(super) fn metrics_page(metrics: &[MetricText]) -> String {
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
