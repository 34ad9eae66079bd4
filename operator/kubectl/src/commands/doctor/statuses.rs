//! Whether statuses are about what is written now, and whether anybody still writes them.

use super::operator::Leader;
use super::some;
use crate::commands::{lasting, leaving};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use vumi_api::{ConditionType, Kind, Status};
use vumi_core::checkup::{Finding, Level};
use vumi_plan::names::PAUSED;

/// An operator that lives has seen an edit within this time, in seconds.
const SOON: i64 = 60;
/// What findings are about.
const ABOUT: &str = "statuses";

/// What statuses are about. `all` are resources with their names for people.
pub(super) fn judge(
    all: &[(Kind, String, &Value)],
    leader: Leader,
    now: Timestamp,
) -> Vec<Finding> {
    let (mut reserved, mut unseen, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    let (mut paused, mut young, mut seen) = (Vec::new(), Vec::new(), 0);
    let mut held = Vec::new();
    for (kind, name, object) in all {
        let status = Status::of(object);
        let observed = status.observed_generation;
        let generation = object["metadata"]["generation"].as_i64();
        let written = edited(object);
        let age = written.map(|at| now.as_second().saturating_sub(at.as_second()));
        let is_young = age.is_some_and(|age| age < SOON);
        if kind.worker_types().is_empty() {
            reserved.push(format!("{name} ({kind})"));
            continue;
        }
        // The operator leaves it as it is, and its status too.
        if let Some((since, by)) = leaving(object, now) {
            if !by.is_empty() {
                held.push(format!("{name}{since} (by {by})"));
            }
            continue;
        }
        seen += usize::from(observed >= 0);
        if generation.is_none_or(|generation| generation == observed) && observed >= 0 {
            continue;
        }
        let left_alone = object["metadata"]["annotations"][PAUSED] == "true";
        // Of what was left alone from the beginning, only that is said.
        let known = observed >= 0 || status.condition(ConditionType::Paused).is_some();
        match (left_alone, is_young) {
            (true, _) if known => paused.push(name.clone()),
            (_, true) => young.push(name.clone()),
            _ if observed < 0 => unseen.push(name.clone()),
            _ => {
                let since = lasting(written, now);
                let generation = generation.unwrap_or(0);
                behind.push(format!(
                    "{name} (generation {generation}{since}, seen was {observed})"
                ));
            }
        }
    }
    let mut found = Vec::new();
    let mut tell = |level, of: &[String], says: &str, fix: &str| {
        if !of.is_empty() {
            let says = format!("{says} {}", some(of));
            found.push(Finding::new(level, ABOUT, says, fix));
        }
    };
    tell(
        Level::Problem,
        &unseen,
        "no operator has ever seen",
        "Is the operator running, and does it watch this namespace (--namespace)?",
    );
    tell(
        Level::Problem,
        &behind,
        "no operator has seen the last edit of",
        "What runs is what was seen. See whether an operator leads, watches this namespace (--namespace), and finds the CRDs new enough; its log says why it writes nothing.",
    );
    tell(
        Level::Note,
        &young,
        "no operator has seen yet what was written within the last minute of",
        "Look again in a minute.",
    );
    tell(
        Level::Note,
        &paused,
        &format!("the annotation {PAUSED} keeps the operator from the last edit of"),
        "Remove the annotation if the edit is to have an effect.",
    );
    tell(
        Level::Warning,
        &held,
        "finalizers hold what is being deleted, and its pods run until it is gone:",
        "Whoever set them has to take them off; if that program is gone for good, take them off with kubectl edit. foregroundDeletion goes by itself, once what it owns is gone.",
    );
    tell(
        Level::Warning,
        &reserved,
        "this version runs no worker for",
        "Delete it, or upgrade the CRDs and the operator to a version that has the kind.",
    );
    if leader == Leader::Gone && seen > 0 {
        found.push(Finding::new(
            Level::Problem,
            ABOUT,
            format!(
                "of {seen} resources, they say how it was when an operator led last: none that lives was found, and whatever has changed since is not told"
            ),
            "See what is said of the lease; if the operator is another or elsewhere, name it with --operator and its namespace with --operator-namespace.",
        ));
    }
    if found.is_empty() && seen > 0 {
        let says = format!("of {seen} resources, all are about what is written now");
        found.push(Finding::good(ABOUT, says));
    }
    found
}

/// When somebody wrote the spec last, as far as the API server keeps that: of who only took something out, it does not.
fn edited(object: &Value) -> Option<Timestamp> {
    let metadata = &object["metadata"];
    let entries = metadata["managedFields"].as_array().into_iter().flatten();
    let of_spec = entries.filter(|entry| entry["fieldsV1"]["f:spec"].is_object());
    let times = of_spec.map(|entry| &entry["time"]);
    let times = times.chain([&metadata["creationTimestamp"]]);
    times.filter_map(|time| time.as_str()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-11-26T12:05:00Z";

    fn resource(generation: i64, observed: i64, edited: &str) -> Value {
        json!({
            "metadata": {
                "generation": generation, "creationTimestamp": "2026-11-26T10:00:00Z",
                "managedFields": [
                    {"manager": "kubectl", "time": edited, "fieldsV1": {"f:spec": {"f:telnet": {}}}},
                    // Nobody edited it then.
                    {"manager": "vumi-operator", "subresource": "status", "time": NOW, "fieldsV1": {"f:status": {}}},
                ],
            },
            "status": {"observedGeneration": observed},
        })
    }

    fn judged(kind: Kind, object: &Value, leader: Leader) -> Vec<Finding> {
        judge(&[(kind, "it".into(), object)], leader, NOW.parse().unwrap())
    }

    #[test]
    fn an_edit_that_nobody_sees_is_a_problem_once_that_lasts() {
        let (old, young) = ("2026-11-26T12:00:00Z", "2026-11-26T12:04:30Z");
        let is = |generation, observed, edited: &str| {
            let object = resource(generation, observed, edited);
            let found = judged(Kind::Transport, &object, Leader::Lives);
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        assert_eq!(is(2, 2, old).level, Level::Good);
        assert_eq!(is(2, 1, young).level, Level::Note);
        let behind = is(2, 1, old);
        assert_eq!(behind.level, Level::Problem);
        assert!(
            behind
                .says
                .ends_with("it (generation 2 for 5m0s, seen was 1)"),
            "{behind:?}"
        );
        assert_eq!(is(1, -1, old).level, Level::Problem);
        assert_eq!(is(1, -1, young).level, Level::Note);
        // Somebody asked for it.
        let mut object = resource(2, 1, old);
        object["metadata"]["annotations"] = json!({PAUSED: "true"});
        let found = judged(Kind::Transport, &object, Leader::Lives);
        assert_eq!((found.len(), found[0].level), (1, Level::Note), "{found:?}");
        // From the beginning: no operator says which generation it has seen.
        let mut object = resource(1, -1, old);
        object["metadata"]["annotations"] = json!({PAUSED: "true"});
        let found = judged(Kind::Transport, &object, Leader::Lives);
        assert_eq!(
            found[0].level,
            Level::Problem,
            "nobody has said so: {found:?}"
        );
        object["status"]["conditions"] = json!([{
            "type": "Paused", "status": "True", "reason": "ReconciliationPaused", "message": "why",
            "lastTransitionTime": old,
        }]);
        let found = judged(Kind::Transport, &object, Leader::Lives);
        assert_eq!((found.len(), found[0].level), (1, Level::Note), "{found:?}");
        assert!(found[0].says.contains(PAUSED), "{found:?}");
    }

    #[test]
    fn what_no_living_operator_writes_is_not_taken_for_true() {
        let object = resource(2, 2, "2026-11-26T12:00:00Z");
        let level = |leader| judged(Kind::Transport, &object, leader)[0].level;
        assert_eq!(level(Leader::Lives), Level::Good);
        // Who may not see the lease is told nothing of it here.
        assert_eq!(level(Leader::Unseen), Level::Good);
        assert_eq!(level(Leader::Gone), Level::Problem);
    }

    #[test]
    fn what_is_being_deleted_waits_for_no_operator() {
        let mut object = resource(2, 1, "2026-11-26T12:00:00Z");
        object["metadata"]["deletionTimestamp"] = "2026-11-26T12:03:55Z".into();
        let found = judged(Kind::Transport, &object, Leader::Lives);
        assert_eq!(found, [], "it goes by itself");
        object["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        let found = judged(Kind::Transport, &object, Leader::Lives);
        let told = (found.len(), found[0].level);
        assert_eq!(told, (1, Level::Warning), "{found:?}");
        let says = &found[0].says;
        assert!(says.ends_with(" it for 1m5s (by a/b, c/d)"), "{found:?}");
    }

    #[test]
    fn a_kind_without_a_worker_is_not_said_to_wait_for_one() {
        let object = resource(1, -1, "2026-11-26T12:00:00Z");
        let found = judged(Kind::MetricAggregator, &object, Leader::Lives);
        assert_eq!(
            (found.len(), found[0].level),
            (1, Level::Warning),
            "{found:?}"
        );
        assert!(found[0].says.contains("MetricAggregator"), "{found:?}");
    }
}
