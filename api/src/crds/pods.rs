//! Rules about the number of pods (R2, K1, K8, K19): `replicas` and `autoscaling`.

use crate::resource::{Kind, WorkerType};
use crate::shared::OrderingMode;
use serde_json::{Value, json};

/// The rules of `spec` of one kind, whose schema has both settings.
pub(super) fn rules(kind: Kind) -> Vec<Value> {
    vec![
        replicas_of_ordered(kind),
        json!({
            "rule": "!has(self.replicas) || self.replicas <= 1 || !has(self.state) || !has(self.state.volume)",
            "message": "a state store on a volume is for one pod: state.redis is shared by replicas",
            "fieldPath": ".replicas",
        }),
        // A transition rule: there is nothing to compare with in a file.
        json!({
            "rule": "!has(self.autoscaling) || !has(oldSelf.autoscaling) || self.replicas == oldSelf.replicas",
            "message": "spec.autoscaling decides the replicas: change its bounds or remove it",
            "fieldPath": ".replicas",
        }),
        autoscaling_of_ordered(kind),
        json!({
            "rule": "!has(self.autoscaling) || !has(self.state) || !has(self.state.volume)",
            "message": "a state store on a volume is for one pod, which nothing can scale: state.redis is shared by replicas",
            "fieldPath": ".autoscaling",
        }),
        json!({
            "rule": "!has(self.autoscaling) || !has(self.ordering) || !has(self.ordering.partitions) || \
                     self.autoscaling.maxReplicas <= self.ordering.partitions",
            "message": "maxReplicas is more than ordering.partitions: the pods above that number would have nothing to do",
            "fieldPath": ".autoscaling",
        }),
        zero(kind),
    ]
}

/// The worker types that keep no order by themselves, as a CEL expression.
fn orderless(kind: Kind) -> String {
    let types = kind.worker_types().iter();
    any(types
        .filter(|worker| worker.ordering == OrderingMode::None)
        .map(|worker| format!("has(self.{})", worker.key)))
}

fn any(alternatives: impl Iterator<Item = String>) -> String {
    let alternatives: Vec<String> = alternatives.collect();
    match alternatives.is_empty() {
        true => "false".to_owned(),
        false => alternatives.join(" || "),
    }
}

/// Several pods of a worker that keeps order are no mistake only where the manifest says what they are for (R2).
fn replicas_of_ordered(kind: Kind) -> Value {
    let by_type = orderless(kind);
    json!({
        "rule": format!(
            "!has(self.replicas) || self.replicas <= 1 || (has(self.ordering) ? \
             (self.ordering.mode == 'none' || has(self.ordering.partitions) || \
             (has(self.ordering.standby) && self.ordering.standby)) : ({by_type}))"
        ),
        "message": "an ordered worker has one pod at work: for more write ordering.partitions (all work), \
                    ordering.standby: true (the others stand by) or ordering.mode: none (no order)",
        "fieldPath": ".replicas",
    })
}

/// Pods that stand by take nothing off a backlog, so `standby` does not help here.
fn autoscaling_of_ordered(kind: Kind) -> Value {
    let by_type = orderless(kind);
    json!({
        "rule": format!(
            "!has(self.autoscaling) || self.autoscaling.maxReplicas <= 1 || (has(self.ordering) ? \
             (self.ordering.mode == 'none' || has(self.ordering.partitions)) : ({by_type}))"
        ),
        "message": "an ordered worker has one pod at work, whatever waits: for more write ordering.partitions (all work) \
                    or ordering.mode: none (no order)",
        "fieldPath": ".autoscaling",
    })
}

/// Nothing wakes a worker whose callers find nobody listening (K19).
fn zero(kind: Kind) -> Value {
    let only_consumes = |worker: &WorkerType| {
        let key = worker.key;
        if !worker.honours.contains(&"service") {
            return Some(format!("has(self.{key})"));
        }
        if worker.container {
            return Some(format!("(has(self.{key}) && !has(self.{key}.ports))"));
        }
        let may_listen = worker.honours.contains(&"http");
        may_listen.then(|| format!("(has(self.{key}) && !has(self.http))"))
    };
    let by_type = any(kind.worker_types().iter().filter_map(only_consumes));
    json!({
        "rule": format!(
            "!has(self.autoscaling) || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0 || {by_type}"
        ),
        "message": "minReplicas: 0 is for workers that only read queues: while there are no pods, nobody would listen for callers",
        "fieldPath": ".autoscaling",
    })
}
