//! A resource as somebody wrote it, read with what this operator knows.

use super::seen::Held;
use super::store::Key;
use serde_json::{Map, Value, json};
use vumi_api::{Resource, Spec};

/// The resource as it is written.
///
/// # Errors
/// This operator does not know something of it.
pub fn read(key: &Key, held: &Held) -> Result<Resource, serde_json::Error> {
    of_spec(key, held.body()["spec"].take())
}

/// What can be read of a resource of which this operator does not know everything: that it is to have no pods, its broker, its
/// worker type, each setting by itself.
pub fn readable(key: &Key, held: &Held) -> Option<Resource> {
    let spec = held.body()["spec"].take();
    let is_known = |field: &str, value: &Value| of_spec(key, json!({field: value})).is_ok();
    let known = spec.as_object()?.iter();
    let known = known.filter(|(field, value)| is_known(field, value));
    let known: Map<String, Value> = known
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    of_spec(key, known.into()).ok()
}

fn of_spec(key: &Key, spec: Value) -> Result<Resource, serde_json::Error> {
    Ok(Resource {
        name: key.name.clone(),
        namespace: Some(key.namespace.clone()),
        spec: Spec::from_json(key.kind, spec)?,
    })
}
