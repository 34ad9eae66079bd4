//! What a Secret says, as the API server gives it.

use crate::context::SecretFacts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use std::collections::BTreeMap;

/// Which keys it has and which revision it is: all that is ever known of it.
pub fn facts(secret: &Value) -> SecretFacts {
    let keys = secret["data"].as_object().into_iter().flatten();
    let full = keys.filter(|(_, value)| value.as_str().is_some_and(|value| !is_blank(value)));
    let revision = secret["metadata"]["resourceVersion"].as_str();
    SecretFacts {
        keys: full.map(|(key, _)| key.clone()).collect(),
        revision: revision.unwrap_or_default().to_owned(),
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
    use serde_json::json;
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
}
