//! What all message types share: a JSON object, its limits, and access to its fields.

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
    #[error("message_version is {0}, only 20110921 is known")]
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

/// A JSON object with the accessors that message types are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl From<Map<String, Value>> for Fields {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
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
        if nesting(text.as_bytes()) > MAX_DEPTH {
            return Err(DecodeError::TooLarge(format!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        serde_json::from_str(text)
            .map(Self)
            .map_err(|e| DecodeError::NotJson(e.to_string()))
    }

    pub(super) fn encode(&self) -> Bytes {
        let text = serde_json::to_string(&self.0).unwrap_or_default();
        Bytes::from(ascii(text))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(super) fn set_text(&mut self, key: &str, value: Option<&str>) {
        self.set(key, value.map_or(Value::Null, Value::from));
    }

    /// The object under `key`; made when absent or not an object.
    pub(super) fn object_mut(&mut self, key: &str) -> &mut Map<String, Value> {
        let slot = self.0.entry(key.to_owned()).or_insert(Value::Null);
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        match slot {
            Value::Object(map) => map,
            _ => unreachable!("made an object above"),
        }
    }

    pub(super) fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.0.get(key).and_then(Value::as_object)
    }

    pub(super) fn check_common(&self) -> Result<(), DecodeError> {
        match self.0.get("message_version") {
            Some(Value::String(v)) if v == MESSAGE_VERSION => {}
            Some(other) => return Err(DecodeError::Version(other.to_string())),
            None => return Err(DecodeError::Version("missing".into())),
        }
        match self.0.get("message_type") {
            Some(Value::Null) | None => Err(DecodeError::Field {
                field: "message_type",
                problem: "missing or null".into(),
            }),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn require(&self, key: &'static str) -> Result<&Value, DecodeError> {
        self.0.get(key).ok_or_else(|| DecodeError::Field {
            field: key,
            problem: "missing".into(),
        })
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

    /// A field that must be present and text or null.
    pub(super) fn require_text_or_null(&self, key: &'static str) -> Result<(), DecodeError> {
        match self.require(key)? {
            Value::Null | Value::String(_) => Ok(()),
            other => Err(DecodeError::Field {
                field: key,
                problem: format!("must be text or null, is {}", json_type(other)),
            }),
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        self.object("routing_metadata")
            .and_then(|m| m.get("endpoint_name"))
            .and_then(Value::as_str)
            .unwrap_or("default")
    }

    pub(super) fn set_endpoint(&mut self, endpoint: &str) {
        self.object_mut("routing_metadata")
            .insert("endpoint_name".into(), endpoint.into());
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

/// Deepest nesting of brackets outside of strings.
fn nesting(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0usize, false, false);
    for byte in body {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Escapes everything beyond ASCII as `\uXXXX`, as both Vumi generations write it.
fn ascii(text: String) -> String {
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
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}
