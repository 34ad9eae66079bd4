//! Which objects of a resource stay: those that are wanted, and the ConfigMaps that its pods still read.

use crate::desired::Desired;
use serde_json::Value;

/// Names of the ConfigMaps that a pod mounts; of its `spec`, or that of a template.
pub fn config_maps(pod: &Value) -> Vec<String> {
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    let sources = volumes.flat_map(|volume| {
        let projected = volume["projected"]["sources"]
            .as_array()
            .into_iter()
            .flatten();
        let names = projected.map(|source| &source["configMap"]["name"]);
        names.chain([&volume["configMap"]["name"]])
    });
    sources
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

/// Whether an object of a resource stays. `is_mounted`: whether a ConfigMap is named by a pod, or by a ReplicaSet, to which the
/// workload may be rolled back.
pub fn stays(desired: &Desired, kind: &str, name: &str, is_mounted: impl Fn(&str) -> bool) -> bool {
    let mut children = desired.children.iter();
    let wanted = children.any(|child| child.kind == kind && child.name == name);
    wanted || kind == "ConfigMap" && is_mounted(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Child;
    use serde_json::json;

    #[test]
    fn what_is_wanted_or_read_stays() {
        let map = |name: &str| Child::new(json!({"kind": "ConfigMap", "metadata": {"name": name}}));
        let desired = Desired {
            children: vec![map("new")],
            ..Desired::default()
        };
        let pod = json!({"volumes": [
            {"configMap": {"name": "old"}},
            {"projected": {"sources": [{"configMap": {"name": "part"}}, {"secret": {"name": "s"}}]}},
            {"emptyDir": {}},
        ]});
        let mounted = config_maps(&pod);
        assert_eq!(mounted, ["old", "part"]);
        let is_mounted = |name: &str| mounted.iter().any(|mounted| mounted == name);
        for (kind, name, expected) in [
            ("ConfigMap", "new", true),
            ("ConfigMap", "old", true),
            ("ConfigMap", "part", true),
            ("ConfigMap", "older", false),
            ("Service", "new", false),
            ("Service", "old", false),
        ] {
            let found = stays(&desired, kind, name, is_mounted);
            assert_eq!(found, expected, "{kind} {name}");
        }
    }
}
