//! Looks at the text of a body before and beside the JSON parser: nesting, keys that the parser keeps for itself, and
//! halves of characters.

use super::fields::{DecodeError, MAX_DEPTH};

/// Object keys that serde_json takes for its own: a foreign body must not reach what they do.
const RESERVED: &str = "$serde_json::private::";

/// Refuses a body that is nested too deep or uses a reserved key. Knows just enough JSON for that; it need not be valid.
pub(super) fn check(text: &str) -> Result<(), DecodeError> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at);
                if matches!(bytes.get(at + 1), Some(b'$' | b'\\'))
                    && is_key(&bytes[end..])
                    && is_reserved(&text[at..end])
                {
                    return Err(DecodeError::NotJson(format!(
                        "an object key begins with {RESERVED}"
                    )));
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DecodeError::TooLarge(format!(
                        "nested deeper than {MAX_DEPTH} levels"
                    )));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Where the string that begins at `start` is over: behind its closing quote, or at the end of the text.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_key(behind: &[u8]) -> bool {
    behind.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':')
}

fn is_reserved(quoted: &str) -> bool {
    serde_json::from_str::<String>(quoted).is_ok_and(|key| key.starts_with(RESERVED))
}

/// The text with every escaped half of a surrogate pair replaced by U+FFFD; none if there is no such half. Python
/// writes halves when an application cuts a text inside a character, and both Vumi generations read them.
pub(super) fn repair_surrogates(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        if *byte != b'\\' {
            at += 1;
            continue;
        }
        match (escape(bytes, at), escape(bytes, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                out.push_str(&text[copied..at]);
                out.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            _ => at += 2,
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// The UTF-16 unit of the escape `\uXXXX` that begins at `at`.
fn escape(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
