//! Rules of replies, sends, endpoints, ids and events, and that both Vumi generations read what we make.

use super::readers::{Kind, read_v1, read_v2};
use super::vectors::vectors;
use crate::message::{
    DeliveryStatus, Event, EventType, FailureCode, FailureMessage, Fate, FateState, Heartbeat,
    SessionEvent, Timestamp, TransportStatus, UserMessage, derived_id, random_id,
};
use crate::status::{StatusLevel, StatusReport};
use serde_json::{Value, json};

fn inbound() -> UserMessage {
    let mut message = UserMessage::new("ussd", Some("*120#"), Some("+2782"));
    message.set_transport_name("ussd_za");
    message.set_field("provider", "acme");
    message.set_field("from_addr_type", "msisdn");
    message.set_endpoint("menu");
    message.set_session_event(Some(SessionEvent::Resume));
    message
        .transport_metadata_mut()
        .insert("sid".into(), json!("q"));
    message
        .helper_metadata_mut()
        .insert("tag".into(), json!({"tag": ["p", "t"]}));
    message
}

#[test]
fn a_reply_swaps_and_copies_as_documented() {
    let message = inbound();
    let reply = message.reply("application/x", 0, Some("hi"), false);
    for (key, expected) in [
        ("to_addr", json!("+2782")),
        ("from_addr", json!("*120#")),
        ("in_reply_to", json!(message.message_id())),
        ("group", Value::Null),
        ("provider", json!("acme")),
        ("transport_name", json!("ussd_za")),
        ("transport_type", json!("ussd")),
        ("transport_metadata", json!({"sid": "q"})),
        ("helper_metadata", json!({"tag": {"tag": ["p", "t"]}})),
        ("routing_metadata", json!({"endpoint_name": "menu"})),
        ("session_event", Value::Null),
        ("content", json!("hi")),
        ("to_addr_type", Value::Null),
        ("from_addr_type", Value::Null),
    ] {
        assert_eq!(reply.field(key), Some(&expected), "{key}");
    }
    let closing = message.reply("application/x", 1, None, true);
    assert_eq!(closing.session_event(), Some(SessionEvent::Close));
    assert_ne!(closing.message_id(), reply.message_id());
    assert_eq!(reply, {
        let mut again = message.reply("application/x", 0, Some("hi"), false);
        again.set_field("timestamp", reply.field("timestamp").unwrap().clone());
        again
    });
}

#[test]
fn a_send_answers_nothing_and_has_every_field() {
    let message = UserMessage::send("+2782", Some("news"));
    assert_eq!(message.to_addr(), Some("+2782"));
    for key in [
        "in_reply_to",
        "from_addr",
        "transport_name",
        "transport_type",
        "session_event",
    ] {
        assert_eq!(message.field(key), Some(&Value::Null), "{key}");
    }
    read_v1(Kind::User, &message.encode()).unwrap();
}

#[test]
fn the_endpoint_is_default_unless_written_and_its_neighbours_stay() {
    let mut message = inbound();
    message.set_field("routing_metadata", json!({"other": 1}));
    assert_eq!(message.endpoint(), "default");
    message.set_field(
        "routing_metadata",
        json!({"endpoint_name": null, "other": 1}),
    );
    assert_eq!(message.endpoint(), "default");
    message.set_endpoint("sms");
    let expected = json!({"endpoint_name": "sms", "other": 1});
    assert_eq!(message.field("routing_metadata"), Some(&expected));
}

#[test]
fn both_generations_read_every_message_we_make() {
    let message = inbound();
    let fate = Fate {
        state: FateState::Failed,
        class: "recipient".into(),
        code: "0x0B".into(),
        text: "The number does not exist.".into(),
        who: "campaign".into(),
        attempt: 2,
        is_final: true,
    };
    for user in [
        message.clone(),
        message.reply("w", 0, Some("Zoë 😀"), true),
        message.reply("w", 1, None, false),
    ] {
        read_v1(Kind::User, &user.encode()).unwrap();
        let again = read_v2(Kind::User, &user.encode()).unwrap();
        assert_eq!(
            UserMessage::decode(&again).unwrap().content(),
            user.content()
        );
    }
    for event in [
        Event::ack("m", "remote"),
        Event::ack("m", ""),
        Event::nack("m", &fate),
        Event::delivery_report("m", "remote", DeliveryStatus::Pending),
    ] {
        let mut event = event;
        event.set_transport_name("ussd_za");
        read_v1(Kind::Event, &event.encode()).unwrap();
        let again = Event::decode(&read_v2(Kind::Event, &event.encode()).unwrap()).unwrap();
        assert_eq!(again.event_type(), event.event_type());
        assert_eq!(again.event_id(), event.event_id());
        assert_eq!(again.fate(), event.fate(), "fate survives a Vumi 2 hop");
    }
    let report = StatusReport::new(
        "link",
        StatusLevel::Degraded,
        crate::reasons::SLOWED_DOWN,
        "Slow.",
    );
    let mut status = TransportStatus::new(&report);
    status.details_mut().insert("n".into(), json!(1));
    read_v1(Kind::Status, &status.encode()).unwrap();
    assert_eq!(
        TransportStatus::decode(&status.encode()).unwrap().report(),
        report
    );
    let failure = FailureMessage::new(&message, FailureCode::Permanent, "gone");
    read_v1(Kind::Failure, &failure.encode()).unwrap();
    let failure = FailureMessage::decode(&failure.encode()).unwrap();
    assert_eq!(failure.message(), Some(message));
    assert_eq!(
        (failure.code(), failure.reason()),
        (FailureCode::Permanent, "gone")
    );
    let beat = Heartbeat::new("za", "smpp_a", "node7", 4121, 1709647629.25);
    read_v1(Kind::Heartbeat, &beat.encode()).unwrap();
    let beat = Heartbeat::decode(&beat.encode()).unwrap();
    assert_eq!(
        (beat.worker_id(), beat.epoch()),
        ("za:smpp_a", Some(1709647629.25))
    );
}

#[test]
fn a_nack_says_class_and_sentence_and_ids_of_events_follow_their_cause() {
    let fate = Fate {
        state: FateState::Failed,
        class: "route".into(),
        code: "route.none".into(),
        text: "No route.".into(),
        who: "operator".into(),
        attempt: 1,
        is_final: true,
    };
    let nack = Event::nack("m", &fate);
    assert_eq!(nack.nack_reason(), Some("route: No route."));
    assert_eq!(nack.event_type(), EventType::Nack);
    assert_eq!(nack.event_id(), Event::nack("m", &fate).event_id());
    assert_ne!(nack.event_id(), Event::nack("n", &fate).event_id());
    let pending = Event::delivery_report("m", "r", DeliveryStatus::Pending);
    let delivered = Event::delivery_report("m", "r", DeliveryStatus::Delivered);
    assert_ne!(pending.event_id(), delivered.event_id());
    assert_eq!(delivered.delivery_status(), Some(DeliveryStatus::Delivered));
}

#[test]
fn ids_are_32_hex_digits_and_their_parts_do_not_run_together() {
    for id in [random_id(), derived_id(&["a"])] {
        assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    }
    assert_ne!(random_id(), random_id());
    assert_ne!(derived_id(&["a", "bc"]), derived_id(&["ab", "c"]));
}

#[test]
fn a_message_without_an_id_gets_the_same_one_at_every_delivery() {
    let body = String::from_utf8(vectors()["user-vumi06-oldest"].clone()).unwrap();
    let anonymous = body.replace(r#""message_id": "old""#, r#""message_id": null"#);
    let first = UserMessage::decode(anonymous.as_bytes()).unwrap();
    let again = UserMessage::decode(anonymous.as_bytes()).unwrap();
    assert_eq!(first.message_id().len(), 32);
    assert_eq!(first.message_id(), again.message_id());
    let other = UserMessage::decode(anonymous.replace("1:2:3", "1:2:4").as_bytes()).unwrap();
    assert_ne!(first.message_id(), other.message_id());
}

#[test]
fn timestamps_are_read_as_both_generations_read_them_and_written_one_way() {
    for (text, written) in [
        ("2024-03-05 14:07:09.000123", "2024-03-05 14:07:09.000123"),
        ("2024-03-05 14:07:09.5", "2024-03-05 14:07:09.500000"),
        ("2024-03-05 14:07:09", "2024-03-05 14:07:09.000000"),
        ("2024-03-05 14:07:09.25Z", "2024-03-05 14:07:09.250000"),
        ("2024-3-5  1:2:3", "2024-03-05 01:02:03.000000"),
        ("1850-01-01 00:00:00", "1850-01-01 00:00:00.000000"),
    ] {
        let read: Timestamp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(read.to_string(), written);
    }
    for text in [
        "",
        "yesterday",
        "2024-03-05T14:07:09",
        "2024-13-05 14:07:09",
        "2024-03-05",
    ] {
        assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
    }
    let time: Timestamp = "1970-01-01 00:01:00.5".parse().unwrap();
    assert_eq!(time.epoch(), 60.5);
}
