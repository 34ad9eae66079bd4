//! Resources whose status says that they do not work, or not as they are written.

use super::brokers::{self, Complaint};
use super::some;
use crate::commands::lasting;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use vumi_api::{Condition, ConditionType, Kind, Status, Truth};
use vumi_core::checkup::{Finding, Level};
use vumi_plan::Reason;

/// A start or a roll takes so long, in seconds.
const START: i64 = 180;

/// What is not as it should be of these resources, told once for each reason.
pub(super) fn judge(all: &[(Kind, String, &Value)], now: Timestamp) -> Vec<Finding> {
    let mut groups: BTreeMap<(String, &str), (Level, Complaint)> = BTreeMap::new();
    for (_, name, object) in all {
        let status = Status::of(object);
        // Of an edit that nobody has seen, that is said elsewhere.
        if object["metadata"]["generation"] != status.observed_generation {
            continue;
        }
        let Some((level, says, condition)) = worst(&status, now) else {
            continue;
        };
        if brokers::tell_of(object, &status, condition) {
            continue;
        }
        let key = (condition.reason.clone(), says);
        let (_, complaint) = groups.entry(key).or_insert((level, Complaint::default()));
        complaint.add(name, condition);
    }
    let groups = groups.into_iter();
    groups
        .map(|((reason, says), (level, complaint))| {
            let (of, since) = (some(&complaint.of), lasting(complaint.since, now));
            let entry = Reason::find(&reason).map(Reason::entry);
            let (meaning, fix) = entry.map_or(("", ""), |entry| (entry.meaning, entry.fix));
            let meaning = meaning.trim_end_matches('.');
            let says = format!("{of}: {says}{since}: {meaning} [{reason}]");
            let fix = format!("{fix} `kubectl vumi status` says more of each.");
            Finding::new(level, "resources", says, fix.trim_start())
        })
        .collect()
}

/// What is worst of a resource, how bad that is, and the condition that says so.
fn worst(status: &Status, now: Timestamp) -> Option<(Level, &'static str, &Condition)> {
    use ConditionType as T;
    let of = |kind: T, truth: Truth| status.condition(kind).filter(|c| c.status == truth);
    let lasts = |condition: &&Condition| {
        let since: Option<Timestamp> = condition.last_transition_time.parse().ok();
        since.is_none_or(|since| now.as_second().saturating_sub(since.as_second()) > START)
    };
    // A roll may take its time.
    let has_a_fix = |condition: &&Condition| {
        Reason::find(&condition.reason).is_none_or(|reason| !reason.entry().fix.is_empty())
    };
    if let Some(stalled) = of(T::Stalled, Truth::True) {
        return Some((Level::Problem, "Stalled", stalled));
    }
    if let Some(ready) = of(T::Ready, Truth::False).filter(lasts) {
        return Some((Level::Problem, "not Ready", ready));
    }
    if let Some(ready) = of(T::Ready, Truth::Unknown).filter(lasts) {
        return Some((Level::Warning, "nobody knows whether Ready", ready));
    }
    // What ran before runs on.
    let reconciling = of(T::Reconciling, Truth::True).filter(lasts);
    let reconciling = reconciling.filter(has_a_fix)?;
    Some((Level::Warning, "Reconciling", reconciling))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(kind: &str, status: &str, reason: &str, since: &str) -> Value {
        let message = match reason {
            "SecretMissing" => "waiting for the Secret vumi-broker",
            _ => "why",
        };
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since,
        })
    }

    #[test]
    fn what_does_not_work_is_told_once_for_each_reason() {
        let (old, young) = ("2026-11-26T12:00:00Z", "2026-11-26T12:04:30Z");
        let resource = |conditions: Value| {
            json!({
                "metadata": {"generation": 2},
                "status": {"observedGeneration": 2, "conditions": conditions},
            })
        };
        let ready = |reason: &str, since: &str| condition("Ready", "False", reason, since);
        let mut unseen = resource(json!([ready("PodsNotReady", old)]));
        unseen["metadata"]["generation"] = 3.into();
        let objects = [
            resource(json!([condition("Stalled", "True", "QueueClash", young)])),
            resource(json!([condition("Stalled", "True", "QueueClash", old)])),
            resource(json!([
                ready("ImageUnavailable", old),
                condition("Reconciling", "True", "ImageUnavailable", old),
            ])),
            resource(json!([
                condition("Ready", "True", "Running", old),
                condition("Reconciling", "True", "ApplyFailed", old),
            ])),
            // It starts, it rolls, its broker is told of, and its edit was not seen.
            resource(json!([ready("Starting", young)])),
            resource(json!([
                condition("Ready", "True", "Running", old),
                condition("Reconciling", "True", "RollingOut", old),
            ])),
            resource(json!([ready("BrokerUnreachable", old)])),
            resource(json!([ready("SecretMissing", old)])),
            unseen,
        ];
        let all: Vec<(Kind, String, &Value)> = objects
            .iter()
            .zip("abcdefghi".chars())
            .map(|(object, name)| (Kind::Transport, name.to_string(), object))
            .collect();
        let found = judge(&all, "2026-11-26T12:05:00Z".parse().unwrap());
        let told: Vec<(Level, &str)> = found.iter().map(|f| (f.level, f.says.as_str())).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[0].1.starts_with("d: Reconciling for 5m0s: ") && told[0].0 == Level::Warning,
            "{told:?}"
        );
        assert_eq!(
            told[1..],
            [
                (
                    Level::Problem,
                    "c: not Ready for 5m0s: The image cannot be fetched [ImageUnavailable]"
                ),
                (
                    Level::Problem,
                    "a, b: Stalled for 5m0s: An older resource reads the same queue; this one gets no pods [QueueClash]"
                ),
            ]
        );
        assert!(
            found
                .iter()
                .all(|f| f.fix.ends_with("`kubectl vumi status` says more of each.")),
            "{found:?}"
        );
    }
}
