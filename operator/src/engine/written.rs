//! What was written for a resource, as people are told: what is new, what was put back, and why pods are replaced.

use super::apply::{Need, Written};
use super::changes;
use super::events::Event;
use super::kinds::ObjectKind;
use serde_json::Value;

/// The events of a look. `before` and `after` are the workload as it ran, and as it is now.
pub fn events(before: Option<&Value>, after: Option<&Value>, written: &[Written]) -> Vec<Event> {
    let workloads = |kind: &str| ObjectKind::named(kind).is_some_and(ObjectKind::is_workload);
    let list = |wanted: &dyn Fn(&Written) -> bool| {
        let those = written.iter().filter(|written| wanted(written));
        let names = those.map(|written| format!("{} {}", written.kind, written.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut events = Vec::new();
    let created = list(&|written| written.need == Need::Create);
    if !created.is_empty() {
        events.push(Event::normal("Created", format!("created {created}")));
    }
    for written in written {
        if let Need::Drift(field) = &written.need {
            let message = format!(
                "somebody else had taken {field} of {} {}: it is put back",
                written.kind, written.name
            );
            events.push(Event::warning("DriftCorrected", message));
        }
    }
    let changed = list(&|written| written.need == Need::Change && !workloads(&written.kind));
    if !changed.is_empty() {
        let message = format!("changed {changed}: no pod is replaced");
        events.push(Event::normal("Updated", message));
    }
    let changes_pods = |written: &Written| workloads(&written.kind) && written.need == Need::Change;
    if let (true, Some(before), Some(after)) = (written.iter().any(changes_pods), before, after) {
        let (old, new) = (&before["spec"], &after["spec"]);
        if let Some((roll, message)) = changes::roll(&old["template"], &new["template"]) {
            events.push(Event::normal(roll.reason(), message));
        }
        if old["replicas"] != new["replicas"] {
            let message = format!("{} pods instead of {}", new["replicas"], old["replicas"]);
            events.push(Event::normal("Scaled", message));
        }
    }
    events
}
