//! Our resources and their pods, as a test looks at them.

use crate::Namespace;
use serde_json::Value;

/// A pod of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`: a new one, a new pod.
    pub uid: String,
    /// How often its container was started again.
    pub restarts: u64,
    /// Id of its container, without the runtime's name.
    pub container: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Its image, as its specification says.
    pub image: String,
}

impl Namespace {
    /// One of the objects here, or why it is not given.
    pub fn get(&self, what: &str) -> Result<Value, String> {
        let output = self.kubectl(&["get", what, "--output", "json"], "");
        match output.status.success() {
            true => serde_json::from_slice(&output.stdout).map_err(|e| e.to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Waits until the last generation of each of our resources (`transport/telnet`) is ready and nothing is in progress.
    ///
    /// # Panics
    /// With their status and what happened here if that does not come within so many seconds.
    #[track_caller]
    pub fn settled(&self, resources: &[&str], seconds: u64) {
        for resource in resources {
            let this = || {
                let object = self.get(resource)?;
                let (status, generation) = (&object["status"], &object["metadata"]["generation"]);
                let ready = condition(&object, "Ready");
                let settled = status["observedGeneration"] == *generation
                    && ready.is_some_and(|ready| {
                        ready["status"] == "True" && ready["observedGeneration"] == *generation
                    })
                    && condition(&object, "Reconciling").is_none()
                    && condition(&object, "Stalled").is_none();
                settled.then_some(()).ok_or_else(|| status.to_string())
            };
            self.wait_for(&format!("{resource} is ready"), seconds, this);
        }
    }

    /// Waits until a condition of one of our resources has this status; its reason and sentence.
    ///
    /// # Panics
    /// With its status and what happened here if that does not come within so many seconds.
    #[track_caller]
    pub fn condition(&self, resource: &str, kind: &str, status: &str, seconds: u64) -> String {
        self.wait_for(&format!("{resource}: {kind}={status}"), seconds, || {
            let object = self.get(resource)?;
            match condition(&object, kind) {
                Some(found) if found["status"] == status => {
                    let text = |field: &str| found[field].as_str().unwrap_or_default();
                    Ok(format!("{}: {}", text("reason"), text("message")))
                }
                _ => Err(object["status"].to_string()),
            }
        })
    }

    /// Waits until one of our resources has so many pods, all ready.
    ///
    /// # Panics
    /// With its status and what happened here if that does not come within so many seconds.
    #[track_caller]
    pub fn has_pods(&self, resource: &str, wanted: u64, seconds: u64) {
        let what = format!("{resource} has {wanted} pods, all ready");
        self.wait_for(&what, seconds, || {
            let status = self.get(resource)?["status"].clone();
            let all = ["replicas", "readyReplicas"].map(|field| status[field].as_u64());
            (all == [Some(wanted); 2])
                .then_some(())
                .ok_or_else(|| status.to_string())
        });
    }

    /// The pods of one of our resources (`transport/telnet`), those that are being deleted excepted, by name.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[track_caller]
    pub fn pods(&self, resource: &str) -> Vec<Pod> {
        let (kind, name) = resource.split_once('/').unwrap_or((resource, ""));
        let kind = match kind {
            "transport" => "Transport",
            "application" => "Application",
            "dispatcher" => "Dispatcher",
            other => panic!("{other} has no pods"),
        };
        self.pods_by(&format!("vumi.dev/kind={kind},vumi.dev/name={name}"))
    }

    /// The pods with these labels, in the same way.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[track_caller]
    pub fn pods_by(&self, selector: &str) -> Vec<Pod> {
        let list = self.succeed(
            &["get", "pods", "--selector", selector, "--output", "json"],
            "",
        );
        let list: Value = serde_json::from_str(&list).unwrap_or_else(|e| panic!("{e}: {list}"));
        let items = list["items"].as_array().into_iter().flatten();
        let mut pods: Vec<Pod> = items
            .filter(|pod| pod["metadata"].get("deletionTimestamp").is_none())
            .map(|pod| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let container = &pod["status"]["containerStatuses"][0];
                let id = text(&container["containerID"]);
                Pod {
                    name: text(&pod["metadata"]["name"]),
                    uid: text(&pod["metadata"]["uid"]),
                    restarts: container["restartCount"].as_u64().unwrap_or(0),
                    container: id.rsplit('/').next().unwrap_or_default().to_owned(),
                    ready: container["ready"] == true,
                    image: text(&pod["spec"]["containers"][0]["image"]),
                }
            })
            .collect();
        pods.sort();
        pods
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)
}
