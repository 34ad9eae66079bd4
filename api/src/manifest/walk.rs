//! Compares a document with its schema and reports everything that does not fit: unknown and missing fields, types,
//! patterns, ranges, choices, sizes.

use super::finding::{
    AMBIGUOUS, MISSING_FIELD, UNKNOWN_FIELD, UNSUPPORTED, WRONG_TYPE, WRONG_VALUE,
};
use super::report::Report;
use super::scalar;
use super::tree::{Data, Entry, Node, Place, below};
use crate::crds::RESERVED_SETTINGS;
use crate::names::{listed, nearest};
use crate::patterns::is_match;
use crate::resource::{Kind, WorkerType};
use crate::shared::quantity::{DURATION_PATTERN, Duration, SIZE_PATTERN, Size};
use crate::shared::shapes::{CONNECTOR_PATTERN, CPU_PATTERN, HOST_PATTERN, PATH_PATTERN};
use serde_json::Value;

/// The walk over one document.
pub(super) struct Walk<'w, 'f> {
    /// Where findings go.
    pub report: &'w mut Report<'f>,
    /// Kind of the document, when it is one of ours: its names help to place a misplaced field.
    pub kind: Option<Kind>,
    /// True for documents whose values must not be repeated in messages.
    pub confidential: bool,
    /// True for manifests that kubectl will read: what it reads otherwise is then an error.
    pub for_cluster: bool,
}

/// A value about to be checked.
#[derive(Clone, Copy)]
struct At<'n> {
    node: &'n Node,
    /// Place of the key that leads to the value, or of the value in a list.
    key: Place,
    path: &'n str,
    /// True inside a secret field: what stands there may be the secret itself, even if it should not.
    secret: bool,
}

impl Walk<'_, '_> {
    /// Checks a whole document against the schema of its root.
    pub fn document(&mut self, schema: &Value, node: &Node) {
        self.value(
            schema,
            At {
                node,
                key: node.place,
                path: "",
                secret: false,
            },
        );
    }

    fn error(
        &mut self,
        code: &'static str,
        place: Place,
        path: &str,
        message: String,
        help: Option<String>,
    ) {
        self.report.error(code, place, path, message, help);
    }

    fn value(&mut self, schema: &Value, at: At<'_>) {
        let secret = at.secret || schema["properties"]["secretKeyRef"].is_object();
        let at = At { secret, ..at };
        match schema["type"].as_str() {
            Some("object") => self.object(schema, at),
            Some("array") => self.list(schema, at),
            Some("string") => self.text(schema, at),
            Some("integer") => self.integer(schema, at),
            Some("boolean") if !matches!(at.node.data, Data::Bool(_)) => {
                self.wrong_type(at, "true or false", None);
            }
            _ => {}
        }
    }

    fn wrong_type(&mut self, at: At<'_>, expected: &str, help: Option<String>) {
        let found = self.found(at);
        self.error(
            WRONG_TYPE,
            at.node.place,
            at.path,
            format!("expected {expected}, found {found}"),
            help,
        );
    }

    /// A value in words; the value itself only where it may be shown.
    fn found(&self, at: At<'_>) -> String {
        let secret = self.confidential || at.secret;
        match &at.node.data {
            Data::Null => "nothing".into(),
            Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Text(..) if secret => {
                "another kind of value".into()
            }
            Data::Bool(bool) => bool.to_string(),
            Data::Int(int) => format!("the number {int}"),
            Data::Float(float) => format!("the number {float}"),
            Data::Text(text, _) => format!("the text {:?}", shortened(text)),
            Data::List(_) => "a list".into(),
            Data::Map(_) => "an object".into(),
        }
    }

    fn object(&mut self, schema: &Value, at: At<'_>) {
        let Data::Map(entries) = &at.node.data else {
            let help = match (&at.node.data, schema["required"].as_array()) {
                (Data::Null, None) if schema["properties"].is_object() => Some(format!(
                    "write `{}: {{}}` to take all defaults",
                    last_key(at.path)
                )),
                (Data::Null, Some(required)) => {
                    let names = required.iter().filter_map(Value::as_str);
                    Some(format!("it needs {}", listed(names)))
                }
                _ => None,
            };
            return self.wrong_type(at, "an object", help);
        };
        let properties = schema["properties"].as_object();
        let others = schema.get("additionalProperties").filter(|s| s.is_object());
        for entry in entries {
            let path = below(at.path, &entry.key);
            let at_entry = At {
                node: &entry.value,
                key: entry.place,
                path: &path,
                secret: at.secret,
            };
            match (properties.and_then(|p| p.get(&entry.key)), others) {
                (Some(schema), _) | (None, Some(schema)) => self.value(schema, at_entry),
                // An object without any listed field, such as metadata, is checked elsewhere.
                (None, None) if properties.is_none() => {}
                (None, None) => self.unknown(schema, at, entry, &path),
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if at.node.get(name).is_none() {
                let about = schema["properties"][name]["description"]
                    .as_str()
                    .and_then(|text| text.split(". ").next())
                    .map(|text| text.trim_end_matches('.').to_owned());
                self.error(
                    MISSING_FIELD,
                    at.key,
                    &below(at.path, name),
                    "required, but missing".into(),
                    about,
                );
            }
        }
        // Where no field may stand, each one is reported already.
        if schema["maxProperties"] != 0 {
            let keys = ["minProperties", "maxProperties"];
            self.size(schema, at, entries.len(), keys, "entries");
        }
    }

    fn unknown(&mut self, schema: &Value, at: At<'_>, entry: &Entry, path: &str) {
        let key = entry.key.as_str();
        let fields: Vec<&str> = schema["properties"]
            .as_object()
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default();
        if at.path == "spec" && RESERVED_SETTINGS.contains(&key) {
            let kinds = Kind::ALL
                .into_iter()
                .filter(|kind| !crate::crds::spec_schema(*kind)["properties"][key].is_null())
                .map(Kind::as_str);
            let kinds = listed(kinds);
            let (code, message) = match kinds.as_str() {
                "none" => (UNSUPPORTED, "not supported yet".to_owned()),
                kinds => (
                    UNKNOWN_FIELD,
                    format!("unknown field here: this setting is for {kinds}"),
                ),
            };
            return self.error(code, entry.place, path, message, None);
        }
        // A worker type under another kind's name.
        if at.path == "spec"
            && let Some(worker) = WorkerType::find(key)
        {
            let message = format!("{key} is a worker type of kind {}", worker.kind);
            let help = Some(format!("write `kind: {}`", worker.kind));
            return self.error(UNKNOWN_FIELD, entry.place, path, message, help);
        }
        let help = self
            .misplaced(at, key)
            .or_else(|| match nearest(key, fields.iter().copied()) {
                Some(name) => Some(format!("did you mean {name}?")),
                None if fields.is_empty() => Some(format!("{} has no fields", last_key(at.path))),
                None => Some(format!("fields here: {}", listed(fields.iter().copied()))),
            });
        self.error(
            UNKNOWN_FIELD,
            entry.place,
            path,
            "unknown field".into(),
            help,
        );
    }

    /// A field that exists one level up or down: a shared setting inside a worker type, or a type's field beside it.
    fn misplaced(&self, at: At<'_>, key: &str) -> Option<String> {
        let kind = self.kind?;
        let spec = &crate::crds::spec_schema(kind)["properties"];
        let is_type = |name: &str| kind.worker_types().iter().any(|w| w.key == name);
        if at.path == "spec" {
            let entry = at
                .node
                .entries()
                .iter()
                .find(|e| is_type(&e.key) && !spec[&e.key]["properties"][key].is_null())?;
            return Some(format!("it belongs inside {}", entry.key));
        }
        let parent = at.path.strip_prefix("spec.")?;
        (is_type(parent) && !spec[key].is_null())
            .then(|| format!("it belongs beside {parent}, directly under spec"))
    }

    fn list(&mut self, schema: &Value, at: At<'_>) {
        let Data::List(items) = &at.node.data else {
            let help = matches!(at.node.data, Data::Text(..) | Data::Int(_) | Data::Map(_))
                .then(|| "a list of one is written [value]".to_owned());
            return self.wrong_type(at, "a list", help);
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", at.path);
            self.value(
                &schema["items"],
                At {
                    node: item,
                    key: item.place,
                    path: &path,
                    secret: at.secret,
                },
            );
        }
        self.size(schema, at, items.len(), ["minItems", "maxItems"], "items");
    }

    fn text(&mut self, schema: &Value, at: At<'_>) {
        let Data::Text(text, plain) = &at.node.data else {
            let help = match (&at.node.data, schema["pattern"].as_str()) {
                (Data::Int(number), Some(DURATION_PATTERN)) if *number >= 0 => {
                    Some(format!("add a unit, as in {number}s"))
                }
                (Data::Float(_), Some(DURATION_PATTERN)) => {
                    Some("write a whole number with a unit, as in 1500ms".to_owned())
                }
                (Data::Int(number), Some(SIZE_PATTERN)) if *number >= 0 => Some(format!(
                    "bytes are text: write \"{number}\" in quotes, or a unit as in 64Ki"
                )),
                (Data::Int(_) | Data::Float(_) | Data::Bool(_), _) => {
                    Some("put it in quotes".to_owned())
                }
                (Data::Null, _) => Some("write the value, or leave the field out".to_owned()),
                _ => None,
            };
            return self.wrong_type(at, "text", help);
        };
        if let Some(choices) = schema["enum"].as_array() {
            let choices: Vec<&str> = choices.iter().filter_map(Value::as_str).collect();
            if !choices.contains(&text.as_str()) {
                let message = format!("{:?} is not one of {}", shortened(text), choices.join(", "));
                let help = nearest(text, choices).map(|name| format!("did you mean {name}?"));
                self.error(WRONG_VALUE, at.node.place, at.path, message, help);
            }
            return;
        }
        if *plain && let Some(reading) = scalar::other_reading(text) {
            let word = match self.confidential || at.secret {
                true => "this unquoted word".to_owned(),
                false => format!("the unquoted word {text}"),
            };
            let message = format!("kubectl reads {word} as {reading}");
            let help = Some("put it in quotes".to_owned());
            let (place, path) = (at.node.place, at.path);
            match self.for_cluster {
                true => self.report.error(AMBIGUOUS, place, path, message, help),
                false => self.report.warning(AMBIGUOUS, place, path, message, help),
            }
        }
        let length = text.chars().count();
        if length == 0 && schema["minLength"].as_u64().unwrap_or(0) > 0 {
            return self.error(
                WRONG_VALUE,
                at.node.place,
                at.path,
                "must not be empty".into(),
                None,
            );
        }
        self.size(schema, at, length, ["minLength", "maxLength"], "characters");
        if let Some(sentence) = schema["pattern"].as_str().and_then(|p| mismatch(p, text)) {
            let message = match self.confidential || at.secret {
                true => "has a wrong form".to_owned(),
                false => sentence,
            };
            self.error(WRONG_VALUE, at.node.place, at.path, message, None);
        }
    }

    fn integer(&mut self, schema: &Value, at: At<'_>) {
        let Data::Int(int) = at.node.data else {
            let help = match &at.node.data {
                Data::Text(text, false) if text.parse::<i64>().is_ok() => {
                    Some("a number in quotes is text: remove the quotes".to_owned())
                }
                Data::Text(text, true) if text.parse::<i64>().is_ok() => {
                    Some("write it without leading zeros".to_owned())
                }
                _ => None,
            };
            return self.wrong_type(at, "a whole number", help);
        };
        let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
        if int < least || int > most {
            let message = format!("{int} is out of range: {least} to {most}");
            self.error(WRONG_VALUE, at.node.place, at.path, message, None);
        }
    }

    fn size(&mut self, schema: &Value, at: At<'_>, size: usize, keys: [&str; 2], what: &str) {
        let least = schema[keys[0]].as_u64().unwrap_or(0) as usize;
        let most = schema[keys[1]].as_u64().unwrap_or(u64::MAX) as usize;
        let message = if size < least {
            format!("needs at least {least} {what}, has {size}")
        } else if size > most {
            format!("may have at most {most} {what}, has {size}")
        } else {
            return;
        };
        self.error(WRONG_VALUE, at.node.place, at.path, message, None);
    }
}

/// Why a text does not match a pattern of the schema, if it does not.
fn mismatch(pattern: &str, text: &str) -> Option<String> {
    let shown = shortened(text);
    match pattern {
        DURATION_PATTERN => text.parse::<Duration>().err(),
        SIZE_PATTERN => text.parse::<Size>().err(),
        _ if is_match(pattern, text).unwrap_or(false) => None,
        CONNECTOR_PATTERN => Some(format!(
            "{shown:?} is not a connector name: lower-case letters, digits, - and _, in parts joined by dots"
        )),
        PATH_PATTERN => Some(format!(
            "{shown:?} is not a path: it begins with / and has no spaces, ? or #"
        )),
        HOST_PATTERN => Some(format!(
            "{shown:?} is not a host name: letters, digits, - and ., as in sms.example.net"
        )),
        CPU_PATTERN => Some(format!(
            "{shown:?} is not an amount of processor time; write e.g. 250m or \"1.5\""
        )),
        _ => Some(format!("{shown:?} does not match {pattern}")),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn last_key(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
