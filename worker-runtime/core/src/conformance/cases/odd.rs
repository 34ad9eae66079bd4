//! Messages that are JSON and not as they should be: fields of another kind, no id, and contents on which handling fails.

use crate::conformance::rig::{Rig, UnderTest, eventually};
use crate::message::Message;
use bytes::Bytes;
use serde_json::{Value, json};
use vumi_api::{Flow, Port};

/// Users of messages that are not as they should be: nobody else's lane waits behind theirs.
const ODD_USERS: usize = 100;

/// A message of which something is replaced.
struct Odd {
    id: String,
    fields: String,
    body: Bytes,
}

/// Longer than AMQP's property for an id can be.
fn long_id() -> String {
    "i".repeat(300)
}

/// An object with a number that is valid JSON and beyond what a float holds.
fn huge() -> Value {
    serde_json::from_str(r#"{"huge": 1e400}"#).unwrap_or_default()
}

/// Fields with values that no reader has to make sense of.
fn wrong(flow: Flow) -> Vec<Value> {
    match flow {
        Flow::Event => vec![
            json!({"event_type": "maybe"}),
            json!({"event_type": 5}),
            json!({"user_message_id": ["x"]}),
        ],
        Flow::Inbound | Flow::Outbound => vec![
            json!({"content": ["x"]}),
            json!({"content": {"text": "x"}}),
            json!({"from_addr": {}}),
            json!({"to_addr": [1]}),
            json!({"in_reply_to": {}}),
            json!({"session_event": "reopened"}),
        ],
    }
}

/// Fields with values that some programs write and that a reader may take or refuse.
fn unusual(flow: Flow) -> Vec<Value> {
    match flow {
        Flow::Event => vec![
            json!({"helper_metadata": "x"}),
            json!({"transport_metadata": null}),
            json!({"helper_metadata": huge()}),
            json!({"user_message_id": long_id()}),
            json!({"event_id": long_id()}),
            // Whoever sets it aside names it.
            json!({"event_id": long_id(), "event_type": "maybe"}),
        ],
        Flow::Inbound | Flow::Outbound => vec![
            json!({"content": 5}),
            json!({"content": "{} {0} %s %d \u{0} \u{1b}[0m"}),
            json!({"from_addr": 27_829_000_000_i64}),
            json!({"from_addr": null}),
            json!({"message_id": null}),
            json!({"message_id": ""}),
            json!({"message_id": long_id()}),
            json!({"message_id": long_id(), "content": ["x"]}),
            json!({"transport_metadata": "x"}),
            json!({"transport_metadata": huge()}),
            json!({"helper_metadata": null}),
            json!({"helper_metadata": huge()}),
            json!({"timestamp": 5}),
        ],
    }
}

fn odd<W: UnderTest>(rig: &Rig<W>, port: &Port, replaced: Vec<Value>) -> Vec<Odd> {
    let each = replaced.into_iter().enumerate();
    each.filter_map(|(n, replaced)| {
        let message = rig.message(port, ODD_USERS + n, 0);
        let mut body: Value = serde_json::from_slice(&message.encode()).ok()?;
        let replaced = replaced.as_object()?;
        let fields: Vec<&str> = replaced.keys().map(String::as_str).collect();
        body.as_object_mut()?.extend(replaced.clone());
        Some(Odd {
            id: message.id().to_owned(),
            fields: fields.join(" and "),
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
                odd.fields
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_number_is_written_as_one() {
        let huge = &huge()["huge"];
        assert!(huge.is_number(), "{huge}");
        assert_eq!(huge.as_f64(), None);
    }
}
