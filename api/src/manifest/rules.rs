//! Evaluates the CEL rules of a schema on a document, as the API server does: at every depth, with the same sentences.

use super::Target;
use super::finding::RULE;
use super::report::Report;
use super::tree::{Data, Node, Place, below};
use crate::patterns::is_match;
use crate::shared::secret::CLUSTER_ONLY_RULE;
use crate::shared::{Duration, Size};
use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value as Cel};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Evaluates all rules of `schema` and of everything below it on `node`. A rule that cannot be evaluated because a
/// value has a wrong type stays silent: the walk has reported that type.
pub(super) fn evaluate(schema: &Value, node: &Node, target: Target, report: &mut Report<'_>) {
    Rules { target, report }.value(schema, node, node.place, "");
}

struct Rules<'r, 'f> {
    target: Target,
    report: &'r mut Report<'f>,
}

impl Rules<'_, '_> {
    fn value(&mut self, schema: &Value, node: &Node, key: Place, path: &str) {
        let rules = schema["x-kubernetes-validations"].as_array();
        if let Some(rules) = rules.filter(|_| fits(schema, node)) {
            let mut context = functions();
            context.add_variable_from_value("self", cel(node));
            for rule in rules {
                self.rule(rule, &context, node, key, path);
            }
        }
        match &node.data {
            Data::Map(entries) => {
                for entry in entries {
                    let below_schema = match &schema["properties"][&entry.key] {
                        Value::Null => &schema["additionalProperties"],
                        found => found,
                    };
                    if below_schema.is_object() {
                        let path = below(path, &entry.key);
                        self.value(below_schema, &entry.value, entry.place, &path);
                    }
                }
            }
            Data::List(items) if schema["items"].is_object() => {
                for (index, item) in items.iter().enumerate() {
                    self.value(
                        &schema["items"],
                        item,
                        item.place,
                        &format!("{path}[{index}]"),
                    );
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        rule: &Value,
        context: &Context<'_, '_>,
        node: &Node,
        key: Place,
        path: &str,
    ) {
        let source = rule["rule"].as_str().unwrap_or_default();
        if source == CLUSTER_ONLY_RULE && self.target == Target::Local {
            return;
        }
        if run(source, context) != Some(Cel::Bool(false)) {
            return;
        }
        let message = rule["messageExpression"]
            .as_str()
            .and_then(|expression| match run(expression, context) {
                Some(Cel::String(text)) => Some(text.to_string()),
                _ => None,
            })
            .unwrap_or_else(|| rule["message"].as_str().unwrap_or(source).to_owned());
        let fields = rule["fieldPath"]
            .as_str()
            .and_then(|fields| fields.strip_prefix('.'));
        let (mut node, mut place, mut path) = (node, key, path.to_owned());
        for field in fields.into_iter().flat_map(|fields| fields.split('.')) {
            // Of one that is not written, the nearest around it.
            let Some(entry) = node.entry(field) else {
                break;
            };
            path = below(&path, &entry.key);
            (node, place) = (&entry.value, entry.place);
        }
        self.report.error(RULE, place, path, message, None);
    }
}

fn fits(schema: &Value, node: &Node) -> bool {
    matches!(
        (schema["type"].as_str(), &node.data),
        (Some("object"), Data::Map(_))
            | (Some("array"), Data::List(_))
            | (Some("string"), Data::Text(..))
            | (Some("integer"), Data::Int(_))
            | (Some("boolean"), Data::Bool(_))
    )
}

/// CEL's functions, and those of the API server that our rules use. Durations and quantities are whole numbers here,
/// which compare like what they stand for.
fn functions() -> Context<'static, 'static> {
    fn number(number: impl TryInto<i64>) -> i64 {
        number.try_into().unwrap_or(i64::MAX)
    }
    let wrong = |name: &str| ExecutionError::function_error(name, "not of this form");
    let mut context = Context::default();
    let declared = [
        context.add_function("duration", move |text: Arc<String>| {
            let read = text.parse::<Duration>();
            read.map(|d| number(d.0.as_millis()))
                .map_err(|_| wrong("duration"))
        }),
        context.add_function("quantity", move |text: Arc<String>| {
            let read = text.parse::<Size>();
            read.map(|size| number(size.0))
                .map_err(|_| wrong("quantity"))
        }),
        context.add_function(
            "matches",
            |This(text): This<Arc<String>>, pattern: Arc<String>| {
                is_match(&pattern, &text)
                    .map_err(|error| ExecutionError::function_error("matches", error.to_string()))
            },
        ),
        context.add_function("compareTo", |This(a): This<i64>, b: i64| a.cmp(&b) as i64),
    ];
    debug_assert!(declared.iter().all(Result::is_ok), "{declared:?}");
    context
}

/// The value of an expression; `None` if it cannot be evaluated. Expressions are compiled once per process.
fn run(source: &str, context: &Context<'_, '_>) -> Option<Cel> {
    static COMPILED: OnceLock<Mutex<HashMap<String, Option<Arc<Program>>>>> = OnceLock::new();
    let program = {
        let mut compiled = COMPILED
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        compiled
            .entry(source.to_owned())
            .or_insert_with(|| Program::compile(source).ok().map(Arc::new))
            .clone()
    }?;
    program.execute(context).ok()
}

/// A document as the values CEL computes with.
fn cel(node: &Node) -> Cel {
    match &node.data {
        Data::Null => Cel::Null,
        Data::Bool(bool) => Cel::Bool(*bool),
        Data::Int(int) => Cel::Int(*int),
        Data::Float(float) => Cel::Float(*float),
        Data::Text(text, _) => Cel::String(Arc::new(text.clone())),
        Data::List(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Data::Map(entries) => {
            let map: HashMap<Key, Cel> = entries
                .iter()
                .map(|entry| (Key::from(entry.key.as_str()), cel(&entry.value)))
                .collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds::root_schema;
    use crate::resource::Kind;

    fn sources(schema: &Value, into: &mut Vec<String>) {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            into.extend(
                ["rule", "messageExpression"]
                    .iter()
                    .filter_map(|k| rule[k].as_str())
                    .map(str::to_owned),
            );
        }
        for key in ["properties"] {
            for below in schema[key].as_object().into_iter().flat_map(|p| p.values()) {
                sources(below, into);
            }
        }
        for key in ["items", "additionalProperties"] {
            if schema[key].is_object() {
                sources(&schema[key], into);
            }
        }
    }

    #[test]
    fn every_rule_of_every_kind_compiles() {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            sources(root_schema(kind), &mut all);
        }
        assert!(all.len() > 10, "{all:?}");
        for source in all {
            assert!(Program::compile(&source).is_ok(), "{source}");
        }
    }
}
