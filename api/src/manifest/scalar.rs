//! Plain scalars by the YAML 1.2 core schema, and the words that readers of YAML 1.1 understand otherwise.

use super::tree::Data;

/// The value of an unquoted scalar.
pub(super) fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN),
        _ => {}
    }
    number(text).unwrap_or_else(|| Data::Text(text.to_owned(), true))
}

fn number(text: &str) -> Option<Data> {
    if let Some(digits) = text.strip_prefix("0x") {
        return unsigned(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return unsigned(digits, 8);
    }
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
        return Some(Data::Float(f64::INFINITY * sign));
    }
    let shaped = body.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && body.contains(|c: char| c.is_ascii_digit())
        && body
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !shaped {
        return None;
    }
    // `010` is ten in YAML 1.2 and eight in 1.1, which kubectl reads: it is no number here, and so never the wrong one.
    if body.len() > 1 && body.starts_with('0') && body.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    if body.chars().all(|c| c.is_ascii_digit())
        && let Ok(int) = text.parse()
    {
        return Some(Data::Int(int));
    }
    text.parse().ok().map(Data::Float)
}

fn unsigned(digits: &str, base: u32) -> Option<Data> {
    if digits.starts_with('+') {
        return None;
    }
    i64::from_str_radix(digits, base).ok().map(Data::Int)
}

/// What a reader of YAML 1.1, such as kubectl, makes of an unquoted text.
pub fn other_reading(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => Some("true"),
        "n" | "no" | "off" => Some("false"),
        word => {
            // With underscores taken out; `0b` and a leading 0 are bases of their own.
            let digits = word.trim_start_matches(['-', '+']).replace('_', "");
            let digits = digits.strip_prefix("0b").unwrap_or(&digits);
            let number = !digits.is_empty()
                && digits.starts_with(|c: char| c.is_ascii_digit())
                && digits.chars().all(|c| c.is_ascii_digit());
            number.then_some("a number")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        let text = |t: &str| Data::Text(t.to_owned(), true);
        for (input, expected) in [
            ("", Data::Null),
            ("~", Data::Null),
            ("null", Data::Null),
            ("true", Data::Bool(true)),
            ("FALSE", Data::Bool(false)),
            ("yes", text("yes")),
            ("off", text("off")),
            ("0", Data::Int(0)),
            ("-12", Data::Int(-12)),
            ("+7", Data::Int(7)),
            ("010", text("010")),
            ("-007", text("-007")),
            ("0", Data::Int(0)),
            ("0o17", Data::Int(15)),
            ("0xfF", Data::Int(255)),
            ("1.5", Data::Float(1.5)),
            (".5", Data::Float(0.5)),
            ("1e3", Data::Float(1000.0)),
            ("99999999999999999999", Data::Float(1e20)),
            ("-.inf", Data::Float(f64::NEG_INFINITY)),
            ("1.2.3", text("1.2.3")),
            ("12:30", text("12:30")),
            ("27821234567a", text("27821234567a")),
            (".", text(".")),
            ("-", text("-")),
            ("e5", text("e5")),
            ("30s", text("30s")),
        ] {
            assert_eq!(resolve(input), expected, "{input:?}");
        }
    }

    #[test]
    fn words_that_kubectl_reads_otherwise() {
        for (word, reading) in [
            ("yes", Some("true")),
            ("Off", Some("false")),
            ("0123", Some("a number")),
            ("1_000", Some("a number")),
            ("0b11", Some("a number")),
            ("30s", None),
            ("sms", None),
        ] {
            assert_eq!(other_reading(word), reading, "{word}");
        }
    }
}
