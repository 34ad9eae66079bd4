//! Tells of a resource: its status, written if it differs from what stands there, and events of what has changed. What it
//! says is computed without a clock or a client: [`vumi_plan::status()`].

use super::Engine;
use super::apply::remember;
use super::kinds::ObjectKind;
use super::seen::Held;
use super::sight::Sighting;
use super::store::Key;
use crate::client::{ApiError, Apply};
use crate::dereference::workload;
use serde_json::json;
use std::time::Duration;
use vumi_api::{Resource, Status};
use vumi_plan::{Decision, Desired, Names, Observed, Refusal, Workload, edges, status};

/// When too much was written of what can wait, it is tried again after this time.
const LATER: Duration = Duration::from_secs(1);

/// What a look at a resource came to, as far as its status tells of it.
pub struct Finding<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// What was built, or why nothing was.
    pub plan: Result<&'a Desired, &'a Refusal>,
    /// Why what was built was not applied.
    pub failure: Option<&'a Refusal>,
    /// How many pods there are to be, where that is decided here.
    pub scaling: Option<&'a Decision>,
    /// Whether it was left alone.
    pub left_alone: bool,
}

/// Writes the status and tells what has changed. Returns after what time something may have lasted long enough to be told.
///
/// # Errors
/// A call went wrong.
pub async fn tell(
    engine: &Engine,
    key: &Key,
    held: &Held,
    sighting: &Sighting,
    finding: &Finding<'_>,
) -> Result<Option<Duration>, ApiError> {
    let resource = finding.resource;
    let family = engine.stores.family(key);
    let child = Names::new(resource, &key.namespace, None).child();
    let runs = workload(&family, &child).map(|held| Workload::of(&held.object()));
    let seen = Observed {
        sight: sighting.of(resource),
        namespace: &key.namespace,
        generation: held.generation,
        plan: finding.plan,
        failure: finding.failure,
        workload: runs.as_ref(),
        scaling: finding.scaling,
        left_alone: finding.left_alone,
    };
    let before = Status::of(&held.body());
    let outlook = engine.recall.with(key, &held.uid, |known| {
        status(&seen, &before, &known.memory)
    });
    // Of a resource whose worker type was pruned nothing is written: it would be lost for good (K2).
    let Some(outlook) = outlook else {
        return Ok(None);
    };
    let again = outlook.again.map(|at| {
        let span = at.duration_since(sighting.now);
        Duration::try_from(span).unwrap_or_default()
    });
    let keep = || {
        let memory = outlook.memory.clone();
        engine
            .recall
            .with(key, &held.uid, |known| known.memory = memory);
    };
    if outlook.status == before {
        keep();
        return Ok(again);
    }
    // What can wait is forgotten here, and decided anew.
    if is_coarse(&before, &outlook.status) && !engine.coarse.take() {
        return Ok(Some(again.map_or(LATER, |again| again.min(LATER))));
    }
    let kind = ObjectKind::of(key.kind);
    let object = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": held.uid},
        "status": outlook.status,
    });
    let path = format!("{}/status", kind.path(&key.namespace, &key.name));
    let how = Apply {
        force: true,
        dry_run: false,
    };
    let answer = engine.writer().await?.apply(&path, &object, how).await?;
    engine.metrics.wrote("status");
    remember(engine, kind, answer);
    keep();
    for edge in edges(&before, &outlook.status) {
        engine.events.tell(key, &held.uid, edge.into()).await;
    }
    Ok(again)
}

/// Whether two statuses differ in nothing but coarse classes, which can wait (K7).
fn is_coarse(before: &Status, after: &Status) -> bool {
    let same = Status {
        backlog: before.backlog.clone(),
        parked: before.parked.clone(),
        ..after.clone()
    };
    same == *before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_alone_can_wait() {
        let before = Status::default();
        let after = Status {
            backlog: Some("1+".into()),
            ..Status::default()
        };
        assert!(is_coarse(&before, &after));
        let after = Status {
            link: Some("UP".into()),
            ..after
        };
        assert!(!is_coarse(&before, &after));
    }
}
