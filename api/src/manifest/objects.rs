//! Kubernetes' own kind that workers read beside the manifests: Secret documents.

use super::finding::WRONG_VALUE;
use super::report::Report;
use super::tree::{Data, Node, below};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static SECRET: LazyLock<Value> = LazyLock::new(|| {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "type": {"type": "string"},
            "immutable": {"type": "boolean"},
            "data": texts,
            "stringData": texts,
        },
    })
});

/// Schema of a Secret document.
pub(super) fn secret_schema() -> &'static Value {
    &SECRET
}

fn texts(node: &Node, key: &str) -> impl Iterator<Item = (String, String, super::tree::Place)> {
    node.get(key)
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|entry| match &entry.value.data {
            Data::Text(text, _) => Some((entry.key.clone(), text.clone(), entry.value.place)),
            _ => None,
        })
}

/// The keys of a Secret: `data` decoded from base64, then `stringData` over it, as Kubernetes does. Values that are
/// not text cannot be used by a worker and are reported.
pub(super) fn secret(node: &Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (key, encoded, place) in texts(node, "data") {
        let path = below("data", &key);
        let compact: String = encoded.split_whitespace().collect();
        match STANDARD.decode(compact).map(String::from_utf8) {
            Ok(Ok(value)) => {
                keys.insert(key, value);
            }
            Ok(Err(_)) => report.warning(
                WRONG_VALUE,
                place,
                path,
                "the decoded value is not UTF-8 text, and workers read text only",
                None,
            ),
            Err(_) => report.error(
                WRONG_VALUE,
                place,
                path,
                "not base64",
                Some("write plain text under stringData instead".into()),
            ),
        }
    }
    keys.extend(texts(node, "stringData").map(|(key, value, _)| (key, value)));
    keys
}
