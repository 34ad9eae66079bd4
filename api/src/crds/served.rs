//! Whether the definitions that an API server serves are as new as these: it says so in its OpenAPI document of our group,
//! which everybody may read.

use super::{GROUP, VERSION, crds};
use crate::resource::Kind;
use serde_json::{Map, Value, json};

/// What kinds name themselves by in an OpenAPI document.
const NAMES: &str = "x-kubernetes-group-version-kind";

/// The first thing that these definitions have and the served ones do not, as in `Transport.spec.retry`; a kind that is not
/// there at all by its plural. None if nothing is missing.
pub fn lacking(document: &Value) -> Option<String> {
    let schemas = document["components"]["schemas"].as_object();
    let served = |kind: Kind| {
        let is_it = |schema: &&Value| {
            let names = schema[NAMES].as_array();
            let mut names = names.into_iter().flatten();
            names.any(|name| name["kind"] == kind.as_str())
        };
        let mut all = schemas.into_iter().flatten().map(|(_, schema)| schema);
        all.find(is_it)
    };
    for (kind, ours) in Kind::ALL.into_iter().zip(crds()) {
        let Some(schema) = served(kind) else {
            return Some(kind.plural());
        };
        let ours = &ours["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        if let Some(path) = lacks(ours, schema) {
            return Some(format!("{}{path}", kind.as_str()));
        }
    }
    None
}

/// The first property of `ours` that is not in `served`.
fn lacks(ours: &Value, served: &Value) -> Option<String> {
    let properties = ours["properties"].as_object().into_iter().flatten();
    for (name, below) in properties {
        let Some(there) = served["properties"].get(name) else {
            return Some(format!(".{name}"));
        };
        if let Some(path) = lacks(below, there) {
            return Some(format!(".{name}{path}"));
        }
    }
    for inner in ["items", "additionalProperties"] {
        if ours[inner].is_object()
            && let Some(path) = lacks(&ours[inner], &served[inner])
        {
            return Some(format!("[]{path}"));
        }
    }
    None
}

/// The OpenAPI document of our group as a server with these definitions has it, as far as [`lacking`] reads it.
pub fn openapi() -> Value {
    let mut schemas = Map::new();
    for (kind, mut ours) in Kind::ALL.into_iter().zip(crds()) {
        let mut schema = ours["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take();
        schema[NAMES] = json!([{"group": GROUP, "kind": kind.as_str(), "version": VERSION}]);
        schemas.insert(format!("dev.vumi.v1alpha1.{kind}"), schema);
    }
    json!({"components": {"schemas": schemas}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_missing_from_our_own() {
        assert_eq!(lacking(&openapi()), None);
    }

    #[test]
    fn a_field_that_is_missing_anywhere_is_named() {
        for (path, named) in [
            ("/properties/spec/properties/telnet", ".spec.telnet"),
            (
                "/properties/spec/properties/retry/properties/backoff",
                ".spec.retry.backoff",
            ),
            ("/properties/status/properties/link", ".status.link"),
        ] {
            let mut document = openapi();
            let (parent, field) = path.rsplit_once('/').unwrap();
            let parent = format!("/components/schemas/dev.vumi.v1alpha1.Transport{parent}");
            let parent = document.pointer_mut(&parent).unwrap();
            parent.as_object_mut().unwrap().remove(field).unwrap();
            assert_eq!(lacking(&document), Some(format!("Transport{named}")));
        }
        let mut document = openapi();
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        schemas.remove("dev.vumi.v1alpha1.Dispatcher").unwrap();
        assert_eq!(lacking(&document).as_deref(), Some("dispatchers"));
    }
}
