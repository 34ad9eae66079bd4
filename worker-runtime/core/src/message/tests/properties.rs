//! Whatever a body holds beyond the format survives: every number, every text, the order of keys.

use super::readers::{Kind, read_v1};
use super::vectors::vectors;
use crate::message::{Event, UserMessage};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn number() -> impl Strategy<Value = Value> {
    let text = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?";
    text.prop_map(|text| serde_json::from_str(&text).unwrap())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        number(),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Unknown fields: names that the format does not use.
fn extras() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("x_.{0,12}", json_value()), 0..5).prop_map(|p| p.into_iter().collect())
}

fn golden(name: &str) -> Map<String, Value> {
    serde_json::from_slice(&vectors()[name]).unwrap()
}

proptest! {
    #[test]
    fn a_user_message_keeps_everything_through_a_hop(
        extra in extras(), metadata in extras(), content in any::<Option<String>>(), pretty in any::<bool>(),
    ) {
        let mut map = golden("user-vumi06-inbound");
        map.extend(extra);
        map.insert("content".into(), content.clone().map_or(Value::Null, Value::from));
        map.insert("helper_metadata".into(), Value::Object(metadata));
        let whole = Value::Object(map);
        let body = if pretty { serde_json::to_vec_pretty(&whole) } else { serde_json::to_vec(&whole) }.unwrap();
        let mut message = UserMessage::decode(&body).unwrap();
        prop_assert_eq!(message.content(), content.as_deref());
        prop_assert_eq!(&message.encode()[..], &body[..]);

        // A hop that writes keeps the rest, numbers to the digit and keys in their order.
        message.set_endpoint("elsewhere");
        let written = message.encode();
        prop_assert!(read_v1(Kind::User, &written).is_ok());
        let after: Value = serde_json::from_slice(&written).unwrap();
        let mut expected = whole.clone();
        expected["routing_metadata"]["endpoint_name"] = "elsewhere".into();
        prop_assert_eq!(after.to_string(), expected.to_string());
        prop_assert_eq!(UserMessage::decode(&written).unwrap(), message);
    }

    #[test]
    fn an_event_keeps_everything_through_a_hop(extra in extras()) {
        let mut map = golden("event-vumi06-report");
        map.extend(extra);
        let whole = Value::Object(map);
        let mut event = Event::decode(whole.to_string().as_bytes()).unwrap();
        event.set_endpoint("elsewhere");
        let after: Value = serde_json::from_slice(&event.encode()).unwrap();
        let mut expected = whole.clone();
        expected["routing_metadata"]["endpoint_name"] = "elsewhere".into();
        prop_assert_eq!(after.to_string(), expected.to_string());
    }

    #[test]
    fn no_bytes_bring_the_reader_down(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = UserMessage::decode(&body);
        let _ = Event::decode(&body);
    }

    #[test]
    fn no_broken_copy_brings_the_reader_down(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = vectors()["user-vumi06-retried"].clone();
        let at = cut.index(body.len());
        body[at] = byte;
        if let Ok(message) = UserMessage::decode(&body) {
            prop_assert_eq!(UserMessage::decode(&message.encode()).unwrap(), message);
        }
        let _ = UserMessage::decode(&body[..at]);
    }
}
