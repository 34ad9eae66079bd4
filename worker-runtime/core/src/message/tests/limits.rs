//! What is refused before anything is built, and what is not.

use super::vectors::vectors;
use crate::message::{DecodeError, MAX_BODY, MAX_DEPTH, UserMessage};
use serde_json::{Value, json};

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut message = UserMessage::new("ussd", Some("1"), Some("2"));
    message.set_field(field, value);
    message.encode().to_vec()
}

#[test]
fn size_and_depth_have_exact_limits() {
    let body = with("content", json!(""));
    let fits = with("content", json!("x".repeat(MAX_BODY - body.len())));
    assert_eq!(fits.len(), MAX_BODY);
    UserMessage::decode(&fits).unwrap();
    let long = with("content", json!("x".repeat(MAX_BODY - body.len() + 1)));
    assert!(matches!(
        UserMessage::decode(&long),
        Err(DecodeError::TooLarge(_))
    ));

    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    UserMessage::decode(&with("deep", nested(MAX_DEPTH - 1))).unwrap();
    let deep = with("deep", nested(MAX_DEPTH));
    assert!(matches!(
        UserMessage::decode(&deep),
        Err(DecodeError::TooLarge(_))
    ));
    let bomb = vec![b'['; MAX_BODY];
    assert!(matches!(
        UserMessage::decode(&bomb),
        Err(DecodeError::TooLarge(_))
    ));
    let brackets = with("content", json!("[".repeat(1000) + "\\\"{"));
    UserMessage::decode(&brackets).unwrap();
}

#[test]
fn keys_that_the_parser_keeps_for_itself_are_refused_however_they_are_escaped() {
    for key in [
        "$serde_json::private::Number",
        "$serde_json::private::RawValue",
        "\\u0024serde_json::private::RawValue",
        "$serde\\u005fjson::private::Number",
    ] {
        let body = String::from_utf8(with("extra", json!({"KEY": "[1]"}))).unwrap();
        let body = body.replace("\"KEY\"", &format!("\"{key}\" "));
        let refused = UserMessage::decode(body.as_bytes());
        assert!(matches!(refused, Err(DecodeError::NotJson(_))), "{key}");
    }
    let text = "$serde_json::private::Number: not a key";
    let message = UserMessage::decode(&with("content", json!(text))).unwrap();
    assert_eq!(message.content(), Some(text));
}

#[test]
fn half_a_character_costs_that_character_and_not_the_message() {
    let body = String::from_utf8(with("content", json!("CUT"))).unwrap();
    for (cut, read) in [
        ("good \\ud83d\\ude00 bad \\ud83d", "good 😀 bad \u{fffd}"),
        ("\\udE00\\ud83d\\ud83d\\ude00", "\u{fffd}\u{fffd}😀"),
        ("\\\\ud83d \\ud83dx", "\\ud83d \u{fffd}x"),
    ] {
        let message = UserMessage::decode(body.replace("CUT", cut).as_bytes()).unwrap();
        assert_eq!(message.content(), Some(read));
        let again = UserMessage::decode(&message.encode()).unwrap();
        assert_eq!(again, message);
    }
    assert!(UserMessage::decode(body.replace("CUT", "\\ud83d\\x").as_bytes()).is_err());
}

#[test]
fn a_missing_field_is_named() {
    let whole: Value = serde_json::from_slice(&vectors()["user-vumi06-inbound"]).unwrap();
    for key in [
        "message_id",
        "timestamp",
        "to_addr",
        "from_addr",
        "in_reply_to",
        "content",
        "session_event",
        "transport_name",
        "transport_type",
        "transport_metadata",
        "message_type",
    ] {
        let mut less = whole.clone();
        less.as_object_mut().unwrap().shift_remove(key);
        let error = UserMessage::decode(less.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    let error = UserMessage::decode(&with("to_addr", json!(["a"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "field to_addr: must be text or null, is a list"
    );
}
