//! Golden bodies of both Vumi generations: read, kept whole, and still readable by both after a change of ours.

use super::readers::{Kind, read_v1, read_v2};
use crate::message::{
    DecodeError, Event, FailureMessage, Heartbeat, Message, TransportStatus, UserMessage,
};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use vumi_api::Flow;

pub(super) fn vectors() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

fn kind(name: &str) -> Option<Kind> {
    match name.split('-').next()? {
        "user" => Some(Kind::User),
        "event" => Some(Kind::Event),
        "status" => Some(Kind::Status),
        "failure" => Some(Kind::Failure),
        "heartbeat" => Some(Kind::Heartbeat),
        _ => None,
    }
}

fn forward(kind: Kind, body: &[u8]) -> Result<Bytes, DecodeError> {
    Ok(match kind {
        Kind::User => UserMessage::decode(body)?.encode(),
        Kind::Event => Event::decode(body)?.encode(),
        Kind::Status => TransportStatus::decode(body)?.encode(),
        Kind::Failure => FailureMessage::decode(body)?.encode(),
        Kind::Heartbeat => Heartbeat::decode(body)?.encode(),
    })
}

pub(super) fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

/// `after` holds everything of `before`, apart from fields named in `changed`.
fn keeps(before: &[u8], after: &[u8], changed: &[&str]) {
    let after = json(after);
    for (key, value) in json(before).as_object().unwrap() {
        if !changed.contains(&key.as_str()) {
            assert_eq!(after.get(key), Some(value), "{key}");
        }
    }
}

#[test]
fn every_golden_body_is_forwarded_whole_and_read_by_vumi_06() {
    let mut seen = 0;
    for (name, body) in vectors() {
        let Some(kind) = kind(&name) else { continue };
        let forwarded = forward(kind, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let changed: &[&str] = if name == "user-external-z" {
            &["to_addr"]
        } else {
            &[]
        };
        keeps(&body, &forwarded, changed);
        read_v1(kind, &forwarded).unwrap_or_else(|e| panic!("{name}: {e}"));
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} golden bodies found");
}

#[test]
fn what_vumi_2_refuses_of_the_golden_bodies_is_what_its_closed_lists_refuse() {
    let mut refused = Vec::new();
    for (name, body) in vectors() {
        let Some(kind @ (Kind::User | Kind::Event)) = kind(&name) else {
            continue;
        };
        match read_v2(kind, &forward(kind, &body).unwrap()) {
            Ok(again) => {
                forward(kind, &again).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
            Err(_) => refused.push(name),
        }
    }
    // Transport types outside its list: "old_simple_http" and null.
    assert_eq!(refused, ["user-vumi06-oldest", "user-vumi06-retried"]);
}

#[test]
fn a_vumi_2_hop_keeps_what_correctness_needs() {
    let body = &vectors()["user-vumi2-reply"];
    let mut message = UserMessage::decode(body).unwrap();
    message.set_field("ours_alone", 1);
    let again = UserMessage::decode(&read_v2(Kind::User, &message.encode()).unwrap()).unwrap();
    assert_eq!(again.field("ours_alone"), None, "it drops unknown fields");
    let holder = again.transport_metadata().unwrap().get("vumi_holder");
    assert_eq!(holder.and_then(Value::as_str), Some("ussd_za.reply.a"));
    assert_eq!(again.in_reply_to(), message.in_reply_to());
    assert_eq!(again.message_id(), message.message_id());
}

#[test]
fn bad_bodies_are_refused_with_a_code_and_without_their_content() {
    let expected = [
        ("bad-event-type", "message.invalid"),
        ("bad-nan", "message.not_json"),
        ("bad-not-object", "message.not_json"),
        ("bad-session-event", "message.invalid"),
        ("bad-utf8", "message.not_json"),
        ("bad-version", "message.version"),
    ];
    let vectors = vectors();
    let bad = vectors.iter().filter(|(name, _)| name.starts_with("bad-"));
    let found: Vec<_> = bad
        .map(|(name, body)| {
            let flow = if name.contains("event-type") {
                Flow::Event
            } else {
                Flow::Inbound
            };
            let error = Message::decode(flow, body).unwrap_err();
            assert!(
                !error.to_string().contains("stop"),
                "{error} quotes the body"
            );
            (name.as_str(), crate::error::Classify::code(&error).name)
        })
        .collect();
    assert_eq!(found, expected);
    let secret = UserMessage::decode(b"\"a secret text\"").unwrap_err();
    assert!(!secret.to_string().contains("secret"), "{secret}");
}
