//! One ack or nack per message, ever (R11): in what form its sender may be told a second one.

use crate::message::{DeliveryStatus, Event, EventType, Fate, FateState};
use std::borrow::Cow;

/// `event` as it may be told after what was told before. An ack or nack that would be the second one is a delivery
/// report: pending with fate `sent` for an ack, failed with the same fate for a nack.
pub(crate) fn after<'e>(told: &[Event], event: &'e Event) -> Cow<'e, Event> {
    if !told.iter().any(is_judgement) {
        return Cow::Borrowed(event);
    }
    let id = event.user_message_id();
    let mut report = match event.event_type() {
        EventType::DeliveryReport => return Cow::Borrowed(event),
        EventType::Ack => {
            let remote_id = event.sent_message_id().unwrap_or_default();
            let mut report = Event::delivery_report(id, remote_id, DeliveryStatus::Pending);
            report.set_fate(&event.fate().unwrap_or_else(taken));
            report
        }
        EventType::Nack => {
            let fate = event.fate();
            // Each attempt may fail in its turn: the reports differ.
            let attempt = fate.as_ref().map_or(0, |fate| fate.attempt);
            let attempt = format!("attempt {attempt}");
            let mut report = Event::delivery_report(id, &attempt, DeliveryStatus::Failed);
            if let Some(fate) = fate {
                report.set_fate(&fate);
            }
            report
        }
    };
    for field in ["timestamp", "transport_name"] {
        if let Some(value) = event.field(field) {
            report.set_field(field, value.clone());
        }
    }
    Cow::Owned(report)
}

fn taken() -> Fate {
    Fate {
        state: FateState::Sent,
        class: String::new(),
        code: String::new(),
        text: "the peer took it".into(),
        who: String::new(),
        attempt: 0,
        is_final: false,
    }
}

/// Whether an event is an ack or nack.
pub(crate) fn is_judgement(event: &Event) -> bool {
    event.event_type() != EventType::DeliveryReport
}

/// Whether an event says what an attempt came to, in whatever form; a report that nobody knows yet does not.
pub(crate) fn is_verdict(event: &Event) -> bool {
    let fate = event.fate().map(|fate| fate.state);
    is_judgement(event)
        || matches!(fate, Some(FateState::Sent | FateState::SentFinal))
        || matches!(
            event.delivery_status(),
            Some(DeliveryStatus::Failed | DeliveryStatus::Delivered)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_ack_or_nack_is_a_report_that_says_the_same() {
        let ack = Event::ack("m", "r1");
        let fate = Fate {
            state: FateState::Failed,
            class: "credit".into(),
            code: "30".into(),
            text: "no credit".into(),
            who: "operator".into(),
            attempt: 1,
            is_final: true,
        };
        let nack = Event::nack("m", &fate);
        let pending = Event::delivery_report("m", "", DeliveryStatus::Pending);
        let first = std::slice::from_ref(&pending);
        assert_eq!(*after(first, &ack), ack, "the first one stays");
        for told in [&ack, &nack] {
            let told = std::slice::from_ref(told);
            let second = after(told, &ack);
            assert_eq!(second.delivery_status(), Some(DeliveryStatus::Pending));
            assert!(is_verdict(&second) && !is_verdict(&pending));
            let second = after(told, &nack);
            assert_eq!(second.delivery_status(), Some(DeliveryStatus::Failed));
            assert_eq!(second.fate(), Some(fate.clone()));
            assert_eq!(second.timestamp(), nack.timestamp());
            let again = Event::nack(
                "m",
                &Fate {
                    attempt: 2,
                    ..fate.clone()
                },
            );
            assert_ne!(after(told, &again).event_id(), second.event_id());
        }
    }
}
