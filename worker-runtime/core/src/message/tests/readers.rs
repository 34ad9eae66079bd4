//! The documented rules of the two other readers of these queues, as small checkers: what Vumi 0.6 and Vumi 2 accept,
//! and what a Vumi 2 hop writes again. Written from the description of their behaviour; they judge what we emit.

use serde_json::{Map, Value, json};
use time::PrimitiveDateTime;
use time::macros::format_description;

/// Which class a reader decodes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    User,
    Event,
    Status,
    Failure,
    Heartbeat,
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    if !body.is_ascii() {
        return Err("neither generation writes anything but ASCII".into());
    }
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn present(map: &Map<String, Value>, keys: &[&str]) -> Result<(), String> {
    match keys.iter().find(|key| !map.contains_key(**key)) {
        Some(key) => Err(format!("{key} is missing")),
        None => Ok(()),
    }
}

fn one_of(map: &Map<String, Value>, key: &str, list: &[&str]) -> Result<(), String> {
    match map.get(key).and_then(Value::as_str) {
        Some(text) if list.contains(&text) => Ok(()),
        _ => Err(format!("{key} is {:?}", map.get(key))),
    }
}

fn not_null(map: &Map<String, Value>, key: &str) -> Result<(), String> {
    match map.get(key) {
        None | Some(Value::Null) => Err(format!("{key} is null or missing")),
        Some(_) => Ok(()),
    }
}

const EVENTS: [&str; 3] = ["ack", "nack", "delivery_report"];
const DELIVERY: [&str; 3] = ["pending", "failed", "delivered"];

/// Vumi 0.6: version, presence, closed lists.
pub(super) fn read_v1(kind: Kind, body: &[u8]) -> Result<(), String> {
    let map = object(body)?;
    if kind == Kind::Heartbeat {
        one_of(&map, "version", &["20130319"])?;
        return present(
            &map,
            &["system_id", "worker_id", "worker_name", "hostname", "pid"],
        );
    }
    v1_message(kind, &map)
}

fn v1_message(kind: Kind, map: &Map<String, Value>) -> Result<(), String> {
    one_of(map, "message_version", &["20110921"])?;
    not_null(map, "message_type")?;
    present(map, &["timestamp"])?;
    match kind {
        Kind::User => {
            present(
                map,
                &[
                    "message_id",
                    "to_addr",
                    "from_addr",
                    "in_reply_to",
                    "session_event",
                    "content",
                    "transport_name",
                    "transport_type",
                    "transport_metadata",
                ],
            )?;
            match map["session_event"] {
                Value::Null => Ok(()),
                _ => one_of(map, "session_event", &["new", "resume", "close"]),
            }
        }
        Kind::Event => {
            present(map, &["event_id", "user_message_id"])?;
            one_of(map, "event_type", &EVENTS)?;
            match map["event_type"].as_str() {
                Some("ack") => not_null(map, "sent_message_id"),
                Some("nack") => not_null(map, "nack_reason"),
                _ => one_of(map, "delivery_status", &DELIVERY),
            }
        }
        Kind::Status => {
            present(map, &["component", "type", "message"])?;
            one_of(map, "status", &["ok", "degraded", "down"])
        }
        Kind::Failure => {
            present(map, &["failure_code", "reason"])?;
            v1_message(
                Kind::User,
                map.get("message")
                    .and_then(Value::as_object)
                    .ok_or("message is no object")?,
            )
        }
        Kind::Heartbeat => unreachable!("has no version of this kind"),
    }
}

/// Vumi 2: types and closed lists. Returns what its next hop writes: known fields only, in its own order.
pub(super) fn read_v2(kind: Kind, body: &[u8]) -> Result<Vec<u8>, String> {
    let map = object(body)?;
    let out = match kind {
        Kind::User => v2_user(&map)?,
        Kind::Event => v2_event(&map)?,
        other => return Err(format!("Vumi 2 has no {other:?} messages")),
    };
    Ok(Value::Object(out).to_string().into_bytes())
}

/// A text attribute takes anything and makes Python's text of it.
fn coerced(value: &Value) -> Value {
    Value::String(match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => other.to_string(),
    })
}

fn v2_text(map: &Map<String, Value>, key: &str, default: &str) -> Value {
    map.get(key).map_or_else(|| json!(default), coerced)
}

fn v2_text_or_null(map: &Map<String, Value>, key: &str) -> Value {
    match map.get(key) {
        None | Some(Value::Null) => Value::Null,
        Some(value) => coerced(value),
    }
}

fn v2_object(map: &Map<String, Value>, key: &str) -> Result<Value, String> {
    match map.get(key) {
        None => Ok(json!({})),
        Some(Value::Object(object)) => Ok(Value::Object(object.clone())),
        Some(_) => Err(format!("{key} is no object")),
    }
}

fn v2_timestamp(map: &Map<String, Value>) -> Result<Value, String> {
    let Some(value) = map.get("timestamp") else {
        return Ok(json!("2024-01-01 00:00:00.000000"));
    };
    let text = value.as_str().ok_or("timestamp is no text")?;
    let text = text.strip_suffix('Z').unwrap_or(text);
    let with = format_description!(
        "[year]-[month padding:none]-[day padding:none] [hour padding:none]:[minute padding:none]:[second padding:none].[subsecond digits:1+]"
    );
    let without = format_description!(
        "[year]-[month padding:none]-[day padding:none] [hour padding:none]:[minute padding:none]:[second padding:none]"
    );
    let time = PrimitiveDateTime::parse(text, with)
        .or_else(|_| PrimitiveDateTime::parse(text, without))
        .map_err(|e| format!("timestamp {text:?}: {e}"))?;
    let written =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:6]");
    Ok(json!(time.format(written).map_err(|e| e.to_string())?))
}

fn v2_user(map: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let addresses = [
        "irc_nickname",
        "twitter_handle",
        "msisdn",
        "gtalk_id",
        "jabber_id",
        "mxit_id",
        "wechat_id",
    ];
    let transports = [
        "http_api", "irc", "telnet", "twitter", "sms", "ussd", "xmpp", "mxit", "wechat",
    ];
    present(map, &["to_addr", "from_addr", "transport_name"])?;
    one_of(map, "transport_type", &transports)?;
    let nullable = |key: &str, list: &[&str]| match map.get(key) {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(value) => one_of(map, key, list).map(|()| value.clone()),
    };
    let out = json!({
        "to_addr": coerced(&map["to_addr"]),
        "from_addr": coerced(&map["from_addr"]),
        "transport_name": coerced(&map["transport_name"]),
        "transport_type": map["transport_type"],
        "message_version": v2_text(map, "message_version", "20110921"),
        "message_type": v2_text(map, "message_type", "user_message"),
        "timestamp": v2_timestamp(map)?,
        "routing_metadata": v2_object(map, "routing_metadata")?,
        "helper_metadata": v2_object(map, "helper_metadata")?,
        "message_id": v2_text(map, "message_id", "fresh"),
        "in_reply_to": v2_text_or_null(map, "in_reply_to"),
        "provider": v2_text_or_null(map, "provider"),
        "session_event": nullable("session_event", &["new", "resume", "close"])?,
        "content": v2_text_or_null(map, "content"),
        "transport_metadata": v2_object(map, "transport_metadata")?,
        "group": v2_text_or_null(map, "group"),
        "to_addr_type": nullable("to_addr_type", &addresses)?,
        "from_addr_type": nullable("from_addr_type", &addresses)?,
    });
    out.as_object().cloned().ok_or_else(String::new)
}

fn v2_event(map: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    present(map, &["user_message_id"])?;
    one_of(map, "event_type", &EVENTS)?;
    match map["event_type"].as_str() {
        Some("ack") => not_null(map, "sent_message_id")?,
        Some("nack") => not_null(map, "nack_reason")?,
        _ => not_null(map, "delivery_status")?,
    }
    let status = match map.get("delivery_status") {
        None | Some(Value::Null) => Value::Null,
        Some(value) => one_of(map, "delivery_status", &DELIVERY).map(|()| value.clone())?,
    };
    let transport_metadata = match map.get("transport_metadata") {
        Some(Value::Null) => Value::Null,
        _ => v2_object(map, "transport_metadata")?,
    };
    let out = json!({
        "user_message_id": coerced(&map["user_message_id"]),
        "event_type": map["event_type"],
        "message_version": v2_text(map, "message_version", "20110921"),
        "message_type": v2_text(map, "message_type", "event"),
        "timestamp": v2_timestamp(map)?,
        "routing_metadata": v2_object(map, "routing_metadata")?,
        "helper_metadata": v2_object(map, "helper_metadata")?,
        "transport_metadata": transport_metadata,
        "event_id": v2_text(map, "event_id", "fresh"),
        "sent_message_id": v2_text_or_null(map, "sent_message_id"),
        "nack_reason": v2_text_or_null(map, "nack_reason"),
        "delivery_status": status,
    });
    out.as_object().cloned().ok_or_else(String::new)
}
