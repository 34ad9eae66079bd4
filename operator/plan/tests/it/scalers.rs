//! What docs/operator.md tells other autoscalers to do is what our kinds and workers do.

use crate::{examples, resource};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use vumi_api::Kind;
use vumi_api::crds::{API_VERSION, crds};
use vumi_plan::consumed;

/// The manifests of a kind on the page.
fn on_the_page(kind: &str) -> Vec<Value> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operator.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    let texts = blocks.filter_map(|rest| rest.split("```").next());
    texts
        .filter(|text| text.contains(&format!("kind: {kind}\n")))
        .map(|text| Value::deserialize(serde_yaml::Deserializer::from_str(text)).unwrap())
        .collect()
}

/// The fields by which a HorizontalPodAutoscaler and KEDA read and write any kind.
#[test]
fn every_kind_has_the_fields_that_scalers_use() {
    for definition in crds() {
        let scale = &definition["spec"]["versions"][0]["subresources"]["scale"];
        let fields = json!({
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        });
        // The reserved kind has no pods yet.
        let reserved = definition["spec"]["names"]["kind"] == Kind::MetricAggregator.as_str();
        assert!(*scale == fields || reserved, "{definition}");
    }
}

#[test]
fn what_the_page_scales_is_there_and_reads_the_queue_that_it_names() {
    let mut found = 0;
    for kind in ["HorizontalPodAutoscaler", "ScaledObject"] {
        for manifest in on_the_page(kind) {
            found += 1;
            let target = &manifest["spec"]["scaleTargetRef"];
            assert_eq!(target["apiVersion"], API_VERSION);
            let all = examples();
            let (_, meant) = all
                .iter()
                .find(|(file, one)| {
                    file.starts_with("telnet-echo/")
                        && target["kind"] == one.kind().as_str()
                        && target["name"] == one.name
                })
                .unwrap();
            for trigger in manifest["spec"]["triggers"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let queue = trigger["metadata"]["queueName"].as_str().unwrap();
                assert!(consumed(meant).contains(queue), "{queue}");
            }
        }
    }
    assert_eq!(found, 2);
}

/// The table of queues on the page.
#[test]
fn workers_read_the_queues_that_the_page_says() {
    for (kind, spec, queues) in [
        (
            "Transport",
            "telnet: {port: 9010}, transportName: t",
            vec!["t.outbound"],
        ),
        (
            "Application",
            "echo: {}, transportName: t",
            vec!["t.inbound", "t.event"],
        ),
        (
            "Dispatcher",
            "simple: {transports: [t], exposed: [a]}",
            vec!["t.inbound", "t.event", "a.outbound"],
        ),
    ] {
        let queues: BTreeSet<String> = queues.into_iter().map(str::to_owned).collect();
        let resource = resource(kind, spec);
        assert_eq!(consumed(&resource), queues, "{kind}");
    }
}
