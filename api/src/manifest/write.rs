//! Documents as YAML text.

use super::scalar::other_reading;
use serde_json::Value;

/// A document as YAML text, keys in the order of the object. Words that readers of YAML 1.1, such as kubectl, take for
/// something else stand in quotes.
pub fn to_yaml(document: &Value) -> String {
    // The writer knows YAML 1.2 only and leaves such words bare. They are written between marks, which become the quotes.
    let plain = document.to_string();
    let mark = ('\u{E000}'..='\u{F8FF}').find(|mark| !plain.contains(*mark));
    let mark = mark.unwrap_or('\u{E000}').to_string();
    let text = serde_yaml::to_string(&yaml(document, &mark)).unwrap_or_default();
    text.replace(&mark, "'")
}

/// A text, marked if it needs quotes.
fn text(text: &str, mark: &str) -> serde_yaml::Value {
    match other_reading(text) {
        Some(_) => format!("{mark}{text}{mark}").into(),
        None => text.into(),
    }
}

/// JSON as YAML values, number by number: a JSON number of arbitrary precision would otherwise become a map.
fn yaml(value: &Value, mark: &str) -> serde_yaml::Value {
    match value {
        Value::Null => serde_yaml::Value::Null,
        Value::Bool(bool) => (*bool).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, float) => float.unwrap_or_default().into(),
        },
        Value::String(value) => text(value, mark),
        Value::Array(items) => {
            let items = items.iter().map(|item| yaml(item, mark));
            items.collect::<Vec<_>>().into()
        }
        Value::Object(fields) => serde_yaml::Value::Mapping(
            fields
                .iter()
                .map(|(key, value)| (text(key, mark), yaml(value, mark)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_that_others_read_as_something_else_are_quoted() {
        let document = json!({"y": ["N", "off", "123", "0x1", "true", "\u{E000}", "a: b", "", "it's"], "n": 1});
        let text = to_yaml(&document);
        for quoted in ["'y':", "'N'", "'off'", "'123'", "'n': 1"] {
            assert!(text.contains(quoted), "{quoted} in\n{text}");
        }
        let read: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read, document, "{text}");
    }
}
