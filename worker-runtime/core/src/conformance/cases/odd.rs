//! Messages that are JSON and not as they should be: fields of another kind, no id, and contents on which handling fails.

use crate::conformance::rig::{Rig, UnderTest, eventually};
use crate::message::Message;
use bytes::Bytes;
use serde_json::{Value, json};
use vumi_api::{Flow, Port};

/// Users of messages that are not as they should be: nobody else's lane waits behind theirs.
const ODD_USERS: usize = 100;

/// A message with one field replaced.
struct Odd {
    id: String,
    field: &'static str,
    body: Bytes,
}

/// Values that no reader has to make sense of.
fn wrong(flow: Flow) -> Vec<(&'static str, Value)> {
    match flow {
        Flow::Event => vec![
            ("event_type", json!("maybe")),
            ("event_type", json!(5)),
            ("user_message_id", json!(["x"])),
        ],
        Flow::Inbound | Flow::Outbound => vec![
            ("content", json!(["x"])),
            ("content", json!({"text": "x"})),
            ("from_addr", json!({})),
            ("to_addr", json!([1])),
            ("in_reply_to", json!({})),
            ("session_event", json!("reopened")),
        ],
    }
}

/// Values that some programs write and that a reader may take or refuse.
fn unusual(flow: Flow) -> Vec<(&'static str, Value)> {
    match flow {
        Flow::Event => vec![
            ("helper_metadata", json!("x")),
            ("transport_metadata", Value::Null),
        ],
        Flow::Inbound | Flow::Outbound => vec![
            ("content", json!(5)),
            ("content", json!("{} {0} %s %d \u{0} \u{1b}[0m")),
            ("from_addr", json!(27_829_000_000_i64)),
            ("from_addr", Value::Null),
            ("message_id", Value::Null),
            ("message_id", json!("")),
            ("transport_metadata", json!("x")),
            ("helper_metadata", Value::Null),
            ("timestamp", json!(5)),
        ],
    }
}

fn odd<W: UnderTest>(rig: &Rig<W>, port: &Port, fields: Vec<(&'static str, Value)>) -> Vec<Odd> {
    let each = fields.into_iter().enumerate();
    each.filter_map(|(n, (field, value))| {
        let message = rig.message(port, ODD_USERS + n, 0);
        let mut body: Value = serde_json::from_slice(&message.encode()).ok()?;
        body.as_object_mut()?.insert(field.into(), value);
        Some(Odd {
            id: message.id().to_owned(),
            field,
            body: body.to_string().into(),
        })
    })
    .collect()
}

/// The flow goes on after messages whose fields are of another kind than they should be, on every consumed queue.
pub(super) async fn odd_fields_stop_nothing<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let ports: Vec<Port> = rig.consumed().cloned().collect();
    for port in &ports {
        let all = [wrong(port.flow), unusual(port.flow)].concat();
        for odd in odd(rig, port, all) {
            rig.feed(&port.queue(), odd.body).await?;
        }
        neighbours_flow(rig, port).await?;
    }
    rig.until_consuming().await?;
    rig.settle().await.map(drop)
}

async fn neighbours_flow<W: UnderTest>(rig: &Rig<W>, port: &Port) -> Result<(), String> {
    for user in 0..3 {
        let id = rig.send(port, &rig.message(port, user, 1)).await?;
        if rig.answers(port) {
            let out = rig.far_end.output_of(&id).await;
            out.map_err(|what| format!("a message behind it in {port}: {what}"))?;
        }
    }
    Ok(())
}

/// Messages with fields that cannot be right are set aside, or their sender is told.
pub(super) async fn odd_fields_are_kept<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    let ports: Vec<Port> = rig.consumed().cloned().collect();
    for port in &ports {
        for odd in odd(rig, port, wrong(port.flow)) {
            rig.feed(&port.queue(), odd.body).await?;
            let what = format!(
                "a message of {port} with a wrong {} is set aside",
                odd.field
            );
            kept(rig, port, &odd.id, &what).await?;
        }
    }
    rig.settle().await.map(drop)
}

/// Waits until a message is set aside, or came to something.
async fn kept<W: UnderTest>(rig: &Rig<W>, port: &Port, id: &str, what: &str) -> Result<(), String> {
    eventually(what, async || {
        let parked = rig.parked(port).await?;
        let aside = parked.iter().any(|envelope| {
            let body = String::from_utf8_lossy(&envelope.body);
            body.contains(id)
        });
        match aside || !rig.far_end.caused_by(id).is_empty() {
            true => Ok(()),
            false => Err("it is not, and nothing came of it".to_owned()),
        }
    })
    .await
}

/// A message without an id is handled, under an id that what it causes can name.
pub(super) async fn missing_ids_are_made<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        if port.flow == Flow::Event {
            continue;
        }
        for (n, missing) in [Value::Null, json!("")].into_iter().enumerate() {
            let message = rig.message(&port, n, 0);
            let mut body: Value =
                serde_json::from_slice(&message.encode()).map_err(|e| e.to_string())?;
            body["message_id"] = missing;
            let before = rig.far_end.seen().len();
            rig.feed(&port.queue(), body.to_string().into()).await?;
            let what = "an output caused by a message without an id";
            let newest = |seen: &[crate::conformance::far_end::Seen]| seen.get(before).cloned();
            let seen = rig.far_end.until(what, newest).await?;
            let named = match &seen.message {
                Message::User(message) if rig.answers_itself() => message.in_reply_to(),
                Message::User(message) => Some(message.message_id()),
                Message::Event(event) => Some(event.user_message_id()),
            };
            if named.unwrap_or_default().is_empty() {
                return Err(format!(
                    "what came of it in {} names no cause",
                    seen.place()
                ));
            }
        }
    }
    rig.settle().await.map(drop)
}

/// A message on which handling fails is set aside, or its sender is told, and the others flow.
pub(super) async fn failure_stops_nothing<W: UnderTest>(rig: &mut Rig<W>) -> Result<(), String> {
    for port in rig.answering() {
        let Message::User(mut poison) = rig.message(&port, 0, 0) else {
            continue;
        };
        rig.under.poison(&mut poison);
        let id = rig.send(&port, &poison.into()).await?;
        neighbours_flow(rig, &port).await?;
        kept(
            rig,
            &port,
            &id,
            "the message on which it fails is set aside",
        )
        .await?;
    }
    rig.until_consuming().await?;
    rig.settle().await.map(drop)
}
