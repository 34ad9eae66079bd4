//! Good requests, each with one thing wrong in it.

use super::file::Sent;
use super::scene::Scene;
use serde_json::{Value, json};
use vumi_http::Call;

/// Every way in which a request is wrong, with its name.
pub(super) fn all(scene: &Scene, sent: &Sent) -> Result<Vec<(String, Call)>, String> {
    let mut wrong = parameters(scene, sent)?;
    wrong.extend(parts(scene, sent));
    wrong.extend(json_bodies(scene, sent));
    wrong.extend(bytes(scene, sent));
    Ok(wrong)
}

/// Without a parameter, and with one that is no text and there three times.
fn parameters(scene: &Scene, sent: &Sent) -> Result<Vec<(String, Call)>, String> {
    let mut wrong = Vec::new();
    for form in [false, true] {
        let pairs = match form {
            true => sent.form.clone().unwrap_or_default(),
            false => sent.query.clone(),
        };
        for name in pairs.keys() {
            let mut without = sent.clone();
            match form {
                true => without.form.as_mut().and_then(|form| form.remove(name)),
                false => without.query.remove(name),
            };
            let without = scene.call(&without);
            let mut no_text = without.clone();
            wrong.push((format!("without {name}"), without));
            let coded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            let bad = format!("&{coded}=%ff%fe&{coded}=x&{coded}=y");
            match form {
                true => no_text.body = [&no_text.body, bad.as_bytes()].concat().into(),
                false => {
                    let url = no_text.url.to_string();
                    let url = match url.contains('?') {
                        true => format!("{url}{bad}"),
                        false => format!("{url}?{}", &bad[1..]),
                    };
                    no_text.url = url.parse().map_err(|_| "no URL")?;
                }
            }
            wrong.push((format!("{name} is no text"), no_text));
        }
    }
    Ok(wrong)
}

/// Without a part; with one twice, the first of which is no text; and with one that has no name.
fn parts(scene: &Scene, sent: &Sent) -> Vec<(String, Call)> {
    let mut wrong = Vec::new();
    for name in sent.parts.iter().flatten().map(|(name, _)| name) {
        let mut without = sent.clone();
        without.parts.as_mut().and_then(|parts| parts.remove(name));
        wrong.push((format!("without part {name}"), scene.call(&without)));
        for (how, head) in [
            ("is no text", format!("form-data; name=\"{name}\"")),
            ("has no name", "form-data".to_owned()),
        ] {
            let part = format!("--edge\r\nContent-Disposition: {head}\r\n\r\n");
            let mut call = scene.call(sent);
            call.body = [part.as_bytes(), b"\xff\xfe\r\n", &call.body]
                .concat()
                .into();
            wrong.push((format!("part {name} {how}"), call));
        }
    }
    wrong
}

/// Without a member, at any depth, and with one of another type; and other values than an object.
fn json_bodies(scene: &Scene, sent: &Sent) -> Vec<(String, Call)> {
    let Some(body) = &sent.json else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    let mut with = |how: String, json: Value| {
        let changed = Sent {
            json: Some(json),
            ..sent.clone()
        };
        wrong.push((how, scene.call(&changed)));
    };
    for other in [json!([]), json!("text"), json!(7), json!(null), json!({})] {
        with(format!("{other} as the body"), other);
    }
    for pointer in members("", body) {
        let mut without = body.clone();
        if let Some((parent, name)) = pointer.rsplit_once('/')
            && let Some(parent) = without.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.remove(&name.replace("~1", "/").replace("~0", "~"));
        }
        with(format!("without {pointer}"), without);
        for other in [
            json!(null),
            json!([]),
            json!({"a": 1}),
            json!(-7.5),
            json!(true),
        ] {
            let mut changed = body.clone();
            if let Some(member) = changed.pointer_mut(&pointer) {
                *member = other.clone();
            }
            with(format!("{pointer} is {other}"), changed);
        }
    }
    wrong
}

/// Every member of every object in a value, as JSON pointers (RFC 6901).
fn members(under: &str, value: &Value) -> Vec<String> {
    let object = value.as_object().into_iter().flatten();
    object
        .flat_map(|(name, value)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            let pointer = format!("{under}/{name}");
            let mut all = members(&pointer, value);
            all.push(pointer);
            all
        })
        .collect()
}

/// A body that is cut off, no UTF-8, or nested deeper than anybody reads; and one of another type.
fn bytes(scene: &Scene, sent: &Sent) -> Vec<(String, Call)> {
    let good = scene.call(sent);
    if good.body.is_empty() {
        return Vec::new();
    }
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let half = good.body.slice(..good.body.len() / 2);
    let bodies = [
        ("a body that is cut off", half.to_vec()),
        (
            "a body that is no UTF-8",
            [&good.body, &b"\xff\xfe"[..]].concat(),
        ),
        ("lists without end", deep("[", "]").into_bytes()),
        ("elements without end", deep("<a>", "</a>").into_bytes()),
        ("no body", Vec::new()),
    ];
    let mut wrong: Vec<(String, Call)> = bodies
        .into_iter()
        .map(|(how, body)| {
            let mut call = good.clone();
            call.body = body.into();
            (how.to_owned(), call)
        })
        .collect();
    for kind in [
        "text/xml",
        "application/json",
        "multipart/form-data; boundary=x",
        "x",
    ] {
        let mut call = good.clone();
        let header = http::HeaderValue::from_static(kind);
        call.headers.insert(http::header::CONTENT_TYPE, header);
        wrong.push((format!("a body that is said to be {kind}"), call));
    }
    wrong
}
