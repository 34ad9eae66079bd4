//! A text that is expected: exactly, by a part of it, or by a regular expression.

use regex::Regex;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;

/// What a text should be.
#[derive(Clone, Debug)]
pub enum Text {
    /// None.
    Null,
    /// This one.
    Exactly(String),
    /// One with this in it.
    Contains(String),
    /// One that the expression matches somewhere.
    Matches(Regex),
}

impl Text {
    /// Whether it is so.
    pub fn fits(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Text::Null, text) => text.is_none(),
            (_, None) => false,
            (Text::Exactly(wanted), Some(text)) => wanted == text,
            (Text::Contains(part), Some(text)) => text.contains(part.as_str()),
            (Text::Matches(expression), Some(text)) => expression.is_match(text),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Text::Null => f.write_str("null"),
            Text::Exactly(text) => write!(f, "{text:?}"),
            Text::Contains(part) => write!(f, "{{contains: {part:?}}}"),
            Text::Matches(expression) => write!(f, "{{matches: {:?}}}", expression.as_str()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a text (numbers in quotes), {contains: TEXT}, {matches: EXPRESSION} or null",
                )
            }

            fn visit_unit<E: Error>(self) -> Result<Text, E> {
                Ok(Text::Null)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::Exactly(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::custom(
                        "write {contains: TEXT} or {matches: EXPRESSION}",
                    ));
                };
                let text = match key.as_str() {
                    "contains" => Text::Contains(map.next_value()?),
                    "matches" => Text::Matches(expression(&map.next_value::<String>()?)?),
                    other => return Err(A::Error::unknown_field(other, &["contains", "matches"])),
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(text),
                    Some(_) => Err(A::Error::custom("write one of contains and matches")),
                }
            }
        }

        from.deserialize_any(Reader)
    }
}

fn expression<E: Error>(text: &str) -> Result<Regex, E> {
    Regex::new(text)
        .map_err(|error| E::custom(format!("{text:?} is no regular expression: {error}")))
}

/// For fields in which `null` means that there is none, and nothing written that it does not matter.
pub fn written<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Text>, D::Error> {
    Text::deserialize(from).map(Some)
}

/// What differs between an expected value and one that came, each with its path. Of objects only the expected keys count;
/// a text may be expected as [`Text`] is.
pub fn differences(path: &str, expected: &Value, came: Option<&Value>) -> Vec<String> {
    let none = Value::Null;
    let got = came.unwrap_or(&none);
    let differs = || vec![format!("{path}: expected {expected}, got {got}")];
    match expected {
        Value::Object(wanted) => {
            let text = wanted.len() == 1
                && wanted
                    .keys()
                    .all(|key| key == "contains" || key == "matches");
            if text && let Ok(text) = serde_json::from_value::<Text>(expected.clone()) {
                return match text.fits(got.as_str()) {
                    true => Vec::new(),
                    false => vec![format!("{path}: expected {text}, got {got}")],
                };
            }
            match got {
                Value::Object(got) => wanted
                    .iter()
                    .flat_map(|(key, value)| {
                        differences(&format!("{path}.{key}"), value, got.get(key))
                    })
                    .collect(),
                _ => differs(),
            }
        }
        Value::Array(wanted) => match got {
            Value::Array(got) if got.len() == wanted.len() => wanted
                .iter()
                .zip(got)
                .enumerate()
                .flat_map(|(at, (wanted, got))| {
                    differences(&format!("{path}[{at}]"), wanted, Some(got))
                })
                .collect(),
            _ => differs(),
        },
        // 1 and 1.0 are one number.
        Value::Number(wanted) if wanted.as_f64().is_some() && wanted.as_f64() == got.as_f64() => {
            Vec::new()
        }
        _ if expected == got => Vec::new(),
        _ => differs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(yaml: &str) -> Result<Text, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_is_exact_a_part_or_an_expression() {
        assert!(text("hello").unwrap().fits(Some("hello")));
        assert!(!text("hello").unwrap().fits(Some("hello ")));
        assert!(text("{contains: ell}").unwrap().fits(Some("hello")));
        assert!(text("{matches: '^\\d{4}$'}").unwrap().fits(Some("1234")));
        assert!(!text("{matches: '^\\d{4}$'}").unwrap().fits(None));
        assert!(text("null").unwrap().fits(None));
        for wrong in [
            "12345",
            "{contain: x}",
            "{matches: '('}",
            "{contains: a, matches: b}",
            "[a]",
        ] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
        assert!(text("27820000001").unwrap_err().contains("in quotes"));
    }

    #[test]
    fn of_objects_the_expected_keys_count() {
        let came = json!({"a": 1, "b": {"c": "hello", "d": [1, 2]}, "e": null});
        for fits in [
            json!({"a": 1.0}),
            json!({"b": {"c": {"contains": "ell"}}}),
            json!({"b": {"d": [1, 2]}}),
            json!({"e": null}),
            json!({"x": null}),
        ] {
            assert_eq!(
                differences("", &fits, Some(&came)),
                Vec::<String>::new(),
                "{fits}"
            );
        }
        let wrong = json!({"a": 2, "b": {"c": "x", "d": [1]}});
        assert_eq!(
            differences("body", &wrong, Some(&came)),
            [
                "body.a: expected 2, got 1",
                "body.b.c: expected \"x\", got \"hello\"",
                "body.b.d: expected [1], got [1,2]"
            ]
        );
    }
}
