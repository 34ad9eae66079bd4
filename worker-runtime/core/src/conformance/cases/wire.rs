//! What other workers may count on of a message, a queue and a session, whoever wrote the worker.

use crate::broker::{Confirmation, PublicationClass};
use crate::conformance::far_end::Seen;
use crate::conformance::faults::Mischief;
use crate::conformance::rig::{MARK, Rig, UnderTest, eventually};
use crate::message::{EventType, Message, SessionEvent, UserMessage};
use serde_json::{Value, json};
use std::time::Duration;
use vumi_api::{Flow, Port};

/// After this what does not come is held to stay away.
const QUIET: Duration = Duration::from_millis(300);

/// What it consumes is declared and bound by its own name, so that a message finds the queue whoever sends it.
pub(super) async fn queues_are_declared<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let ports: Vec<Port> = rig.consumed().cloned().collect();
    for port in ports {
        let body = rig.message(&port, 0, 0).encode();
        // Nothing is declared for this publication.
        let receipt = rig
            .publish(port.queue(), body, PublicationClass::Direct)
            .await;
        match receipt.confirmation().await {
            Confirmation::Confirmed => {}
            Confirmation::Returned(_) => {
                return Err(format!(
                    "{port} is not bound to the exchange vumi with the routing key {port}"
                ));
            }
            other => return Err(format!("the suite cannot publish to {port}: {other:?}")),
        }
    }
    rig.settle().await.map(drop)
}

/// What it publishes can be read, holds every field, and outlives the broker.
pub(super) async fn messages_are_whole<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        let contents = ["", "ж😀 \"quoted\" \\", "2012-10-12 01:02:03"];
        for (n, content) in contents.into_iter().enumerate() {
            let Message::User(mut message) = rig.message(&port, 0, n) else {
                continue;
            };
            let text = format!("{MARK} {content}");
            let text = rig.saying.replace("{}", &text);
            message.set_content(Some(&text));
            let id = rig.send(&port, &message.into()).await?;
            rig.far_end.output_of(&id).await?;
        }
    }
    match rig.faults.careless() {
        None => rig.settle().await.map(drop),
        Some(queue) => Err(format!(
            "what it publishes to {queue} is not persistent: it is lost when the broker restarts"
        )),
    }
}

/// Messages as other programs write them are handled: without the fields that may be absent, with fields that nobody
/// knows, with another form of timestamp.
pub(super) async fn sparse_messages<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        let Ok(mut body) = serde_json::from_slice::<Value>(&rig.message(&port, 0, 0).encode())
        else {
            continue;
        };
        let Some(fields) = body.as_object_mut() else {
            continue;
        };
        let optional = ["group", "provider", "to_addr_type", "from_addr_type"];
        for key in optional
            .iter()
            .chain(&["helper_metadata", "routing_metadata"])
        {
            fields.remove(*key);
        }
        if port.flow != Flow::Event {
            fields.insert("timestamp".into(), "2024-3-5 1:02:03Z".into());
        }
        fields.insert("conformance_extension".into(), json!({"a": [1, null]}));
        let id = rig.message(&port, 0, 0).id().to_owned();
        rig.feed(&port.queue(), body.to_string().into()).await?;
        rig.far_end.output_of(&id).await?;
    }
    rig.settle().await.map(drop)
}

/// An application's reply names what it answers, goes back to the address it came from, and belongs to the transport.
pub(super) async fn replies_name_their_cause<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        let Message::User(asked) = rig.message(&port, 0, 0) else {
            continue;
        };
        let id = rig.send(&port, &asked.clone().into()).await?;
        let seen = rig.far_end.output_of(&id).await?;
        let Message::User(reply) = &seen.message else {
            return Err("an inbound message caused an event".into());
        };
        let differs = differences(&asked, reply);
        if !differs.is_empty() {
            return Err(format!("in a reply {}", differs.join(", ")));
        }
    }
    rig.settle().await.map(drop)
}

fn differences(asked: &UserMessage, reply: &UserMessage) -> Vec<String> {
    let id = Value::from(asked.message_id());
    let swapped = [("to_addr", "from_addr"), ("from_addr", "to_addr")];
    let same = ["transport_name", "transport_type"].map(|key| (key, key));
    let mut expected = vec![("in_reply_to", Some(&id))];
    let fields = swapped.iter().chain(&same);
    expected.extend(fields.map(|(key, of)| (*key, asked.field(of))));
    let expected = expected.into_iter();
    let wrong = expected.filter(|(key, value)| reply.field(key) != *value);
    wrong
        .map(|(key, value)| {
            let null = Value::Null;
            let got = reply.field(key).unwrap_or(&null);
            format!("{key} is {got} instead of {}", value.unwrap_or(&null))
        })
        .collect()
}

/// An application answers the opening of a session, which has no content.
pub(super) async fn openings_are_answered<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in inbound(rig) {
        let id = rig
            .send(&port, &session(rig, &port, 0, SessionEvent::New))
            .await?;
        rig.far_end.output_of(&id).await?;
    }
    rig.settle().await.map(drop)
}

/// An application goes on with a session that was opened, opens none itself, and does not answer the end of one.
pub(super) async fn sessions_are_kept<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in inbound(rig) {
        let events = [SessionEvent::New, SessionEvent::Resume, SessionEvent::Close];
        let mut ids = Vec::new();
        for (n, event) in events.into_iter().enumerate() {
            ids.push(rig.send(&port, &session(rig, &port, n, event)).await?);
        }
        rig.far_end.output_of(&ids[1]).await?;
        // Of the same user and after it, so that the end of the session was handled for sure.
        let last = rig.send(&port, &rig.message(&port, 0, ids.len())).await?;
        rig.far_end.output_of(&last).await?;
        rig.settle().await?;
        tokio::time::sleep(QUIET).await;
        let opens = |seen: &Seen| match &seen.message {
            Message::User(reply) => reply.session_event() == Some(SessionEvent::New),
            Message::Event(_) => false,
        };
        if rig.far_end.seen().iter().any(opens) {
            return Err("a reply opens a session, which only a transport can".into());
        }
        if !rig.far_end.caused_by(&ids[2]).is_empty() {
            return Err("the end of a session is answered, and nobody is there any more".into());
        }
    }
    Ok(())
}

fn inbound<W: UnderTest>(rig: &Rig<W>) -> Vec<Port> {
    let ports = rig.answering().into_iter();
    ports.filter(|port| port.flow == Flow::Inbound).collect()
}

/// The `n`-th message of a user, with this event; only a message in the middle of a session has a content.
fn session<W: UnderTest>(rig: &Rig<W>, port: &Port, n: usize, event: SessionEvent) -> Message {
    let mut message = rig.message(port, 0, n);
    if let Message::User(message) = &mut message {
        message.set_session_event(Some(event));
        if event != SessionEvent::Resume {
            message.set_content(None);
        }
    }
    message
}

/// A transport says of each outbound message exactly once that it was sent, with the peer's id, or why it was not.
pub(super) async fn one_outcome_each<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let port = Port::new(&rig.name, Flow::Outbound);
    let sent = rig.send_many(&port, 0..3, 0..2).await?;
    for (_, id) in &sent {
        let seen = rig.far_end.output_of(id).await?;
        let Message::Event(event) = &seen.message else {
            return Err("an outbound message caused a user message".into());
        };
        let whole = match event.event_type() {
            EventType::Ack => event.sent_message_id().is_some(),
            EventType::Nack => event.nack_reason().is_some(),
            EventType::DeliveryReport => true,
        };
        if !whole {
            return Err("an ack without sent_message_id or a nack without nack_reason".into());
        }
    }
    rig.settle().await?;
    tokio::time::sleep(QUIET).await;
    for (_, id) in &sent {
        let seen = rig.far_end.caused_by(id);
        let outcomes = seen.iter().filter(|seen| match &seen.message {
            Message::Event(event) => event.event_type() != EventType::DeliveryReport,
            Message::User(_) => false,
        });
        match outcomes.count() {
            1 => {}
            n => return Err(format!("message {id} got {n} acks and nacks")),
        }
    }
    Ok(())
}

/// What no queue takes is not lost with it: the message that caused it is set aside, or is there for the next life of the
/// worker.
pub(super) async fn unroutable_is_kept<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let all = rig.topology.publishes.iter().map(Port::queue);
    rig.faults.unroutable(all.collect::<Vec<_>>());
    let mut sent = Vec::new();
    for port in rig.answering() {
        let id = rig.send(&port, &rig.message(&port, 0, 0)).await?;
        eventually("its output is refused", async || {
            match rig.faults.unrouted() as usize {
                n if n > sent.len() => Ok(()),
                _ => Err("nothing was published".to_owned()),
            }
        })
        .await?;
        sent.push((port, id));
    }
    // Time for an acknowledgement that should not be.
    tokio::time::sleep(QUIET).await;
    rig.faults.unroutable([]);
    rig.crash_and_restart().await?;
    for (port, id) in &sent {
        eventually("the message comes out or was set aside", async || {
            let parked = rig.parked(port).await?;
            let aside = parked.iter().any(|e| e.message_id.as_deref() == Some(id));
            match aside || !rig.far_end.caused_by(id).is_empty() {
                true => Ok(()),
                false => Err("it is neither: it was lost with its output".to_owned()),
            }
        })
        .await?;
    }
    rig.settle().await.map(drop)
}
