//! What the reference pages and `vumi explain` need from the runtime: codes, metrics, how repeats are recognised.

use crate::registry;
use vumi_api::docs::{CodeText, Facts, MetricText, ReasonText, finding_codes};
use vumi_api::{ConditionType, WorkerType};
use vumi_core::message::{Actor, FailureClass};
use vumi_core::worker::Dedupe;

/// Every code: of errors first, then of findings, then failure classes and reasons of statuses.
pub fn codes() -> Vec<CodeText> {
    let mut codes = error_codes();
    codes.extend(finding_codes());
    codes.extend(FailureClass::ALL.map(|class| CodeText {
        name: class.as_str(),
        meaning: class.meaning(),
        fix: "It is the failure class of a message's fate; the code and the sentence beside it say what to do.",
        who: "",
    }));
    codes.extend(reasons().map(|reason| reason.text));
    codes.extend(conditions().map(|reason| reason.text));
    codes
}

/// What the operator says of a resource: types of conditions, then reasons.
fn conditions() -> impl Iterator<Item = ReasonText> {
    let types = ConditionType::ALL.iter().map(|kind| ReasonText {
        component: "",
        text: CodeText {
            name: kind.as_str(),
            meaning: kind.meaning(),
            fix: "",
            who: "",
        },
    });
    let reasons = vumi_plan::Reason::ALL.iter().map(|reason| {
        let entry = reason.entry();
        ReasonText {
            component: entry.place,
            text: CodeText {
                name: entry.name,
                meaning: entry.meaning,
                fix: entry.fix,
                who: "",
            },
        }
    });
    types.chain(reasons)
}

fn error_codes() -> Vec<CodeText> {
    vumi_core::codes::ALL
        .iter()
        .map(|code| CodeText {
            name: code.name,
            meaning: code.meaning,
            fix: code.fix,
            who: "",
        })
        .collect()
}

fn reasons() -> impl Iterator<Item = ReasonText> {
    vumi_core::reasons::all().map(|reason| ReasonText {
        component: reason.component,
        text: CodeText {
            name: reason.name,
            meaning: reason.meaning,
            fix: reason.fix,
            who: match reason.who {
                Actor::Nobody => "",
                who => who.as_str(),
            },
        },
    })
}

/// The facts of this binary with the given example manifests.
pub fn facts(examples: Vec<(String, String)>) -> Facts {
    Facts {
        codes: error_codes(),
        reasons: reasons().collect(),
        conditions: conditions().collect(),
        metrics: metrics(),
        repeats: registry::all()
            .map(|r| (r.type_name.to_owned(), repeats(r.dedupe)))
            .chain(in_containers())
            .collect(),
        examples,
    }
}

fn metrics() -> Vec<MetricText> {
    vumi_core::telemetry::METRICS
        .iter()
        .map(|(name, kind, labels, meaning)| MetricText {
            name: (*name).to_owned(),
            kind: (*kind).to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            meaning: (*meaning).to_owned(),
        })
        .collect()
}

/// What is said of programs that are not ours.
fn in_containers() -> impl Iterator<Item = (String, String)> {
    let theirs = WorkerType::all().filter(|worker| worker.container);
    theirs.map(|worker| {
        let sentence = "recognising them is the program's own affair.";
        (worker.key.to_owned(), sentence.to_owned())
    })
}

fn repeats(dedupe: Dedupe) -> String {
    match dedupe {
        Dedupe::ProviderId(place) => format!(
            "a message delivered again gets the same `message_id`, which is derived from {place}."
        ),
        Dedupe::None => {
            "its peer gives no id of its own, so a message sent again is a new message.".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_code_is_registered_twice() {
        let names: Vec<_> = codes().iter().map(|code| code.name).collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
    }
}
