use super::*;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use crate::broker::{Access, Broker, Confirmation, QueueSpec, Subscribe};
use crate::error::ErrorClass;
use crate::message::UserMessage;
use crate::withdraw::Withdrawal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const ORIGIN: &str = "t.inbound";

fn broker() -> Arc<dyn Broker> {
    EmbeddedBroker::open(EmbeddedOptions::default()).unwrap()
}

fn delivery(body: impl Into<Bytes>) -> RawDelivery {
    RawDelivery {
        tag: 1,
        generation: 1,
        redelivered: false,
        routing_key: ORIGIN.into(),
        body: body.into(),
        message_id: Some("amqp-1".into()),
        delivery_count: None,
    }
}

fn error() -> WorkError {
    WorkError::new(
        ErrorClass::BadInput,
        codes::MESSAGE_INVALID,
        "field to_addr: missing",
    )
}

fn user_message(id: &str) -> Bytes {
    let mut message = UserMessage::new("sms", Some("27831234567"), Some("27837654321"));
    message.set_message_id(id);
    message.set_content(Some("my secret"));
    message.encode()
}

fn envelope(body: impl Into<Bytes>) -> Envelope {
    Envelope::new(ORIGIN, &delivery(body), &error(), "application/a", 3)
}

async fn publish(broker: &dyn Broker, publication: Publication) {
    let receipt = broker.publish(publication).await;
    assert_eq!(receipt.confirmation().await, Confirmation::Confirmed);
}

/// For queues whose messages nobody waits to hear of.
fn untold() -> Withdrawal<'static> {
    Withdrawal {
        store: None,
        broker: None,
        keep: Duration::from_secs(3600),
    }
}

/// A broker with both queues and these messages parked.
async fn with_parked(envelopes: &[Envelope]) -> Arc<dyn Broker> {
    let broker = broker();
    let parking = QueueSpec::Parking(parked_queue(ORIGIN));
    broker
        .declare(&QueueSpec::Data(ORIGIN.into()))
        .await
        .unwrap();
    broker.declare(&parking).await.unwrap();
    for envelope in envelopes {
        publish(broker.as_ref(), envelope.publication()).await;
    }
    broker
}

async fn depth(broker: &dyn Broker, queue: &str) -> u32 {
    broker.depth(queue).await.unwrap().unwrap().ready
}

/// Takes `count` messages off the origin queue.
async fn consumed(broker: &dyn Broker, count: usize) -> Vec<RawDelivery> {
    let mut subscription = broker
        .subscribe(Subscribe {
            queue: QueueSpec::Data(ORIGIN.into()),
            prefetch: 1000,
            access: Access::Shared,
            tag: "test".into(),
        })
        .await;
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), subscription.deliveries.recv());
        taken.push(next.await.unwrap().unwrap());
    }
    subscription.acker.close();
    taken
}

/// What Vumi's failure worker counted in a message is gone when a person sends it back; any other body stays as it is.
#[tokio::test]
async fn attempts_begin_anew_with_a_requeue() {
    let plain = user_message("m-1");
    let mut counted = UserMessage::decode(&user_message("m-2")).unwrap();
    counted.set_field(
        "retry_metadata",
        serde_json::json!({"retries": 9, "delay": 3600}),
    );
    let odd = Bytes::from_static(b"{\"retry_metadata\": {\"retries\": 9}}");
    let parked = [plain.clone(), counted.encode(), odd.clone()].map(envelope);
    let broker = with_parked(&parked).await;
    let handled = requeue(broker.as_ref(), ORIGIN, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 3);
    let back = consumed(broker.as_ref(), 3).await;
    assert_eq!((&back[0].body, &back[2].body), (&plain, &odd));
    let message = UserMessage::decode(&back[1].body).unwrap();
    assert_eq!(message.field("retry_metadata"), None);
    counted.forget_retries();
    assert_eq!(message, counted);
}

#[test]
fn an_envelope_keeps_everything() {
    for body in [
        user_message("m-1"),
        Bytes::from_static(b"not json"),
        Bytes::from_static("d\u{e9}j\u{e0} \"vu\"\n".as_bytes()),
        Bytes::from_static(&[0xff, 0, 0x80, b'{']),
        Bytes::new(),
    ] {
        let parked = envelope(body.clone());
        let read = Envelope::decode(&parked.encode()).unwrap();
        assert_eq!(read, parked);
        assert_eq!(read.body, body);
    }
    let parked = envelope(user_message("m-1"));
    assert_eq!(parked.message_id.as_deref(), Some("m-1"));
    assert_eq!(parked.amqp_message_id.as_deref(), Some("amqp-1"));
    assert_eq!(parked.code, "message.invalid");
    assert_eq!(parked.class, "bad_input");
    assert_eq!(envelope(&b"not json"[..]).message_id, None);
}

#[test]
fn text_bodies_stay_readable_in_the_envelope() {
    let wire = envelope(&b"not json"[..]).encode();
    let value: Value = serde_json::from_slice(&wire).unwrap();
    assert_eq!(value["body"], "not json");
    assert!(value["time"].is_number());
    assert_eq!(value["origin"], ORIGIN);
}

#[test]
fn what_is_no_envelope_is_an_error_without_content_and_no_panic() {
    let mut not_base64: Value = serde_json::from_slice(&envelope("x").encode()).unwrap();
    not_base64["encoding"] = "base64".into();
    not_base64["body"] = "secret".into();
    let mut wrong_type = not_base64.clone();
    wrong_type["attempts"] = "secret".into();
    for body in [
        "".into(),
        "[]".into(),
        "{}".into(),
        "secret".into(),
        r#"{"origin": 1}"#.into(),
        not_base64.to_string(),
        wrong_type.to_string(),
    ] {
        let problem = Envelope::decode(body.as_bytes()).unwrap_err();
        assert!(!problem.contains("secret"), "{problem}");
    }
    assert!(Envelope::decode(b"\xff").is_err());
}

#[tokio::test]
async fn a_listing_shows_reasons_and_no_content_and_changes_nothing() {
    let parked = [envelope(user_message("m-1")), envelope(user_message("m-2"))];
    let broker = with_parked(&parked).await;
    let first = list(broker.as_ref(), ORIGIN, 10).await.unwrap();
    let ids: Vec<_> = first.iter().map(|s| s.message_id.as_deref()).collect();
    assert_eq!(ids, [Some("m-1"), Some("m-2")]);
    assert_ne!(first[0].id, first[1].id);
    let text = serde_json::to_string(&first).unwrap();
    for secret in ["my secret", "27831234567", "27837654321"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(
        text.contains("message.invalid") && text.contains("567"),
        "{text}"
    );
    for _ in 0..30 {
        let again = list(broker.as_ref(), ORIGIN, 10).await.unwrap();
        assert_eq!(again, first, "same ids, same order, however often");
    }
    let limited = list(broker.as_ref(), ORIGIN, 1).await.unwrap();
    assert_eq!(limited, first[..1]);
    assert_eq!(depth(broker.as_ref(), "t.inbound.parked").await, 2);
}

#[tokio::test]
async fn a_queue_of_which_nothing_was_parked_is_empty_and_stays_undeclared() {
    let broker = broker();
    let b = broker.as_ref();
    assert_eq!(list(b, ORIGIN, 10).await.unwrap(), []);
    assert_eq!(show(b, ORIGIN, "x").await.unwrap(), None);
    assert_eq!(
        requeue(b, ORIGIN, &Selection::All).await.unwrap(),
        Handled::default()
    );
    assert_eq!(
        drop(b, &untold(), ORIGIN, &Selection::All).await.unwrap(),
        Handled::default()
    );
    assert_eq!(b.depth("t.inbound.parked").await.unwrap(), None);
}

#[tokio::test]
async fn only_show_gives_the_content() {
    let original = envelope(user_message("m-1"));
    let broker = with_parked(std::slice::from_ref(&original)).await;
    let id = list(broker.as_ref(), ORIGIN, 10).await.unwrap()[0]
        .id
        .clone();
    let parked = show(broker.as_ref(), ORIGIN, &id).await.unwrap().unwrap();
    assert_eq!(parked.envelope, original);
    assert_eq!(parked.summary.id, id);
    assert_eq!(
        show(broker.as_ref(), ORIGIN, "nothing").await.unwrap(),
        None
    );
    assert_eq!(depth(broker.as_ref(), "t.inbound.parked").await, 1);
}

#[tokio::test]
async fn requeued_messages_are_as_they_were_in_publications_of_their_own() {
    let binary = Bytes::from_static(&[0xff, 0, 1]);
    let bodies = [user_message("m-1"), binary, user_message("m-3")];
    let parked: Vec<_> = bodies.iter().cloned().map(envelope).collect();
    let broker = with_parked(&parked).await;
    let handled = requeue(broker.as_ref(), ORIGIN, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 3);
    assert_eq!(depth(broker.as_ref(), "t.inbound.parked").await, 0);
    let back = consumed(broker.as_ref(), 3).await;
    for (delivery, body) in back.iter().zip(&bodies) {
        assert_eq!(delivery.body, body);
    }
    let ids: BTreeSet<_> = back.iter().map(|d| d.message_id.clone()).collect();
    assert_eq!(ids.len(), 3);
    assert!(!ids.contains(&None) && !ids.contains(&Some("amqp-1".into())));
}

#[tokio::test]
async fn a_selection_takes_only_what_it_names() {
    let mut other = envelope(user_message("m-2"));
    other.code = "route.none".into();
    let parked = [
        envelope(user_message("m-1")),
        other,
        envelope(user_message("m-3")),
    ];
    let broker = with_parked(&parked).await;
    let b = broker.as_ref();
    let by_code = Selection::Code("route.none".into());
    let handled = requeue(b, ORIGIN, &by_code).await.unwrap();
    assert_eq!((handled.done, handled.kept), (1, 2));
    assert_eq!(consumed(b, 1).await[0].body, parked[1].body);

    let left = list(b, ORIGIN, 10).await.unwrap();
    let ids: Vec<_> = left.iter().map(|s| s.message_id.clone().unwrap()).collect();
    assert_eq!(ids, ["m-1", "m-3"], "in their order");
    let by_id = Selection::Ids(vec![left[1].id.clone(), "unknown".into()]);
    let handled = drop(b, &untold(), ORIGIN, &by_id).await.unwrap();
    assert_eq!((handled.done, handled.kept, handled.stopped), (1, 1, None));
    let left = list(b, ORIGIN, 10).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message_id.as_deref(), Some("m-1"));
    let handled = drop(b, &untold(), ORIGIN, &Selection::All).await.unwrap();
    assert_eq!((handled.done, handled.kept), (1, 0));
}

#[tokio::test]
async fn what_cannot_be_requeued_stays_parked_with_the_reason() {
    let mut lost = envelope(user_message("m-2"));
    lost.origin = "gone.inbound".into();
    let broker = with_parked(&[envelope(user_message("m-1"))]).await;
    let into_same_queue = Publication {
        routing_key: parked_queue(ORIGIN),
        ..lost.publication()
    };
    publish(broker.as_ref(), into_same_queue).await;
    let handled = requeue(broker.as_ref(), ORIGIN, &Selection::All)
        .await
        .unwrap();
    assert_eq!((handled.done, handled.kept), (1, 1));
    let why = handled.stopped.unwrap();
    assert!(why.contains("gone.inbound"), "{why}");
    let left = list(broker.as_ref(), ORIGIN, 10).await.unwrap();
    assert_eq!(left[0].message_id.as_deref(), Some("m-2"));
}

#[tokio::test]
async fn more_than_one_batch_is_requeued_in_order() {
    let parked: Vec<_> = (0..250)
        .map(|n| envelope(user_message(&format!("m-{n}"))))
        .collect();
    let broker = with_parked(&parked).await;
    let handled = requeue(broker.as_ref(), ORIGIN, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 250);
    let back = consumed(broker.as_ref(), 250).await;
    let bodies: Vec<_> = back.into_iter().map(|d| d.body).collect();
    let expected: Vec<_> = parked.into_iter().map(|e| e.body).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn a_body_without_envelope_is_listed_and_can_be_requeued_or_dropped() {
    let broker = with_parked(&[]).await;
    let body = user_message("m-9");
    let foreign = Publication {
        body: body.clone(),
        ..envelope(Bytes::new()).publication()
    };
    publish(broker.as_ref(), foreign).await;
    let listed = list(broker.as_ref(), ORIGIN, 10).await.unwrap();
    assert_eq!(listed[0].code, "parked.foreign");
    assert_eq!(listed[0].message_id.as_deref(), Some("m-9"));
    let selection = Selection::Ids(vec![listed[0].id.clone()]);
    let handled = requeue(broker.as_ref(), ORIGIN, &selection).await.unwrap();
    assert_eq!(handled.done, 1);
    assert_eq!(consumed(broker.as_ref(), 1).await[0].body, body);
}

#[tokio::test]
async fn a_body_too_large_for_an_envelope_is_parked_bare_and_comes_back() {
    let body = Bytes::from(vec![0xff; 15 << 20]);
    let broker = with_parked(&[envelope(body.clone())]).await;
    let listed = list(broker.as_ref(), ORIGIN, 10).await.unwrap();
    assert_eq!(
        (listed[0].code.as_str(), listed[0].size),
        ("parked.foreign", 15 << 20)
    );
    let handled = requeue(broker.as_ref(), ORIGIN, &Selection::All).await;
    assert_eq!(handled.unwrap().done, 1);
    assert!(consumed(broker.as_ref(), 1).await[0].body == body);
}
