//! Whether what was seen is what a case expects.

use super::file::{Response, Sent};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use vumi_core::message::UserMessage;
use vumi_http::{Answer, Call, HeaderMap};

/// Sets fields of a message by their names on the wire.
pub(super) fn fill(message: &mut UserMessage, fields: &Map<String, Value>) {
    for (name, value) in fields {
        message.set_field(name, value.clone());
    }
}

pub(super) fn with_id(expected: &Map<String, Value>, id: &str) -> Map<String, Value> {
    let text = Value::Object(expected.clone())
        .to_string()
        .replace("$id", id);
    serde_json::from_str(&text).unwrap()
}

/// Demands that `seen` has what is expected, and perhaps more.
pub(super) fn agree(what: &str, expected: &Map<String, Value>, seen: &Value) -> Result<(), String> {
    for (name, value) in expected {
        let there = seen.get(name).unwrap_or(&Value::Null);
        match (value, there) {
            (Value::Object(expected), Value::Object(_)) => {
                agree(&format!("{what}.{name}"), expected, there)?
            }
            _ if value == there => {}
            _ => return Err(format!("{what}.{name} is {there} and not {value}")),
        }
    }
    Ok(())
}

fn header_agrees(what: &str, name: &str, value: &str, headers: &HeaderMap) -> Result<(), String> {
    let there = headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    match there == value {
        true => Ok(()),
        false => Err(format!(
            "{what}: header {name} is {there:?} and not {value:?}"
        )),
    }
}

pub(super) fn respond(expected: &Response, answer: &Answer, id: &str) -> Result<(), String> {
    let body = String::from_utf8_lossy(&answer.body);
    let status = expected.status.unwrap_or(200);
    if answer.status.as_u16() != status {
        return Err(format!(
            "response: status {} and not {status}: {body}",
            answer.status
        ));
    }
    let wanted = expected.body.as_ref().map(|body| body.replace("$id", id));
    if let Some(wanted) = wanted.filter(|wanted| *wanted != body) {
        return Err(format!("response: body {body:?} and not {wanted:?}"));
    }
    if let Some(wanted) = &expected.json {
        let wanted: Value = serde_json::from_str(&wanted.to_string().replace("$id", id)).unwrap();
        let seen: Value = serde_json::from_str(&body).unwrap_or_default();
        if seen != wanted {
            return Err(format!("response: {seen} and not {wanted}"));
        }
    }
    for (name, value) in &expected.headers {
        header_agrees("response", name, value, &answer.headers)?;
    }
    Ok(())
}

pub(super) fn called(expected: &Sent, call: &Call, id: &str) -> Result<(), String> {
    let text = call.url.to_string();
    let (url, query) = text.split_once('?').unwrap_or((&text, ""));
    if expected.url.as_deref().is_some_and(|wanted| wanted != url) {
        return Err(format!("calls: {url} and not {:?}", expected.url));
    }
    let method = expected.method.as_deref().unwrap_or("POST");
    if call.method.as_str() != method {
        return Err(format!("calls: {} and not {method}", call.method));
    }
    let pairs = |bytes: &[u8]| -> BTreeMap<String, String> {
        form_urlencoded::parse(bytes).into_owned().collect()
    };
    let wanted = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        map.iter()
            .map(|(name, value)| (name.clone(), value.replace("$id", id)))
            .collect()
    };
    let seen = pairs(query.as_bytes());
    if seen != wanted(&expected.query) {
        return Err(format!("calls: query {seen:?}"));
    }
    if let Some(form) = &expected.form {
        let seen = pairs(&call.body);
        if seen != wanted(form) {
            return Err(format!("calls: form {seen:?}"));
        }
    }
    if let Some(json) = &expected.json {
        let json = json.to_string().replace("$id", id);
        let json: Value = serde_json::from_str(&json).unwrap();
        let seen: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        if seen != json {
            return Err(format!("calls: body {seen}"));
        }
    }
    if let Some(body) = &expected.body
        && call.body != body.replace("$id", id)
    {
        return Err(format!("calls: body {:?}", call.body));
    }
    for (name, value) in &expected.headers {
        header_agrees("calls", name, value, &call.headers)?;
    }
    Ok(())
}
