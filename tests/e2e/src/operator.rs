//! An operator as users install it, for the namespaces of one test.

use crate::{Alone, Namespace, Pod, definitions, file, image, kubectl, succeed, wait_for};
use serde::Deserialize;
use serde_json::{Value, json};

/// The operator of `deploy/operator`, in a namespace of its own. It is deleted when this is dropped.
pub struct Operator {
    /// Where it runs.
    pub place: Namespace,
    everywhere: bool,
}

impl Operator {
    /// Installs it with rights in these namespaces only and watching those, so that operators of other tests beside it have
    /// nothing to do with it, and waits until both of its pods are ready.
    ///
    /// # Panics
    /// With their logs if they are not.
    pub fn start(watched: &[&Namespace]) -> Self {
        assert!(!watched.is_empty(), "for which namespaces?");
        Self::install(watched)
    }

    /// Installs it for the whole cluster, as it is shipped; so no other test may run.
    ///
    /// # Panics
    /// With the logs of its pods if they do not become ready.
    pub fn everywhere(_: &Alone) -> Self {
        Self::install(&[])
    }

    fn install(watched: &[&Namespace]) -> Self {
        let place = Namespace::create("operator");
        definitions();
        let everywhere = watched.is_empty();
        let operator = Self { place, everywhere };
        operator.apply("vumi:e2e", watched);
        operator
    }

    /// Makes it one of another image, as an upgrade does.
    ///
    /// # Panics
    /// With the logs of its pods if they do not become ready.
    pub fn upgrade(&self, image: &str, watched: &[&Namespace]) {
        self.apply(image, watched);
    }

    fn apply(&self, image: &str, watched: &[&Namespace]) {
        apply(&self.objects(image, watched));
        self.place.ready("deployment/vumi-operator", 120);
    }

    /// What `deploy/operator` holds, changed as docs/operator.md says for some namespaces only.
    fn objects(&self, tag: &str, watched: &[&Namespace]) -> Vec<Value> {
        let shipped = concat!("vumi:", env!("CARGO_PKG_VERSION"));
        let mut objects = Vec::new();
        for name in ["2-rights", "3-operator"] {
            let text = file(&format!("deploy/operator/{name}.yaml")).replace(shipped, &image(tag));
            for mut object in documents(&text) {
                if object["metadata"].get("namespace").is_some() {
                    object["metadata"]["namespace"] = json!(self.place.name);
                }
                let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
                for subject in subjects.into_iter().flatten() {
                    subject["namespace"] = json!(self.place.name);
                }
                match object["kind"].as_str() {
                    Some("ClusterRoleBinding") if !self.everywhere => {
                        object["kind"] = json!("RoleBinding");
                        for namespace in watched {
                            object["metadata"]["namespace"] = json!(namespace.name);
                            objects.push(object.clone());
                        }
                        continue;
                    }
                    Some("Deployment") => {
                        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
                        let arguments = container["args"].as_array_mut();
                        let arguments = arguments.unwrap_or_else(|| panic!("no args: {name}"));
                        for namespace in watched {
                            arguments.push(json!(format!("--namespace={}", namespace.name)));
                        }
                    }
                    _ => {}
                }
                objects.push(object);
            }
        }
        objects
    }

    /// Its pods, by name.
    pub fn pods(&self) -> Vec<Pod> {
        self.place.pods_by("app.kubernetes.io/name=vumi-operator")
    }

    /// The pod that holds the lease.
    ///
    /// # Panics
    /// If there is none within a minute.
    pub fn leader(&self) -> String {
        wait_for("an operator that leads", 60, || {
            let path = "--output=jsonpath={.spec.holderIdentity}";
            let output = self
                .place
                .kubectl(&["get", "lease", "vumi-operator", path], "");
            let holder = String::from_utf8_lossy(&output.stdout).into_owned();
            // After the pod's name comes something random.
            match holder.rsplit_once('-') {
                Some((pod, _)) => Ok(pod.to_owned()),
                None => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if self.everywhere {
            // Before others begin, who have operators of their own.
            let _ = kubectl(&["delete", "clusterrolebinding", "vumi-operator"], "");
            let _ = kubectl(&["delete", "namespace", &self.place.name], "");
        }
    }
}

/// Applies objects on the server's side.
pub(crate) fn apply(objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    succeed(&apply, &list.to_string());
}

/// The documents of a YAML text.
///
/// # Panics
/// If it is no YAML.
pub fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|e| panic!("{e}: {text}")))
        .filter(|document| !document.is_null())
        .collect()
}
