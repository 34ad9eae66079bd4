//! Pods and what is wrong with them.

use crate::reasons::Reason;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Labels by which controllers tell the pods of one template from those of another: of a Deployment, of a StatefulSet.
pub const TEMPLATE_LABELS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub ending: bool,
    /// When it is gone at the latest, if it is on its way out.
    pub ends: Option<Timestamp>,
    /// Which pod template it was made from, as its controller says.
    pub template: String,
    /// What is wrong with it.
    pub problem: Option<Problem>,
}

/// What keeps a pod from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
    /// Whether waiting cannot help.
    pub needs_edit: bool,
}

impl Problem {
    fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            needs_edit: false,
        }
    }
}

impl Pod {
    /// What a Pod says, as the API server gives it. None of one that has ended for good and only stands there: a controller
    /// has replaced it.
    pub fn of(object: &Value) -> Option<Self> {
        let status = &object["status"];
        if ["Failed", "Succeeded"]
            .iter()
            .any(|phase| status["phase"] == *phase)
        {
            return None;
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let ready = is(status, "Ready", "True").is_some();
        let ends = &object["metadata"]["deletionTimestamp"];
        let ending = !ends.is_null();
        let labels = &object["metadata"]["labels"];
        let template = TEMPLATE_LABELS
            .iter()
            .find_map(|label| labels[*label].as_str());
        let problem = match ready || ending {
            true => None,
            false => problem(status),
        };
        Some(Self {
            name: name.to_owned(),
            ready: ready && !ending,
            ending,
            ends: ends.as_str().and_then(|at| at.parse().ok()),
            template: template.unwrap_or_default().to_owned(),
            problem,
        })
    }
}

fn is<'a>(status: &'a Value, kind: &str, truth: &str) -> Option<&'a Value> {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind && condition["status"] == truth)
}

fn problem(status: &Value) -> Option<Problem> {
    if let Some(condition) = is(status, "PodScheduled", "False") {
        let message = condition["message"].as_str().unwrap_or_default();
        return Some(Problem::new(Reason::Unschedulable, message.to_owned()));
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    let containers = lists.iter().flat_map(|list| status[*list].as_array());
    containers.flatten().find_map(of_container)
}

/// The kubelet's own sentences hold times and alternate with each try, so these are ours.
fn of_container(container: &Value) -> Option<Problem> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, image) = (text(&container["name"]), text(&container["image"]));
    let waiting = &container["state"]["waiting"];
    let ended = match &container["state"]["terminated"] {
        Value::Null => &container["lastState"]["terminated"],
        now => now,
    };
    match waiting["reason"].as_str().unwrap_or_default() {
        "InvalidImageName" | "ErrImageNeverPull" => Some(Problem {
            needs_edit: true,
            ..Problem::new(
                Reason::ImageUnavailable,
                format!("the image {image:?} has no valid name, or may not be fetched"),
            )
        }),
        "ImagePullBackOff" | "ErrImagePull" | "ImageInspectError" | "RegistryUnavailable" => {
            let message = format!("the image {image} cannot be fetched");
            Some(Problem::new(Reason::ImageUnavailable, message))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let message = format!("container {name}: {}", text(&waiting["message"]));
            Some(Problem::new(Reason::ContainerConfig, message))
        }
        // Between two ends it runs for a while; after the second one it is known for what it is.
        other => {
            let again = container["restartCount"].as_u64().unwrap_or(0) >= 2;
            let crashes = other == "CrashLoopBackOff" || again;
            if !crashes || ended.is_null() {
                return None;
            }
            if ended["reason"] == "OOMKilled" {
                let message = format!("container {name} used more memory than it may");
                return Some(Problem::new(Reason::OutOfMemory, message));
            }
            let code = ended["exitCode"].as_i64().unwrap_or_default();
            let message = format!("container {name} ends again and again, with exit code {code}");
            Some(Problem::new(Reason::CrashLooping, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: Value) -> Option<Problem> {
        let status = json!({"phase": "Pending", "containerStatuses": [container]});
        Pod::of(&json!({"metadata": {"name": "a"}, "status": status}))?.problem
    }

    #[test]
    fn the_states_of_containers_have_reasons() {
        let waiting = |reason: &str| json!({"name": "worker", "image": "vumi:9", "state": {"waiting": {"reason": reason}}});
        let ended = |mut container: Value, reason: &str| {
            container["lastState"] = json!({"terminated": {"reason": reason, "exitCode": 137}});
            container
        };
        let loops = waiting("CrashLoopBackOff");
        let mut between = ended(json!({"name": "worker", "state": {"running": {}}}), "Error");
        between["restartCount"] = json!(2);
        for (container, reason, needs_edit) in [
            (
                waiting("ErrImagePull"),
                Some(Reason::ImageUnavailable),
                false,
            ),
            (
                waiting("ImagePullBackOff"),
                Some(Reason::ImageUnavailable),
                false,
            ),
            (
                waiting("InvalidImageName"),
                Some(Reason::ImageUnavailable),
                true,
            ),
            (
                waiting("CreateContainerConfigError"),
                Some(Reason::ContainerConfig),
                false,
            ),
            (
                ended(loops.clone(), "Error"),
                Some(Reason::CrashLooping),
                false,
            ),
            (ended(loops, "OOMKilled"), Some(Reason::OutOfMemory), false),
            (between, Some(Reason::CrashLooping), false),
            (waiting("ContainerCreating"), None, false),
            (
                json!({"name": "worker", "state": {"running": {}}}),
                None,
                false,
            ),
        ] {
            let found = pod(container.clone());
            let edit = found.as_ref().is_some_and(|problem| problem.needs_edit);
            assert_eq!(found.map(|p| p.reason), reason, "{container}");
            assert_eq!(edit, needs_edit, "{container}");
        }
    }

    #[test]
    fn a_pod_without_a_node_says_what_the_scheduler_says() {
        let status = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"},
        ]});
        let pod = Pod::of(&json!({"metadata": {"name": "a"}, "status": status})).unwrap();
        let problem = pod.problem.unwrap();
        assert_eq!(problem.reason, Reason::Unschedulable);
        assert!(problem.message.contains("0/1 nodes"));
    }

    #[test]
    fn the_template_of_a_pod_is_told_by_its_controller() {
        for label in TEMPLATE_LABELS {
            let pod = Pod::of(&json!({"metadata": {"name": "a", "labels": {label: "6d4f"}}}));
            assert_eq!(pod.unwrap().template, "6d4f");
        }
    }

    #[test]
    fn one_that_ends_is_not_ready_and_one_that_has_ended_is_none() {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let object = |metadata: Value, phase: &str| {
            Pod::of(&json!({"metadata": metadata, "status": {"phase": phase, "conditions": ready}}))
        };
        assert!(object(json!({"name": "a"}), "Running").unwrap().ready);
        let ending = json!({"name": "a", "deletionTimestamp": "2026-11-26T16:00:00Z"});
        let ending = object(ending, "Running").unwrap();
        assert!(!ending.ready && ending.ending);
        assert_eq!(ending.ends, "2026-11-26T16:00:00Z".parse().ok());
        assert_eq!(object(json!({"name": "a"}), "Failed"), None);
    }
}
