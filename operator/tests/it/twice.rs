//! What was applied is not written again: for every type of worker, however many pods it is to have, and whoever looks.

use crate::cluster::examples;
use crate::world::{NAMESPACE, World};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vumi_api::Resource;
use vumi_operator::engine::kinds::ObjectKind;
use vumi_operator::engine::looked::Looked;
use vumi_operator::engine::reconcile::reconcile;
use vumi_operator::engine::store::Key;

/// Puts in every example with these settings, and the Secrets that they name.
fn campaign(world: &World, settings: &Map<String, Value>) -> Vec<Key> {
    let mut secrets = BTreeMap::<String, Map<String, Value>>::new();
    let put = |(resource, mut document): (Resource, Value)| {
        for (name, used) in resource.secrets() {
            let data = used.keys.into_iter().map(|key| (key, "YQ==".into()));
            secrets.entry(name).or_default().extend(data);
        }
        document["metadata"]["namespace"] = NAMESPACE.into();
        document["metadata"]["generation"] = 1.into();
        let spec = document["spec"].as_object_mut().unwrap();
        spec.extend(settings.clone());
        let kind = ObjectKind::of(resource.kind());
        let path = kind.path(NAMESPACE, &resource.name);
        world.server.put(&path, document);
        world.tell(kind, &path);
        Key {
            kind: resource.kind(),
            namespace: NAMESPACE.into(),
            name: resource.name,
        }
    };
    let keys = examples().into_iter().map(put).collect();
    for (name, data) in secrets {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}");
        let secret = json!({"metadata": {"name": name}, "data": data});
        world.server.put(&path, secret);
    }
    keys
}

/// Looks at all. Returns what was written.
async fn written(world: &World, keys: &[Key]) -> Vec<String> {
    for key in keys {
        let looked = reconcile(&world.engine, key).await;
        assert!(matches!(looked, Looked::Done(_)), "{key}: {looked:?}");
    }
    let mut calls = world.server.calls();
    calls.retain(|call| !call.starts_with("GET "));
    calls
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_not_written_again() {
    for settings in [
        json!({}),
        json!({"replicas": 0, "updatePolicy": "Immediate"}),
        json!({"replicas": 7, "updatePolicy": "Manual"}),
        json!({"replicas": 3, "suspend": true}),
        json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 5}}),
    ] {
        let mut world = World::new().await;
        let keys = campaign(&world, settings.as_object().unwrap());
        world.read(0, 1);
        let calls = written(&world, &keys).await;
        let is_workload =
            |call: &&String| call.contains(" deployments/") || call.contains(" statefulsets/");
        let workloads = calls.iter().filter(is_workload);
        let workloads = workloads.filter(|call| !call.ends_with("(dry run)"));
        assert_eq!(workloads.count(), keys.len(), "{settings}: {calls:#?}");
        let calls = written(&world, &keys).await;
        assert!(calls.is_empty(), "{settings}: {calls:#?}");
        // Another operator, which has it all from its watches.
        world.restart().await;
        let calls = written(&world, &keys).await;
        assert!(calls.is_empty(), "{settings}: {calls:#?}");
    }
}
