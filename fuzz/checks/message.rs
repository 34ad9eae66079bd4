//! What must hold for any body: the fuzz target `message` and a test of the normal suite check it.

use super::wire::{Event, Heartbeat, Message, TransportStatus, UserMessage};

/// Decoding never fails but with an error, and what was decoded is decoded again from its own body, unchanged.
pub fn message(body: &[u8]) {
    for flow in [vumi_api::Flow::Inbound, vumi_api::Flow::Event] {
        let Ok(first) = Message::decode(flow, body) else {
            continue;
        };
        let again = Message::decode(flow, &first.encode());
        assert_eq!(again.as_ref(), Ok(&first), "the body that came");
        let mut written = first.clone();
        written.set_endpoint("fuzz");
        let again = Message::decode(flow, &written.encode());
        assert_eq!(
            again.as_ref(),
            Ok(&written),
            "the body that was written anew"
        );
        assert!(written.encode().is_ascii());
    }
    if let Ok(user) = UserMessage::decode(body) {
        let reply = user.reply("worker", 0, user.content(), true);
        assert_eq!(UserMessage::decode(&reply.encode()), Ok(reply));
    }
    if let Ok(event) = Event::decode(body) {
        let _ = (event.fate(), event.timestamp(), event.delivery_status());
    }
    if let Ok(status) = TransportStatus::decode(body) {
        assert_eq!(TransportStatus::decode(&status.encode()), Ok(status));
    }
    if let Ok(beat) = Heartbeat::decode(body) {
        assert_eq!(Heartbeat::decode(&beat.encode()), Ok(beat));
    }
}
