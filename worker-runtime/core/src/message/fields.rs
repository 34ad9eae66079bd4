//! What all message types share: a JSON object, its limits, and access to its fields.

use super::scan;
use crate::codes::{self, Code};
use crate::error::{Classify, ErrorClass};
use bytes::Bytes;
use serde_json::{Map, Value};

/// The only version on the wire.
pub const MESSAGE_VERSION: &str = "20110921";
/// Largest accepted body, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Deepest accepted nesting.
pub const MAX_DEPTH: usize = 64;

/// Why a body is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over [`MAX_BODY`] or [`MAX_DEPTH`].
    #[error("the body is too large or too deep: {0}")]
    TooLarge(String),
    /// Not a JSON object, or not UTF-8.
    #[error("the body is not a JSON object: {0}")]
    NotJson(String),
    /// `message_version` is not ours.
    #[error("message_version is {0}; only 20110921 is known")]
    Version(String),
    /// A field is missing or impossible.
    #[error("field {field}: {problem}")]
    Field {
        /// Field name.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Classify for DecodeError {
    fn class(&self) -> ErrorClass {
        ErrorClass::BadInput
    }

    fn code(&self) -> Code {
        match self {
            DecodeError::TooLarge(_) => codes::MESSAGE_TOO_LARGE,
            DecodeError::NotJson(_) => codes::MESSAGE_NOT_JSON,
            DecodeError::Version(_) => codes::MESSAGE_VERSION,
            DecodeError::Field { .. } => codes::MESSAGE_INVALID,
        }
    }
}

/// A JSON object with the accessors that message types are made of. While nothing is changed it keeps the body it was
/// read from, so that a hop that only forwards does not write it anew; every way to write drops that body.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    map: Map<String, Value>,
    body: Option<Bytes>,
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        Self { map, body: None }
    }
}

impl Fields {
    /// Parses a body after checking size, depth and UTF-8.
    pub(super) fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        if body.len() > MAX_BODY {
            return Err(DecodeError::TooLarge(format!("{} bytes", body.len())));
        }
        let text = std::str::from_utf8(body)
            .map_err(|e| DecodeError::NotJson(format!("not UTF-8: {e}")))?;
        scan::check(text)?;
        match serde_json::from_str(text) {
            Ok(map) => Ok(Self {
                map,
                body: Some(Bytes::copy_from_slice(body)),
            }),
            Err(error) => scan::repair_surrogates(text)
                .and_then(|repaired| serde_json::from_str(&repaired).ok())
                .map(|map: Map<String, Value>| Self::from(map))
                .ok_or_else(|| DecodeError::NotJson(without_content(&error))),
        }
    }

    /// The body as it was read if nothing was changed, else written anew: ASCII, as both Vumi generations write it.
    pub(super) fn encode(&self) -> Bytes {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let text = serde_json::to_string(&self.map).unwrap_or_default();
        Bytes::from(ascii(text))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    pub(super) fn to_value(&self) -> Value {
        Value::Object(self.map.clone())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    pub(super) fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.get(key).and_then(Value::as_object)
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        if let Some(slot) = self.map.get_mut(key) {
            if *slot != value {
                *slot = value;
                self.body = None;
            }
        } else {
            self.map.insert(key.to_owned(), value);
            self.body = None;
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if self.map.remove(key).is_some() {
            self.body = None;
        }
    }

    pub(super) fn set_text(&mut self, key: &str, value: Option<&str>) {
        if value.is_none() || self.text(key) != value {
            self.set(key, value.map_or(Value::Null, Value::from));
        }
    }

    /// Fills in a field that is absent.
    pub(super) fn fill(&mut self, key: &str, value: impl FnOnce() -> Value) {
        if !self.map.contains_key(key) {
            self.set(key, value());
        }
    }

    /// The object under `key`, for writing; made when absent or not an object.
    pub(super) fn object_mut(&mut self, key: &str) -> &mut Map<String, Value> {
        self.body = None;
        let slot = self.map.entry(key.to_owned()).or_insert(Value::Null);
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        match slot {
            Value::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }

    pub(super) fn check_common(&self) -> Result<(), DecodeError> {
        match self.map.get("message_version") {
            Some(Value::String(v)) if v == MESSAGE_VERSION => {}
            Some(Value::String(v)) if v.len() <= 16 => return Err(DecodeError::Version(v.clone())),
            Some(_) => return Err(DecodeError::Version("another".into())),
            None => return Err(DecodeError::Version("missing".into())),
        }
        match self.map.get("message_type") {
            Some(Value::Null) | None => Err(DecodeError::Field {
                field: "message_type",
                problem: "missing or null".into(),
            }),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn require(&self, key: &'static str) -> Result<&Value, DecodeError> {
        self.map.get(key).ok_or_else(|| DecodeError::Field {
            field: key,
            problem: "missing".into(),
        })
    }

    /// A field that must be present and not null.
    pub(super) fn require_value(&self, key: &'static str) -> Result<(), DecodeError> {
        match self.require(key)? {
            Value::Null => Err(DecodeError::Field {
                field: key,
                problem: "is null".into(),
            }),
            _ => Ok(()),
        }
    }

    /// A field that must be present and one of a closed list.
    pub(super) fn require_one_of(
        &self,
        key: &'static str,
        list: &[&str],
    ) -> Result<(), DecodeError> {
        match self.require(key)? {
            Value::String(text) if list.contains(&text.as_str()) => Ok(()),
            _ => Err(DecodeError::Field {
                field: key,
                problem: format!("is none of {}", list.join(", ")),
            }),
        }
    }

    /// A field that must be text or null where it is present. A number becomes its text, as Vumi 2 reads it: peers
    /// that write addresses without quotes are served, not parked.
    pub(super) fn text_or_null(&mut self, key: &'static str) -> Result<(), DecodeError> {
        let text = match self.get(key) {
            None | Some(Value::Null | Value::String(_)) => return Ok(()),
            Some(Value::Number(number)) => number.to_string(),
            Some(other) => {
                return Err(DecodeError::Field {
                    field: key,
                    problem: format!("must be text or null, is {}", json_type(other)),
                });
            }
        };
        self.set(key, text);
        Ok(())
    }

    pub(super) fn endpoint(&self) -> &str {
        self.object("routing_metadata")
            .and_then(|m| m.get("endpoint_name"))
            .and_then(Value::as_str)
            .unwrap_or("default")
    }

    pub(super) fn set_endpoint(&mut self, endpoint: &str) {
        let key = "endpoint_name";
        let written = self.object("routing_metadata").and_then(|m| m.get(key));
        if written.and_then(Value::as_str) != Some(endpoint) {
            self.object_mut("routing_metadata")
                .insert(key.into(), endpoint.into());
        }
    }
}

pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What is wrong, in words that quote nothing: serde_json names the value when its type is wrong.
fn without_content(error: &serde_json::Error) -> String {
    if error.is_data() {
        "it is another kind of JSON value".into()
    } else {
        error.to_string()
    }
}

/// Escapes everything beyond ASCII as `\uXXXX`, as both Vumi generations write it.
fn ascii(text: String) -> String {
    use std::fmt::Write;
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut units = [0u16; 2];
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}
