//! Messages and events that a test publishes.

use super::cast::{Cast, listed};
use super::file::{Given, GivenEvent};
use super::transcript::{Passed, Transcript};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use vumi_api::{Flow, Port};
use vumi_core::message::{Message, Timestamp, UserMessage, event_id, random_id};

/// The body of a message from or to a user, and where it is published.
pub fn message(
    given: &Given,
    flow: Flow,
    cast: &Cast,
    transcript: &Transcript,
) -> Result<(Port, Bytes), String> {
    let connector = connector(given.connector.as_ref(), flow, cast)?;
    let port = Port::new(&connector, flow);
    if let Some(raw) = &given.raw {
        return Ok((port, Bytes::from(raw.clone())));
    }
    let base = match given.reply {
        true => reply(&connector, transcript)?,
        false => UserMessage::new("test", given.to.as_deref(), given.from.as_deref()),
    };
    let mut message: Value = serde_json::from_slice(&base.encode()).unwrap_or_default();
    let fields = message.as_object_mut().ok_or("not an object")?;
    fields.insert("message_id".into(), random_id().into());
    // A reply belongs to the transport that the message came from, which may be another one behind a dispatcher.
    if !given.reply {
        fields.insert("transport_name".into(), connector.into());
    }
    for (field, value) in [
        ("from_addr", &given.from),
        ("to_addr", &given.to),
        ("content", &given.content),
        ("session_event", &given.session),
    ] {
        if let Some(value) = value {
            fields.insert(field.into(), value.clone().into());
        }
    }
    if let Some(endpoint) = &given.endpoint {
        fields.insert(
            "routing_metadata".into(),
            json!({"endpoint_name": endpoint}),
        );
    }
    if let Some(helper) = &given.helper_metadata {
        let metadata = fields
            .entry("helper_metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.extend(helper.clone());
        }
    }
    fields.extend(given.fields.clone());
    Ok((port, encoded(flow, &message)?))
}

/// A reply to the last message that came from the connector.
fn reply(connector: &str, transcript: &Transcript) -> Result<UserMessage, String> {
    let passed = transcript.all();
    let last = passed
        .iter()
        .rfind(|passed| passed.port == Port::new(connector, Flow::Inbound))
        .ok_or_else(|| format!("nothing came from {connector} that could be replied to"))?;
    let last = UserMessage::decode(last.body.to_string().as_bytes()).map_err(|e| e.to_string())?;
    Ok(last.reply("test", 0, None, false))
}

/// The body of an event, and where it is published.
pub fn event(
    given: &GivenEvent,
    cast: &Cast,
    transcript: &Transcript,
) -> Result<(Port, Bytes), String> {
    let connector = connector(given.connector.as_ref(), Flow::Event, cast)?;
    let passed = transcript.all();
    let about = passed
        .iter()
        .rfind(|passed| {
            passed.port == Port::new(&connector, Flow::Outbound)
                && given
                    .of
                    .as_ref()
                    .is_none_or(|of| of.fits(passed.text("content")))
        })
        .map(Passed::id)
        .ok_or_else(|| format!("no such message was sent to {connector}"))?;
    let status = given.status.as_deref();
    let mut event = json!({
        "message_version": "20110921", "message_type": "event", "event_type": given.event_type,
        "event_id": event_id(about, &given.event_type, "test", status.unwrap_or("")),
        "user_message_id": about, "timestamp": Timestamp::now().to_string(), "transport_name": connector,
        "transport_metadata": {}, "helper_metadata": {}, "routing_metadata": {},
    });
    match given.event_type.as_str() {
        "ack" => event["sent_message_id"] = about.into(),
        "nack" => event["nack_reason"] = given.reason.as_deref().unwrap_or("refused").into(),
        _ => event["delivery_status"] = status.unwrap_or("delivered").into(),
    }
    let port = Port::new(connector, Flow::Event);
    Ok((port, encoded(Flow::Event, &event)?))
}

/// The connector that is meant, or the only one that can be.
fn connector(named: Option<&String>, flow: Flow, cast: &Cast) -> Result<String, String> {
    let real: Vec<&String> = cast.real.values().collect();
    let fit: Vec<&String> = match flow {
        Flow::Outbound => real.clone(),
        Flow::Inbound | Flow::Event => cast.stand_ins.iter().collect(),
    };
    match (named, &fit[..]) {
        (Some(named), _) if flow != Flow::Outbound && real.contains(&named) => Err(format!(
            "the transport of {named} runs in this test: speak to it with request or line"
        )),
        // A transport may be named as such.
        (Some(named), _) => Ok(cast.real.get(named).unwrap_or(named).clone()),
        (None, [one]) => Ok((*one).clone()),
        (None, _) => Err(format!("name the connector; there are: {}", listed(fit))),
    }
}

fn encoded(flow: Flow, message: &Value) -> Result<Bytes, String> {
    let body = message.to_string();
    let decoded = Message::decode(flow, body.as_bytes());
    Ok(decoded.map_err(|error| error.to_string())?.encode())
}
