//! The fields of a schema as people read them: path, type, default, what it is, what it must meet. One source for
//! `vumi explain` and the reference pages.

use crate::shared::quantity::{DURATION_PATTERN, SIZE_PATTERN};
use crate::shared::shapes::{
    CONNECTOR_PATTERN, CPU_PATTERN, HOST_PATTERN, PATH_PATTERN, PORT_NAME_PATTERN,
};
use serde_json::Value;

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Path below the object asked for: `auth.username`, `middleware[].name`, `table.*.*.connector`.
    pub path: String,
    /// Its type in words, such as `whole number` or `list of text`.
    pub kind: String,
    /// The default as its description states it; empty if it has none.
    pub default: String,
    /// What it is, without the sentence about the default.
    pub text: String,
    /// Whether the object cannot do without it.
    pub required: bool,
    /// What it must meet: ranges, forms, rules.
    pub limits: Vec<String>,
}

/// `schema` itself and every field below it, parents first. `path` is the name of `schema`; if that is empty, only
/// what is below is listed.
pub(crate) fn fields(schema: &Value, path: &str) -> Vec<Field> {
    let mut all = Vec::new();
    collect(schema, path, false, &mut all);
    all
}

fn collect(schema: &Value, path: &str, required: bool, into: &mut Vec<Field>) {
    if !path.is_empty() && !path.ends_with(['*', ']']) {
        into.push(field(schema, path, required));
    }
    let needed: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        collect(below, &path, needed.contains(&name.as_str()), into);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), false, into);
    }
    if schema["additionalProperties"].is_object() {
        let below = &schema["additionalProperties"];
        collect(below, &format!("{path}.*"), false, into);
    }
}

fn field(schema: &Value, path: &str, required: bool) -> Field {
    let (text, default) = split_default(schema["description"].as_str().unwrap_or_default());
    Field {
        path: path.to_owned(),
        kind: kind(schema),
        default,
        text,
        required,
        limits: limits(schema),
    }
}

/// A type in words.
fn kind(schema: &Value) -> String {
    match schema["type"].as_str() {
        Some("boolean") => "true or false".into(),
        Some("integer") => "whole number".into(),
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map of text to {}", kind(&schema["additionalProperties"]))
        }
        Some("object") => "object".into(),
        _ if schema["enum"].is_array() => "choice".into(),
        _ => match schema["pattern"].as_str() {
            Some(DURATION_PATTERN) => "duration".into(),
            Some(SIZE_PATTERN) => "size".into(),
            _ => "text".into(),
        },
    }
}

/// What a value must meet beside its type.
fn limits(schema: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    if let Some(choices) = schema["enum"].as_array() {
        let names: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
        limits.push(format!("one of {}", names.join(", ")));
    }
    if let (Some(least), Some(most)) = (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        // The bounds of the number type itself are no news.
        if least > i64::from(i32::MIN) {
            limits.push(format!("{least} to {most}"));
        }
    }
    for (least, most, what) in [
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ] {
        let own_type = matches!(
            schema["pattern"].as_str(),
            Some(DURATION_PATTERN | SIZE_PATTERN)
        );
        match (schema[least].as_u64(), schema[most].as_u64()) {
            _ if own_type => {}
            (Some(least), Some(most)) => limits.push(format!("{least} to {most} {what}")),
            (None, Some(most)) => limits.push(format!("at most {most} {what}")),
            (Some(least), None) => limits.push(format!("at least {least} {what}")),
            (None, None) => {}
        }
    }
    match schema["pattern"].as_str() {
        None | Some(DURATION_PATTERN | SIZE_PATTERN) => {}
        Some(CONNECTOR_PATTERN) => {
            limits.push("lower-case letters, digits, `-` and `_`, in parts joined by dots".into());
        }
        Some(PATH_PATTERN) => limits.push("begins with `/`; no spaces, `?` or `#`".into()),
        Some(HOST_PATTERN) => limits.push("a host name in lower case".into()),
        Some(PORT_NAME_PATTERN) => {
            limits.push("lower-case letters, digits and `-`, beginning with a letter".into());
        }
        Some(CPU_PATTERN) => limits.push("a number, or thousandths as in `250m`".into()),
        Some(other) => limits.push(format!("matches `{other}`")),
    }
    for rule in rules(schema) {
        limits.push(rule);
    }
    limits
}

/// Sentences of the CEL rules on an object itself.
pub(crate) fn rules(schema: &Value) -> Vec<String> {
    schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["message"].as_str())
        .map(str::to_owned)
        .collect()
}

/// A description without its sentence about the default, and what that sentence states.
pub(crate) fn split_default(description: &str) -> (String, String) {
    let start = match description.find(" Default") {
        Some(space) => space + 1,
        None if description.starts_with("Default") => 0,
        None => return (description.trim().to_owned(), String::new()),
    };
    let sentence = &description[start..];
    // A period ends the sentence only before a space or at the very end: `metadata.name` goes on.
    let end = sentence
        .match_indices('.')
        .map(|(at, _)| at)
        .find(|at| matches!(sentence.as_bytes().get(at + 1), None | Some(b' ' | b'\n')))
        .unwrap_or(sentence.len());
    let value = sentence[..end]
        .trim_start_matches("Default")
        .trim_start_matches(':')
        .trim();
    let rest = sentence
        .get(end + 1..)
        .unwrap_or_default()
        .trim_start_matches(' ');
    let text = format!("{}{rest}", &description[..start]);
    (text.trim().to_owned(), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds::spec_schema;
    use crate::resource::Kind;

    #[test]
    fn the_default_is_taken_out_of_the_description() {
        for (description, text, default) in [
            ("Port to listen on.", "Port to listen on.", ""),
            ("Level. Default `info`.", "Level.", "`info`"),
            (
                "Queues. Default `metadata.name`. More.",
                "Queues. More.",
                "`metadata.name`",
            ),
            (
                "To. Default: none; anyone may call.",
                "To.",
                "none; anyone may call",
            ),
        ] {
            let split = split_default(description);
            assert_eq!(split, (text.to_owned(), default.to_owned()));
        }
    }

    #[test]
    fn nested_fields_have_paths_types_and_limits() {
        let spec = spec_schema(Kind::Transport);
        let all = fields(&spec["properties"]["http"], "http");
        let find = |path: &str| all.iter().find(|f| f.path == path).cloned().unwrap();
        assert_eq!(find("http.maxBody").kind, "size");
        assert_eq!(find("http.maxBody").default, "`1Mi`");
        assert!(find("http.port").required);
        assert_eq!(find("http.port").limits[0], "1024 to 65535");
        assert!(find("http.auth.password.secretKeyRef.name").required);
        let table = fields(
            &spec_schema(Kind::Dispatcher)["properties"]["routingTable"],
            "routingTable",
        );
        assert!(
            table
                .iter()
                .any(|f| f.path == "routingTable.table.*.*.connector")
        );
    }
}
