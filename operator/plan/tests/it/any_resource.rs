//! Resources of any name and with any settings: the same objects every time, names that Kubernetes takes, overrides that are
//! the same twice.

use crate::rolls::live;
use crate::{built, context, examples};
use proptest::prelude::*;
use serde_json::{Value, json};
use vumi_api::shared::{Autoscaling, Ordering, OrderingMode, Overrides, UpdatePolicy};
use vumi_api::{Resource, Spec};
use vumi_plan::{Context, merge};

fn is_dns_label(name: &str, longest: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= longest
        && name.chars().all(inner)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

fn is_label_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    value.len() <= 63
        && value.chars().all(inner)
        && value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Any resource of the examples under another name and with other deployment settings.
fn resources() -> impl Strategy<Value = Resource> {
    let all: Vec<Resource> = examples()
        .into_iter()
        .map(|(_, resource)| resource)
        .collect();
    let policy = prop::sample::select(vec![
        UpdatePolicy::OnChange,
        UpdatePolicy::Immediate,
        UpdatePolicy::Manual,
    ]);
    let name = "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?";
    (
        prop::sample::select(all),
        name,
        0..=1000u16,
        any::<bool>(),
        policy,
    )
        .prop_map(|(mut resource, name, replicas, suspend, policy)| {
            resource.name = name;
            scale(&mut resource, replicas, suspend, policy);
            resource
        })
}

fn scale(resource: &mut Resource, replicas: u16, suspend: bool, policy: UpdatePolicy) {
    macro_rules! set {
        ($spec:expr) => {{
            $spec.replicas = Some(replicas);
            $spec.suspend = Some(suspend);
            $spec.autoscaling = (replicas % 2 == 1).then(|| Autoscaling {
                max_replicas: replicas,
                ..Autoscaling::default()
            });
            $spec.update_policy = Some(policy);
            $spec.network_policy = None;
        }};
    }
    match &mut resource.spec {
        Spec::Transport(spec) => set!(spec),
        Spec::Application(spec) => set!(spec),
        Spec::Dispatcher(spec) => set!(spec),
        Spec::MetricAggregator(_) => {}
    }
}

/// JSON as people write it into overrides.
fn changes() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "containers",
        "env",
        "volumes",
        "name",
        "value",
        "image",
        "ports",
        "containerPort",
        "tolerations",
        "securityContext",
        "$patch",
        "mountPath",
        "volumeMounts",
    ]);
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner.clone()), 0..4).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
            prop::sample::select(vec!["worker", "beside"])
                .prop_map(|name| json!([{"name": name, "$patch": "delete"}])),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_same_input_gives_the_same_objects(resource in resources()) {
        let context = context(&resource);
        prop_assert_eq!(built(&resource, &context), built(&resource, &context));
    }

    #[test]
    fn names_and_labels_are_valid(resource in resources()) {
        for child in built(&resource, &context(&resource)).children {
            prop_assert!(is_dns_label(&child.name, 63), "{}", child.name);
            for labels in [&child.object["metadata"]["labels"], &child.object["spec"]["template"]["metadata"]["labels"]] {
                for (_, value) in labels.as_object().into_iter().flatten() {
                    prop_assert!(is_label_value(value.as_str().unwrap()), "{value}");
                }
            }
        }
    }

    /// K9: scaling, suspending and the like never replace a pod, and nothing is written twice.
    #[test]
    fn deployment_settings_change_no_hash_and_a_second_build_changes_nothing(
        resource in resources(),
        replicas in 0..=1000u16,
        suspend in any::<bool>(),
    ) {
        let before = built(&resource, &context(&resource));
        let mut scaled = resource.clone();
        scale(&mut scaled, replicas, suspend, UpdatePolicy::OnChange);
        let around = Context { live: Some(live(&before)), ..context(&scaled) };
        let after = built(&scaled, &around);
        prop_assert_eq!(&after.input_hash, &before.input_hash);
        let template = |desired: &vumi_plan::Desired| desired.workload().unwrap().object["spec"]["template"].clone();
        prop_assert_eq!(template(&after), template(&before));
        let around = Context { live: Some(live(&after)), ..context(&scaled) };
        let again = built(&scaled, &around);
        let hashes = |desired: &vumi_plan::Desired| desired.children.iter().map(|c| c.hash.clone()).collect::<Vec<_>>();
        prop_assert_eq!(hashes(&again), hashes(&after));
    }

    /// What the worker reads does change the hash.
    #[test]
    fn a_changed_runtime_view_changes_the_hash(resource in resources(), limit in 1u32..9_000_000) {
        let before = built(&resource, &context(&resource));
        let mut edited = resource.clone();
        match &mut edited.spec {
            Spec::Transport(spec) => spec.backlog_limit = Some(limit + 10_000),
            Spec::Application(spec) => spec.backlog_limit = Some(limit + 10_000),
            Spec::Dispatcher(spec) => spec.backlog_limit = Some(limit + 10_000),
            Spec::MetricAggregator(_) => {}
        }
        let after = built(&edited, &context(&edited));
        prop_assert_ne!(after.input_hash, before.input_hash);
    }

    #[test]
    fn overrides_are_the_same_twice(change in changes(), resource in resources()) {
        let desired = built(&resource, &context(&resource));
        let mut template = desired.workload().unwrap().object["spec"]["template"].clone();
        let overrides = Overrides { metadata: None, spec: change.as_object().cloned() };
        merge::overrides(&mut template, &overrides);
        let once = template.clone();
        merge::overrides(&mut template, &overrides);
        prop_assert_eq!(template, once);
    }
}

/// The strategies themselves: what is built of them is built of ordered workers too.
#[test]
fn an_ordered_worker_keeps_its_partitions_in_the_manifest() {
    let resource = crate::resource(
        "Application",
        "echo: {}, transportName: t, replicas: 3, ordering: {mode: perUser, partitions: 8}",
    );
    let ordering = resource.runtime_view().settings().ordering;
    let expected = Ordering {
        mode: OrderingMode::PerUser,
        partitions: Some(8),
        standby: None,
    };
    assert_eq!(ordering, Some(expected));
}
