//! The PodMonitor of the Prometheus operator, where the operator is set up for it and the cluster knows it.

use super::Cx;
use crate::desired::{Child, Note};
use serde_json::json;

/// The PodMonitor, or why there is none.
pub fn pod_monitor(cx: &Cx<'_>) -> (Option<Child>, Option<Note>) {
    let Some(wanted) = &cx.settings.pod_monitor else {
        return (None, None);
    };
    if cx.custom().is_some() {
        // Whether it has metrics, and where, only its author knows.
        return (None, None);
    }
    if !cx.context.platform.pod_monitor {
        let note = Note {
            reason: "PodMonitorMissing",
            message: "the cluster knows no PodMonitor: install the Prometheus operator, or switch podMonitor off".into(),
        };
        return (None, Some(note));
    }
    let mut metadata = cx.names.metadata(cx.names.child());
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(wanted.labels.clone());
    let mut endpoint = json!({"port": "admin", "path": "/metrics"});
    if let Some(interval) = &wanted.interval {
        endpoint["interval"] = interval.as_str().into();
    }
    let monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata,
        "spec": {
            "selector": cx.names.selector(),
            "podMetricsEndpoints": [endpoint],
        },
    });
    (Some(Child::new(monitor)), None)
}
