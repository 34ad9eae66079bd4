//! What is wrong with a request, as Vumi's answers list it: kind → names of parameters.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use vumi_http::{Answer, StatusCode};

/// Findings about one request.
#[derive(Default)]
pub(crate) struct Findings {
    lists: Map<String, Value>,
    /// Of each kind the names that a manifest names as well.
    ours: BTreeMap<String, Vec<String>>,
}

impl Findings {
    /// A name that the request brought: its caller is told, and nobody else.
    pub(crate) fn add(&mut self, kind: &str, name: &str) {
        let list = self.lists.entry(kind).or_insert_with(|| json!([]));
        if let Value::Array(names) = list {
            names.push(name.into());
        }
    }

    /// A name that the manifest names as well, so that logs may.
    pub(crate) fn add_ours(&mut self, kind: &str, name: &str) {
        self.add(kind, name);
        let names = self.ours.entry(kind.to_owned()).or_default();
        names.push(name.to_owned());
    }

    /// A kind with a value of its own.
    pub(crate) fn set(&mut self, kind: &str, value: Value) {
        self.lists.insert(kind.to_owned(), value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    pub(crate) fn value(&self) -> Value {
        Value::Object(self.lists.clone())
    }

    pub(crate) fn answer(&self) -> Answer {
        Answer::json(StatusCode::BAD_REQUEST, &self.value())
    }

    /// What is wrong, without anything that only the request says: `a request is invalid: missing_parameter (to_addr)`.
    pub(crate) fn sentence(&self) -> String {
        let kinds = self.lists.keys().map(|kind| match self.ours.get(kind) {
            Some(names) => format!("{kind} ({})", names.join(", ")),
            None => kind.clone(),
        });
        let kinds: Vec<String> = kinds.collect();
        format!("a request is invalid: {}", kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_names_what_the_manifest_names_and_the_answer_everything() {
        let mut findings = Findings::default();
        findings.add("unexpected_parameter", "27820000001");
        findings.add_ours("missing_parameter", "content");
        findings.add_ours("missing_parameter", "to_addr");
        let text =
            "a request is invalid: unexpected_parameter, missing_parameter (content, to_addr)";
        assert_eq!(findings.sentence(), text);
        let all = json!({"unexpected_parameter": ["27820000001"], "missing_parameter": ["content", "to_addr"]});
        assert_eq!(findings.value(), all);
    }
}
