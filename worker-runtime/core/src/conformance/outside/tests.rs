//! What is read from frames, and what is done to them.

use super::book::Book;
use super::channels::{Channels, Step};
use super::frames::{Frame, method};
use crate::conformance::faults::{Mischief, Mishap};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame};
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::protocol::{AMQPClass, BasicProperties, confirm};
use std::collections::BTreeSet;
use std::sync::Arc;

const OUT: &str = "sms.outbound";

struct Line {
    book: Arc<Book>,
    channels: Channels,
}

impl Line {
    fn new() -> Self {
        let data = BTreeSet::from([OUT.to_owned(), "sms.inbound.parked".to_owned()]);
        let book = Arc::new(Book::new(data));
        let mut line = Self {
            channels: Channels::new(Arc::clone(&book)),
            book,
        };
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        line.worker(AMQPClass::Confirm(select));
        line
    }

    fn worker(&mut self, class: AMQPClass) -> Step {
        self.channels.worker_says(read(method(1, class)))
    }

    fn broker(&mut self, class: AMQPClass) -> Step {
        self.channels.broker_says(read(method(1, class)))
    }

    /// The last step of publishing `body`, with the key that the broker sees.
    fn publish(&mut self, key: &str, body: &[u8]) -> Step {
        let publish = basic::Publish {
            exchange: "vumi".into(),
            routing_key: key.into(),
            mandatory: true,
            immediate: false,
        };
        let held = self.worker(AMQPClass::Basic(Basic::Publish(publish)));
        assert_eq!(held, Step::Pass(Vec::new()), "waits for its content");
        let mut step = Step::Pass(Vec::new());
        for frame in content(body, 2) {
            step = self.channels.worker_says(frame);
        }
        step
    }

    fn deliver(&mut self, tag: u64, body: &[u8]) {
        self.broker(AMQPClass::Basic(Basic::Deliver(basic::Deliver {
            consumer_tag: "c".into(),
            delivery_tag: tag,
            redelivered: false,
            exchange: "vumi".into(),
            routing_key: "sms.inbound".into(),
        })));
        for frame in content(body, 2) {
            self.channels.broker_says(frame);
        }
    }

    fn ack(&mut self, tag: u64, multiple: bool) -> Step {
        self.worker(AMQPClass::Basic(Basic::Ack(basic::Ack {
            delivery_tag: tag,
            multiple,
        })))
    }

    fn confirm(&mut self, tag: u64, multiple: bool) -> Step {
        self.broker(AMQPClass::Basic(Basic::Ack(basic::Ack {
            delivery_tag: tag,
            multiple,
        })))
    }
}

fn frame(frame: &AMQPFrame) -> Frame {
    read(gen_frame(frame)(Vec::new().into()).unwrap().into_inner().0)
}

fn read(bytes: Vec<u8>) -> Frame {
    futures::executor::block_on(Frame::next(&mut &bytes[..])).unwrap()
}

/// Header and body, in two parts.
fn content(body: &[u8], mode: u8) -> Vec<Frame> {
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: body.len() as u64,
        properties: BasicProperties::default().with_delivery_mode(mode),
    };
    let (first, second) = body.split_at(body.len() / 2);
    vec![
        frame(&AMQPFrame::Header(1, header)),
        frame(&AMQPFrame::Body(1, first.to_vec())),
        frame(&AMQPFrame::Body(1, second.to_vec())),
    ]
}

/// Methods in these bytes, by their frames.
fn methods(step: Step) -> Vec<AMQPClass> {
    let (Step::Pass(bytes) | Step::Confirmation(bytes)) = step else {
        panic!("cut");
    };
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let frame = futures::executor::block_on(Frame::next(&mut rest)).unwrap();
        if let Some(AMQPFrame::Method(_, class)) = frame.read() {
            found.push(class);
        }
    }
    found
}

fn key_of(step: Step) -> String {
    match methods(step).remove(0) {
        AMQPClass::Basic(Basic::Publish(publish)) => publish.routing_key.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_delivery_has_one_fate() {
    let mut line = Line::new();
    for tag in 1..=4 {
        line.deliver(tag, br#"{"message_id": "m"}"#);
    }
    assert_eq!(line.book.page().attempts["m"], 4);
    assert_eq!(line.book.counts().in_flight, 4);
    line.ack(2, true);
    let refuse = |tag, requeue| {
        AMQPClass::Basic(Basic::Reject(basic::Reject {
            delivery_tag: tag,
            requeue,
        }))
    };
    line.worker(refuse(3, true));
    let c = line.book.counts();
    assert_eq!((c.received, c.done, c.returned, c.in_flight), (4, 2, 1, 1));
    let book = Arc::clone(&line.book);
    drop(line);
    let c = book.counts();
    assert_eq!((c.done, c.returned, c.in_flight), (2, 2, 0));
    // What was returned comes again.
    assert!(!book.is_at_rest());
}

#[test]
fn an_acknowledgement_that_is_swallowed_does_not_reach_the_broker() {
    let mut line = Line::new();
    line.deliver(1, b"{}");
    line.book.swallow_acks(true);
    assert_eq!(line.ack(1, false), Step::Pass(Vec::new()));
    assert_eq!((line.book.acks_tried(), line.book.acks_passed()), (1, 0));
    assert_eq!(line.book.counts().done, 1);
}

#[test]
fn who_acknowledges_nothing_has_acknowledged_at_once() {
    let mut line = Line::new();
    let consume = basic::Consume {
        consumer_tag: "c".into(),
        no_ack: true,
        ..basic::Consume::default()
    };
    line.worker(AMQPClass::Basic(Basic::Consume(consume)));
    line.deliver(1, b"{}");
    let c = line.book.counts();
    assert_eq!((c.done, c.in_flight, line.book.acks_tried()), (1, 0, 1));
}

#[test]
fn publications_meet_what_a_case_wants() {
    let mut line = Line::new();
    line.book.next(&[Mishap::Nacked, Mishap::Returned]);
    let nowhere = format!("{OUT}.nowhere");
    assert_eq!(key_of(line.publish(OUT, b"{}")), nowhere);
    // A status is no data: nothing befalls it.
    assert_eq!(
        key_of(line.publish("sms.status.status", b"{}")),
        "sms.status.status"
    );
    assert_eq!(key_of(line.publish(OUT, b"{}")), nowhere);
    assert_eq!(key_of(line.publish(OUT, b"{}")), OUT);
    assert_eq!(line.book.unrouted(), 1);
    // One confirmation for all of them becomes one for each, the first of them a refusal.
    let told = methods(line.confirm(4, true));
    assert!(
        matches!(
            &told[..],
            [
                AMQPClass::Basic(Basic::Nack(basic::Nack {
                    delivery_tag: 1,
                    ..
                })),
                AMQPClass::Basic(Basic::Ack(basic::Ack {
                    delivery_tag: 2,
                    ..
                })),
                AMQPClass::Basic(Basic::Ack(basic::Ack {
                    delivery_tag: 3,
                    ..
                })),
                AMQPClass::Basic(Basic::Ack(basic::Ack {
                    delivery_tag: 4,
                    ..
                })),
            ]
        ),
        "{told:?}"
    );
    line.book.next(&[Mishap::ConfirmationLost, Mishap::Lost]);
    assert_eq!(key_of(line.publish(OUT, b"{}")), OUT);
    assert_eq!(line.confirm(5, false), Step::Cut);
    assert_eq!(line.publish(OUT, b"{}"), Step::Cut);
    assert_eq!(line.book.mishaps_left(), 0);
}

#[test]
fn what_is_set_aside_is_counted_and_what_is_transient_is_noted() {
    let mut line = Line::new();
    line.deliver(1, b"garbage");
    line.publish("sms.inbound.parked", b"{}");
    line.ack(1, false);
    let c = line.book.counts();
    assert_eq!((c.done, c.parked), (0, 1));
    assert_eq!(line.book.careless(), None);
    let publish = basic::Publish {
        routing_key: OUT.into(),
        ..basic::Publish::default()
    };
    line.worker(AMQPClass::Basic(Basic::Publish(publish)));
    for frame in content(b"{}", 1) {
        line.channels.worker_says(frame);
    }
    assert_eq!(line.book.careless().as_deref(), Some(OUT));
}
