//! What a hop costs a body: nothing if it changes nothing, and never a stale byte if it changes something.

use super::vectors::{json, vectors};
use crate::message::{Message, SessionEvent, UserMessage};
use serde_json::json;
use vumi_api::Flow;

/// Writes that leave everything as it was keep the very bytes, spaces and unusual escapes included.
#[test]
fn an_untouched_message_leaves_as_the_bytes_that_came() {
    let body = String::from_utf8(vectors()["user-vumi06-inbound"].clone()).unwrap();
    let body = body.replace("acme-mobile", "\\u0061cme mobile é");
    let mut message = Message::decode(Flow::Inbound, body.as_bytes()).unwrap();
    assert_eq!(message.encode(), body.as_bytes());
    message.set_endpoint("default");
    message.set_transport_name("ussd_za");
    if let Message::User(user) = &mut message {
        user.set_session_event(Some(SessionEvent::New));
        user.set_content(None);
    }
    assert_eq!(message.clone().encode(), body.as_bytes());
}

type Write = fn(&mut UserMessage);

#[test]
fn every_way_to_write_shows_in_the_next_body() {
    let writes: [(&str, Write); 10] = [
        ("routing_metadata", |m| m.set_endpoint("other")),
        ("transport_name", |m| m.set_transport_name("other")),
        ("message_id", |m| m.set_message_id("other")),
        ("to_addr", |m| m.set_to_addr(Some("other"))),
        ("from_addr", |m| m.set_from_addr(None)),
        ("content", |m| m.set_content(Some("other"))),
        ("session_event", |m| m.set_session_event(None)),
        ("new_field", |m| m.set_field("new_field", json!([1]))),
        ("transport_metadata", |m| {
            m.transport_metadata_mut().insert("k".into(), json!(1));
        }),
        ("helper_metadata", |m| {
            m.helper_metadata_mut().insert("k".into(), json!(1));
        }),
    ];
    let body = &vectors()["user-vumi06-inbound"];
    for (key, write) in writes {
        let mut message = UserMessage::decode(body).unwrap();
        write(&mut message);
        let (before, after) = (json(body), json(&message.encode()));
        assert_ne!(before.get(key), after.get(key), "{key}");
        for (other, value) in before.as_object().unwrap() {
            if other != key {
                assert_eq!(after.get(other), Some(value), "{other} after {key}");
            }
        }
    }
}
