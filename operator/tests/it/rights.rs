//! Which rights the operator's requests need, and which its manifests give.

use crate::proxy::Proxy;
use serde_json::Value;
use std::collections::BTreeSet;

/// What was needed: resource and verb.
pub type Observed = BTreeSet<(String, String)>;

/// Notes which rights requests need.
pub fn observe(proxy: &Proxy, observed: &mut Observed) -> Vec<String> {
    let mut writes = Vec::new();
    for seen in proxy.take() {
        if seen.is_write() {
            writes.push(format!("{} {}?{}", seen.method, seen.path, seen.query));
        }
        let mut parts = seen.path.trim_start_matches('/').split('/');
        let rest: Vec<&str> = match parts.next() {
            Some("api") => parts.skip(1).collect(),
            Some("apis") => parts.skip(2).collect(),
            _ => continue,
        };
        let rest = match rest.as_slice() {
            ["namespaces", _, below @ ..] if !below.is_empty() => below,
            all => all,
        };
        let (resource, named) = match rest {
            [] => continue,
            [resource, _, "status"] => (format!("{resource}/status"), true),
            [resource, name @ ..] => ((*resource).to_owned(), !name.is_empty()),
        };
        let verb = match seen.method.as_str() {
            "GET" if seen.query.contains("watch=true") => "watch",
            "GET" if named => "get",
            "GET" => "list",
            "POST" => "create",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => panic!("{other}"),
        };
        observed.insert((resource.clone(), verb.to_owned()));
        // Server-side apply of something new needs both.
        if seen.method == "PATCH"
            && seen.query.contains("fieldValidation")
            && !resource.contains('/')
        {
            observed.insert((resource, "create".to_owned()));
        }
    }
    writes
}

/// What the operator's manifests give it.
fn declared(rules: &[Value]) -> Observed {
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let mut declared = Observed::new();
    for rule in rules {
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                declared.insert((resource.clone(), verb));
            }
        }
    }
    declared
}

/// What it may do with objects of a kind.
pub fn declared_verbs(rules: &[Value], resource: &str) -> BTreeSet<String> {
    let declared = declared(rules).into_iter();
    let of = declared.filter(|(declared, _)| declared == resource);
    of.map(|(_, verb)| verb).collect()
}

/// What is declared and what was needed are the same, but for kinds that this cluster does not have or run (K32): of these, `optional.rs`
/// says it.
pub fn declared_rights_are_used(rules: &[Value], observed: &Observed) {
    let declared = declared(rules);
    let missing: Vec<_> = observed.difference(&declared).collect();
    assert!(missing.is_empty(), "needed and not declared: {missing:?}");
    let elsewhere = ["httproutes", "podmonitors", "metricaggregators/status"];
    // Always wanted; to set ownerReferences, a cluster may ask for this right.
    let always = ["serviceaccounts", "poddisruptionbudgets"];
    let unused: Vec<_> = declared
        .difference(observed)
        .filter(|(resource, _)| !elsewhere.contains(&resource.as_str()))
        .filter(|(resource, verb)| !always.contains(&resource.as_str()) || verb != "delete")
        .collect();
    assert!(unused.is_empty(), "declared and not needed: {unused:?}");
    for (resource, verb) in &declared {
        assert!(resource != "secrets" || verb == "get", "{verb} {resource}");
    }
}
