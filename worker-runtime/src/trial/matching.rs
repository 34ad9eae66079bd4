//! Expectations against what came: which fits which, and the difference in words.

use super::file::{ExpectCall, ExpectEvent, ExpectMessage, ExpectParked, ExpectResponse};
use super::peers::{Call, Response};
use super::text::{Text, differences};
use super::transcript::Passed;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use vumi_core::parking::Summary;

/// Something that is expected of an `A`.
pub trait Expected<A> {
    /// What of it is not so, a line each.
    fn differences(&self, came: &A) -> Vec<String>;
    /// What is expected, in one line.
    fn shown(&self) -> String;
}

/// Finds for each expectation what came for it. Nothing may be left on either side.
///
/// # Errors
/// The differences, for people.
pub fn compare<A, E: Expected<A>>(
    what: &str,
    expected: &[E],
    came: &[A],
    show: impl Fn(&A) -> String,
) -> Result<Vec<usize>, String> {
    let fits: Vec<Vec<bool>> = expected
        .iter()
        .map(|e| came.iter().map(|a| e.differences(a).is_empty()).collect())
        .collect();
    let mut pairs = vec![None; expected.len()];
    for start in 0..expected.len() {
        pair(start, &fits, &mut pairs, &mut vec![false; came.len()]);
    }
    let mut free: Vec<usize> = (0..came.len())
        .filter(|at| !pairs.contains(&Some(*at)))
        .collect();
    let mut text = String::new();
    for (e, _) in expected
        .iter()
        .zip(&pairs)
        .filter(|(_, pair)| pair.is_none())
    {
        let _ = writeln!(text, "- expected {what}: {}", e.shown());
        let nearest = free
            .iter()
            .enumerate()
            .min_by_key(|(_, at)| e.differences(&came[**at]).len());
        match nearest {
            Some((place, at)) => {
                let came = &came[*at];
                let _ = writeln!(text, "+ came instead: {}", show(came));
                for line in e.differences(came) {
                    let _ = writeln!(text, "    {line}");
                }
                free.remove(place);
            }
            None => text += "+ nothing more came\n",
        }
    }
    for at in free {
        let _ = writeln!(text, "+ not expected {what}: {}", show(&came[at]));
    }
    match text.is_empty() {
        true => Ok(pairs.into_iter().flatten().collect()),
        false => Err(text),
    }
}

/// Finds something for one expectation: the first of all that fit, and where none is left, something else for those in
/// its way.
fn pair(
    start: usize,
    fits: &[Vec<bool>],
    pairs: &mut Vec<Option<usize>>,
    seen: &mut Vec<bool>,
) -> bool {
    let holder = |at, pairs: &[Option<usize>]| pairs.iter().position(|pair| *pair == Some(at));
    let fitting = (0..seen.len()).filter(|at| fits[start][*at]);
    if let Some(free) = fitting.clone().find(|at| holder(*at, pairs).is_none()) {
        pairs[start] = Some(free);
        return true;
    }
    for at in fitting {
        if !std::mem::replace(&mut seen[at], true)
            && holder(at, pairs).is_none_or(|holder| pair(holder, fits, pairs, seen))
        {
            pairs[start] = Some(at);
            return true;
        }
    }
    false
}

/// Whether messages to one user came in the order in which they are expected.
///
/// # Errors
/// Says for whom not.
pub fn in_order(came: &[Passed], pairs: &[usize]) -> Result<(), String> {
    let mut last: BTreeMap<(String, String), usize> = BTreeMap::new();
    for at in pairs {
        let passed = &came[*at];
        let user = passed.text("to_addr").unwrap_or("").to_owned();
        let key = (passed.port.connector.clone(), user);
        if last.get(&key).is_some_and(|before| before > at) {
            return Err(format!(
                "messages to {:?} came in another order than expected\n+ too early: {}\n",
                key.1,
                message(passed)
            ));
        }
        last.insert(key, *at);
    }
    Ok(())
}

/// Collects differences field by field.
#[derive(Default)]
struct Sheet {
    differences: Vec<String>,
}

impl Sheet {
    fn text(&mut self, name: &str, expected: Option<&Text>, came: Option<&str>) {
        if let Some(expected) = expected
            && !expected.fits(came)
        {
            let came = came.map_or("null".to_owned(), |came| format!("{came:?}"));
            self.differences
                .push(format!("{name}: expected {expected}, got {came}"));
        }
    }

    fn name(&mut self, name: &str, expected: Option<&String>, came: &str) {
        if expected.is_some_and(|expected| expected != came) {
            let expected = expected.map_or("", String::as_str);
            self.differences
                .push(format!("{name}: expected {expected}, got {came}"));
        }
    }

    fn fields(&mut self, name: &str, expected: &Map<String, Value>, came: Option<&Value>) {
        for (key, value) in expected {
            let came = came.and_then(|came| came.get(key));
            let path = match name {
                "" => key.clone(),
                name => format!("{name}.{key}"),
            };
            self.differences.extend(differences(&path, value, came));
        }
    }

    fn json(&mut self, expected: Option<&Value>, body: &str) {
        let Some(expected) = expected else {
            return;
        };
        match serde_json::from_str::<Value>(body) {
            Ok(came) => self
                .differences
                .extend(differences("json", expected, Some(&came))),
            Err(_) => self
                .differences
                .push(format!("json: the body is no JSON: {body:?}")),
        }
    }

    fn headers(&mut self, expected: &BTreeMap<String, Text>, came: &BTreeMap<String, String>) {
        for (name, text) in expected {
            let came = came.get(&name.to_lowercase()).map(String::as_str);
            self.text(&format!("header {name}"), Some(text), came);
        }
    }
}

/// What is expected, as it would be written.
#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn with(mut self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        if let Some(value) = value {
            self.0.push(format!("{name}: {value}"));
        }
        self
    }

    fn shown(self) -> String {
        format!("{{{}}}", self.0.join(", "))
    }
}

fn map(fields: &Map<String, Value>) -> Option<Value> {
    (!fields.is_empty()).then(|| Value::Object(fields.clone()))
}

/// An event that came, with the content of the message that it is about.
#[derive(Clone, Debug)]
pub struct EventCame {
    /// The event.
    pub passed: Passed,
    /// Content of its message, if that passed.
    pub of: Option<String>,
}

impl Expected<Passed> for ExpectMessage {
    fn differences(&self, came: &Passed) -> Vec<String> {
        let mut sheet = Sheet::default();
        sheet.name("connector", self.connector.as_ref(), &came.port.connector);
        for (name, expected, field) in [
            ("from", &self.from, "from_addr"),
            ("to", &self.to, "to_addr"),
            ("content", &self.content, "content"),
            ("session", &self.session, "session_event"),
        ] {
            sheet.text(name, expected.as_ref(), came.text(field));
        }
        sheet.text("endpoint", self.endpoint.as_ref(), came.endpoint());
        if let Some(expected) = &self.helper_metadata {
            sheet.fields("helperMetadata", expected, came.body.get("helper_metadata"));
        }
        sheet.fields("", &self.fields, Some(&came.body));
        sheet.differences
    }

    fn shown(&self) -> String {
        Line::default()
            .with("connector", self.connector.as_ref())
            .with("from", self.from.as_ref())
            .with("to", self.to.as_ref())
            .with("content", self.content.as_ref())
            .with("session", self.session.as_ref())
            .with("endpoint", self.endpoint.as_ref())
            .with(
                "helperMetadata",
                self.helper_metadata.as_ref().and_then(map),
            )
            .with("fields", map(&self.fields))
            .shown()
    }
}

impl Expected<EventCame> for ExpectEvent {
    fn differences(&self, came: &EventCame) -> Vec<String> {
        let mut sheet = Sheet::default();
        let event = &came.passed;
        sheet.name("connector", self.connector.as_ref(), &event.port.connector);
        for (name, expected, field) in [
            ("type", &self.event_type, "event_type"),
            ("status", &self.status, "delivery_status"),
            ("reason", &self.reason, "nack_reason"),
        ] {
            sheet.text(name, expected.as_ref(), event.text(field));
        }
        sheet.text("of", self.of.as_ref(), came.of.as_deref());
        sheet.fields("", &self.fields, Some(&event.body));
        sheet.differences
    }

    fn shown(&self) -> String {
        Line::default()
            .with("connector", self.connector.as_ref())
            .with("type", self.event_type.as_ref())
            .with("status", self.status.as_ref())
            .with("reason", self.reason.as_ref())
            .with("of", self.of.as_ref())
            .with("fields", map(&self.fields))
            .shown()
    }
}

impl Expected<Call> for ExpectCall {
    fn differences(&self, came: &Call) -> Vec<String> {
        let mut sheet = Sheet::default();
        sheet.name("server", self.server.as_ref(), &came.server);
        sheet.text("method", self.method.as_ref(), Some(&came.method));
        sheet.text("path", self.path.as_ref(), Some(&came.path));
        sheet.headers(&self.headers, &came.headers);
        sheet.text("body", self.body.as_ref(), Some(&came.body));
        sheet.json(self.json.as_ref(), &came.body);
        sheet.differences
    }

    fn shown(&self) -> String {
        let headers = self.headers.iter();
        let headers: Vec<String> = headers
            .map(|(name, text)| format!("{name}: {text}"))
            .collect();
        Line::default()
            .with("server", self.server.as_ref())
            .with("method", self.method.as_ref())
            .with("path", self.path.as_ref())
            .with("headers", (!headers.is_empty()).then(|| headers.join(", ")))
            .with("body", self.body.as_ref())
            .with("json", self.json.as_ref())
            .shown()
    }
}

impl Expected<Response> for ExpectResponse {
    fn differences(&self, came: &Response) -> Vec<String> {
        let mut sheet = Sheet::default();
        sheet.name("of", self.of.as_ref(), &came.of);
        match &came.outcome {
            Ok((status, headers, body)) => {
                if self.status.is_some_and(|expected| expected != *status) {
                    let expected = self.status.unwrap_or_default();
                    let line = format!("status: expected {expected}, got {status}");
                    sheet.differences.push(line);
                }
                sheet.headers(&self.headers, headers);
                sheet.text("body", self.body.as_ref(), Some(body));
                sheet.json(self.json.as_ref(), body);
            }
            Err(why) => sheet.differences.push(format!("there is none: {why}")),
        }
        sheet.differences
    }

    fn shown(&self) -> String {
        Line::default()
            .with("of", self.of.as_ref())
            .with("status", self.status)
            .with("body", self.body.as_ref())
            .with("json", self.json.as_ref())
            .shown()
    }
}

impl Expected<Summary> for ExpectParked {
    fn differences(&self, came: &Summary) -> Vec<String> {
        let mut sheet = Sheet::default();
        sheet.text("queue", self.queue.as_ref(), Some(&came.origin));
        sheet.text("code", self.code.as_ref(), Some(&came.code));
        sheet.text("reason", self.reason.as_ref(), Some(&came.reason));
        sheet.differences
    }

    fn shown(&self) -> String {
        Line::default()
            .with("queue", self.queue.as_ref())
            .with("code", self.code.as_ref())
            .with("reason", self.reason.as_ref())
            .shown()
    }
}

/// A message that came, in one line.
pub fn message(passed: &Passed) -> String {
    let quoted = |field: &str| passed.text(field).map(|text| format!("{text:?}"));
    let shown = Line::default()
        .with("from", quoted("from_addr"))
        .with("to", quoted("to_addr"))
        .with("content", quoted("content"))
        .with("session", passed.text("session_event"))
        .with("event", passed.text("event_type"))
        .with("status", passed.text("delivery_status"))
        .with("reason", quoted("nack_reason"))
        .shown();
    format!("{} {shown}", passed.port)
}

/// An event that came.
pub fn event(came: &EventCame) -> String {
    let of = came.of.as_ref().map(|of| format!(" of {of:?}"));
    format!("{}{}", message(&came.passed), of.unwrap_or_default())
}

/// A request that came.
pub fn call(call: &Call) -> String {
    format!(
        "{} {} {} {:?}",
        call.server, call.method, call.path, call.body
    )
}

/// A response that came.
pub fn response(response: &Response) -> String {
    match &response.outcome {
        Ok((status, _, body)) => format!("{} {status} {body:?}", response.of),
        Err(why) => format!("{} none: {why}", response.of),
    }
}

/// A message that was set aside.
pub fn parked(summary: &Summary) -> String {
    format!("{} {}: {}", summary.origin, summary.code, summary.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vumi_api::{Flow, Port};

    fn passed(to: &str, content: &str) -> Passed {
        Passed {
            port: Port::new("t", Flow::Outbound),
            body: json!({"to_addr": to, "content": content, "helper_metadata": {"class": "bulk"}}),
            ours: false,
            taken: false,
        }
    }

    fn expected(yaml: &str) -> Vec<ExpectMessage> {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn judge(yaml: &str, came: &[Passed]) -> Result<Vec<usize>, String> {
        compare("message", &expected(yaml), came, message)
    }

    #[test]
    fn a_general_expectation_leaves_the_special_one_its_message() {
        let came = [passed("1", "a"), passed("1", "b")];
        let pairs = judge("[{to: '1'}, {content: a}]", &came).unwrap();
        assert_eq!(pairs, [1, 0]);
        assert!(in_order(&came, &pairs).is_err());
        assert_eq!(judge("[{to: '1'}, {content: b}]", &came).unwrap(), [0, 1]);
        assert_eq!(judge("[{to: '1'}, {to: '1'}]", &came).unwrap(), [0, 1]);
        assert!(
            judge(
                "[{helperMetadata: {class: bulk}}, {fields: {content: b}}]",
                &came
            )
            .is_ok()
        );
    }

    #[test]
    fn differences_name_the_nearest_message_and_its_fields() {
        let came = [passed("2", "bye"), passed("1", "hello")];
        let text = judge("[{to: '1', content: hallo}]", &came).unwrap_err();
        assert_eq!(
            text,
            "- expected message: {to: \"1\", content: \"hallo\"}\n+ came instead: t.outbound {to: \"1\", content: \"hello\"}\n    content: expected \"hallo\", got \"hello\"\n+ not expected message: t.outbound {to: \"2\", content: \"bye\"}\n"
        );
        assert_eq!(
            judge("[{to: '1'}]", &[]).unwrap_err(),
            "- expected message: {to: \"1\"}\n+ nothing more came\n"
        );
        assert!(judge("[]", &came).is_err() && judge("[]", &[]).is_ok());
    }
}
