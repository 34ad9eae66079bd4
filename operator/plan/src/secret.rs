//! What a Secret says, as the API server gives it.

use crate::context::{Live, SecretFacts};
use crate::hash::hash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use vumi_api::SecretUse;

/// Which keys it has and which revision it is: all that is ever known of it.
pub fn facts(secret: &Value) -> SecretFacts {
    let keys = secret["data"].as_object().into_iter().flatten();
    let full = keys.filter(|(_, value)| value.as_str().is_some_and(|value| !is_blank(value)));
    SecretFacts {
        keys: full.map(|(key, _)| key.clone()).collect(),
        revision: revision(&secret["metadata"]),
    }
}

/// What is taken for granted of a Secret that cannot be read: it is there, with all that is read of it. Of a broker's, a program that
/// runs has variables for the keys that are there, since one for another key would not let its pods start.
pub fn unread(name: &str, used: SecretUse, live: Option<&Live>) -> SecretFacts {
    let mut facts = SecretFacts {
        keys: live.map(|live| live.keys_of(name)).unwrap_or_default(),
        revision: String::new(),
    };
    let is_address = facts.keys.contains("connection_string") || facts.is_split();
    match used.broker && is_address {
        true => facts.keys.extend(used.needed),
        false => facts.keys = used.keys,
    }
    facts
}

/// What a worker was told of its Secrets, by name.
pub type Told = BTreeMap<String, Mark>;

/// What it was told of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its resourceVersion then.
    pub version: String,
    /// Who had written its data, and when: the revision of [`facts`].
    pub written: String,
    /// The revision of which it was told.
    pub revision: String,
}

/// What the annotation [`SECRET_REVISION`](crate::names::SECRET_REVISION) of a ServiceAccount says of each Secret. Most are marked with
/// one word, which says nothing of each.
pub fn told(mark: &str) -> Told {
    serde_json::from_str(mark).unwrap_or_default()
}

/// Its resourceVersion.
pub fn version(secret: &Value) -> &str {
    let version = secret["metadata"]["resourceVersion"].as_str();
    version.unwrap_or_default()
}

/// What changes with what it holds, and with no label: who has written its data, and when. A hash of the values themselves would let
/// whoever reads it try passwords. Where the API server does not say who, any change counts.
fn revision(metadata: &Value) -> String {
    let entries = metadata["managedFields"].as_array().into_iter().flatten();
    let of_data = entries.filter(|entry| {
        let fields = &entry["fieldsV1"];
        fields["f:data"].is_object() || fields["f:stringData"].is_object()
    });
    let writes: Vec<Value> = of_data
        .map(|entry| json!([entry["manager"], entry["operation"], entry["time"]]))
        .collect();
    match writes.is_empty() {
        true => {
            let version = metadata["resourceVersion"].as_str();
            version.unwrap_or_default().to_owned()
        }
        false => hash(&json!([metadata["uid"], writes])),
    }
}

/// What its keys hold, as text: for whoever connects with it. Nothing is planned by values.
pub fn values(secret: &Value) -> BTreeMap<String, String> {
    let keys = secret["data"].as_object().into_iter().flatten();
    let text = |value: &Value| String::from_utf8(decoded(value.as_str()?)?).ok();
    let line = |text: String| text.trim_end_matches(['\r', '\n']).to_owned();
    keys.filter_map(|(key, value)| Some((key.clone(), line(text(value)?))))
        .collect()
}

fn decoded(encoded: &str) -> Option<Vec<u8>> {
    BASE64.decode(encoded).ok()
}

/// Whether a value in base64 says nothing but white space.
fn is_blank(encoded: &str) -> bool {
    decoded(encoded).is_some_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn of_a_secret_keys_and_revision_are_kept() {
        let secret = json!({
            "metadata": {"resourceVersion": "7"},
            "data": {"password": "aHVudGVyMg==", "empty": "", "blank": "ICAK"},
        });
        let facts = facts(&secret);
        assert_eq!(facts.keys, BTreeSet::from(["password".to_owned()]));
        assert_eq!(facts.revision, "7");
        let shown = format!("{facts:?}");
        assert!(
            !shown.contains("aHVudGVyMg") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(values(&secret)["password"], "hunter2");
    }

    #[test]
    fn another_revision_is_another_content() {
        let entry = |manager: &str, time: &str, fields: Value| json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields});
        let data = || json!({"f:data": {".": {}, "f:password": {}}, "f:type": {}});
        let made = entry("kubectl-create", "2026-11-26T12:00:00Z", data());
        let of = |version: &str, entries: Value| {
            let metadata =
                json!({"uid": "u", "resourceVersion": version, "managedFields": entries});
            facts(&json!({"metadata": metadata, "data": {"password": "aHVudGVyMg=="}})).revision
        };
        let first = of("7", json!([made]));
        let label = json!({"f:metadata": {"f:labels": {"f:vumi.dev/watch": {}}}});
        let label = entry("kubectl-label", "2026-11-26T13:00:00Z", label);
        assert_eq!(of("8", json!([made, label])), first, "a label");
        for entries in [
            json!([entry("kubectl-create", "2026-11-26T13:00:00Z", data())]),
            json!([made, entry("kubectl-patch", "2026-11-26T13:00:00Z", data())]),
            json!([entry(
                "flux",
                "2026-11-26T12:00:00Z",
                json!({"f:stringData": {}})
            )]),
        ] {
            assert_ne!(of("8", entries.clone()), first, "{entries}");
        }
        // Nobody says who wrote what.
        assert_eq!([of("7", json!([])), of("8", Value::Null)], ["7", "8"]);
        assert!(!first.contains("aHVudGVyMg"), "{first}");
    }
}
