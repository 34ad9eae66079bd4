//! What pods use, which a HorizontalPodAutoscaler goes by.

use crate::operator::apply;
use crate::{Namespace, documents, file, image, kubectl, own_cluster, succeed};
use serde_json::Value;

/// The part of the API that a metrics-server serves.
const SERVED: &str = "apiservice/v1beta1.metrics.k8s.io";

/// A metrics-server. On a cluster of our own it is one for this test, and goes when this is dropped.
pub struct Metrics {
    place: Option<Namespace>,
}

impl Metrics {
    /// Starts one, and waits until it serves; on somebody else's cluster it is the one there. None: there is none.
    ///
    /// # Panics
    /// With its log if it does not serve within two minutes.
    pub fn start() -> Option<Self> {
        if !own_cluster() {
            let output = kubectl(&["get", SERVED], "");
            return output.status.success().then_some(Self { place: None });
        }
        let metrics = Self {
            place: Some(Namespace::create("metrics")),
        };
        let place = metrics.place.as_ref()?;
        let manifests = file("tests/e2e/manifests/metrics-server.yaml");
        let manifests = manifests
            .replace("NAMESPACE", &place.name)
            .replace("localhost/", &image(""));
        let (served, parts): (Vec<Value>, Vec<Value>) = documents(&manifests)
            .into_iter()
            .partition(|object| object["kind"] == "APIService");
        apply(&parts);
        place.ready("deployment/metrics-server", 120);
        // Not before: who asks for all that the API has, as the deletion of any namespace does, waits for each part of it.
        apply(&served);
        let available = ["wait", "--for=condition=Available", "--timeout=60s", SERVED];
        succeed(&available, "");
        Some(metrics)
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        // First what others would wait for, and waiting: the pods go after this.
        let _ = kubectl(&["delete", "--ignore-not-found", SERVED], "");
        let name = "vumi-e2e-metrics-server";
        let delegates = "vumi-e2e-metrics-server-delegates";
        let delete = ["delete", "--ignore-not-found", "clusterrolebinding"];
        let _ = kubectl(&[delete.as_slice(), &[name, delegates]].concat(), "");
        let _ = kubectl(&["delete", "--ignore-not-found", "clusterrole", name], "");
        let binding = ["--namespace=kube-system", "delete", "--ignore-not-found"];
        let _ = kubectl(&[binding.as_slice(), &["rolebinding", name]].concat(), "");
    }
}
