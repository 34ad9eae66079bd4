//! Writes the status of a resource, if it differs from what stands there. What it says is computed without a clock or a client:
//! [`compute`].

use super::Engine;
use super::apply::remember;
use super::kinds::ObjectKind;
use super::seen::Held;
use super::store::Key;
use crate::client::{ApiError, Apply};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vumi_plan::validate::Outcome;
use vumi_plan::{Desired, Refusal};

/// How a look at a resource ended.
pub enum Finding<'a> {
    /// Everything is applied; this is the workload as it runs, if the stores know it.
    Applied(&'a Desired, Option<&'a Value>),
    /// Nothing was applied and nothing pruned.
    Refused(&'a Refusal),
}

/// The status, from the one that stands there.
pub fn compute(old: &Value, generation: i64, finding: &Finding<'_>, now: &str) -> Value {
    let mut conditions = Vec::new();
    let mut set = |kind: &str, status: &str, reason: &str, message: &str| {
        let old = old["conditions"].as_array().into_iter().flatten();
        let old = old
            .into_iter()
            .find(|old| old["type"] == kind && old["status"] == status);
        let since = old.map_or(now, |old| old["lastTransitionTime"].as_str().unwrap_or(now));
        conditions.push(json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        }));
    };
    match finding {
        Finding::Refused(refusal) => {
            let (reason, message) = (refusal.reason.as_str(), refusal.message.as_str());
            set("Ready", "False", reason, message);
            match refusal.outcome {
                Outcome::Stalled => set("Stalled", "True", reason, message),
                Outcome::Waiting => set("Reconciling", "True", reason, message),
            }
        }
        Finding::Applied(_, workload) => {
            let none = Value::Null;
            let workload = workload.unwrap_or(&none);
            let number = |value: &Value| value.as_i64().unwrap_or(0);
            let wanted = workload["spec"]["replicas"].as_i64().unwrap_or(1);
            let status = &workload["status"];
            let settled = status["observedGeneration"] == workload["metadata"]["generation"]
                && !workload["metadata"]["generation"].is_null()
                && number(&status["updatedReplicas"]) >= wanted
                && number(&status["readyReplicas"]) >= wanted;
            match settled {
                true => set(
                    "Ready",
                    "True",
                    "PodsReady",
                    "the pods of this generation are ready",
                ),
                false => {
                    set("Ready", "False", "PodsNotReady", "not all pods are ready");
                }
            }
        }
    }
    json!({"observedGeneration": generation, "conditions": conditions})
}

/// Writes the status, if there is such a thing and it differs. Returns whether what was found is news: then it is worth an
/// event, and a new leader does not tell again what the old one has told.
///
/// # Errors
/// A call went wrong.
pub async fn write(
    engine: &Engine,
    key: &Key,
    resource: &Held,
    finding: &Finding<'_>,
) -> Result<bool, ApiError> {
    // Of a resource whose worker type was pruned nothing is written: it would be lost for good (K2).
    let pruned = matches!(finding, Finding::Refused(r) if r.reason == vumi_plan::Reason::Pruned);
    if pruned || !engine.cluster.has_status() {
        return Ok(true);
    }
    let old = &resource.body()["status"];
    let now = format!("{:.0}", Timestamp::now());
    let status = compute(old, resource.generation, finding, &now);
    if *old == status {
        return Ok(false);
    }
    let kind = ObjectKind::of(key.kind);
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": resource.uid},
        "status": status,
    });
    let path = format!("{}/status", kind.path(&key.namespace, &key.name));
    let how = Apply {
        force: true,
        dry_run: false,
    };
    let answer = engine.api.apply(&path, &object, how).await?;
    engine.metrics.wrote("status");
    remember(engine, kind, answer);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vumi_plan::Reason;

    #[test]
    fn the_same_finding_is_the_same_status_whenever_it_is() {
        let refusal = Refusal {
            outcome: Outcome::Stalled,
            reason: Reason::NoStateStore,
            message: "needs a store".into(),
        };
        let finding = Finding::Refused(&refusal);
        let first = compute(&Value::Null, 1, &finding, "2026-01-01T00:00:00Z");
        assert_eq!(first["conditions"][1]["type"], "Stalled");
        assert_eq!(first["observedGeneration"], 1);
        let later = compute(&first, 1, &finding, "2026-01-02T00:00:00Z");
        assert_eq!(later, first);
        let next = compute(&first, 2, &finding, "2026-01-02T00:00:00Z");
        assert_eq!(next["observedGeneration"], 2);
        assert_eq!(
            next["conditions"][0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        let desired = Desired::default();
        let applied = compute(
            &first,
            2,
            &Finding::Applied(&desired, None),
            "2026-01-03T00:00:00Z",
        );
        let conditions = applied["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0]["reason"], "PodsNotReady");
    }
}
