//! A mocked API server: it keeps objects, answers as server-side apply does, and remembers every call.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vumi_api::crds::{GROUP, VERSION, openapi};
use vumi_operator::bounded::{Bounded, Deadlines};
use vumi_operator::client::Api;
use vumi_operator::gate::Gate;
use vumi_operator::metrics::Metrics;

/// One call, as it came.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

impl Call {
    /// Verb and place without what differs from run to run: the hash in names of ConfigMaps, and names of events.
    pub fn brief(&self) -> String {
        let place = self
            .path
            .rsplit_once("/namespaces/")
            .map_or(self.path.as_str(), |(_, below)| {
                below.split_once('/').map_or(below, |(_, below)| below)
            });
        let place = match place.split_once('/') {
            Some(("configmaps", name)) => {
                format!("configmaps/{}", name.rsplit_once('-').unwrap().0)
            }
            _ => place.to_owned(),
        };
        let dry = if self.query.contains("dryRun=All") {
            " (dry run)"
        } else {
            ""
        };
        let reason = match place.as_str() {
            "events" => format!(" {}", self.body["reason"].as_str().unwrap()),
            _ => String::new(),
        };
        format!("{} {place}{reason}{dry}", self.method)
    }
}

/// What a call gets instead of its answer.
pub enum Instead {
    /// This status and message.
    Refusal(u16, &'static str),
    /// Nothing, for ever.
    Silence,
}

type Rule = Box<dyn Fn(&Call) -> Option<Instead> + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    calls: Vec<Call>,
    version: u64,
    rule: Option<Rule>,
}

/// The server.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// A client of a new server, and the server.
    pub fn start() -> (kube::Client, Fake) {
        let fake = Fake::default();
        (fake.client(), fake)
    }

    /// Another client.
    pub fn client(&self) -> kube::Client {
        type Mock = tower_test::mock::Mock<Request<Body>, Response<Full<Bytes>>>;
        type Handle = tower_test::mock::Handle<Request<Body>, Response<Full<Bytes>>>;
        let (mock, mut handle): (Mock, Handle) = tower_test::mock::pair();
        let fake = self.clone();
        tokio::spawn(async move {
            // What is not answered must not be dropped: that would be an answer.
            let mut unanswered = Vec::new();
            while let Some((request, respond)) = handle.next_request().await {
                match fake.answer(request).await {
                    Some(answer) => respond.send_response(answer),
                    None => unanswered.push(respond),
                }
            }
        });
        let deadlines = Deadlines::of(Duration::from_secs(10));
        kube::Client::new(Bounded::new(mock, deadlines, Metrics::new()), "default")
    }

    /// Calls through a gate of their own.
    pub fn api(&self) -> Api {
        Api::new(self.client(), Arc::new(Gate::default()))
    }

    /// Puts in an object as somebody else would.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().store(path, object);
    }

    /// Takes out an object that is gone.
    pub fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    /// What is there.
    pub fn object(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Where there is something.
    pub fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Calls since the last time, in short.
    pub fn calls(&self) -> Vec<String> {
        let calls = std::mem::take(&mut self.0.lock().unwrap().calls);
        calls.iter().map(Call::brief).collect()
    }

    /// What was told in events of this reason.
    pub fn notes(&self, reason: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let events = state
            .objects
            .iter()
            .filter(|(path, object)| path.contains("/events/") && object["reason"] == reason);
        let notes = events.map(|(_, event)| event["note"].as_str().unwrap().to_owned());
        notes.collect()
    }

    /// What some calls get instead of their answer.
    pub fn instead(&self, rule: impl Fn(&Call) -> Option<Instead> + Send + 'static) {
        self.0.lock().unwrap().rule = Some(Box::new(rule));
    }

    /// All calls get their answers again.
    pub fn mend(&self) {
        self.0.lock().unwrap().rule = None;
    }

    async fn answer(&self, request: Request<Body>) -> Option<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let mut state = self.0.lock().unwrap();
        state.calls.push(call.clone());
        let (code, answer) = match state.rule.as_ref().and_then(|rule| rule(&call)) {
            Some(Instead::Silence) => return None,
            Some(Instead::Refusal(code, message)) => (code, failure(code, message)),
            None => state.serve(&call),
        };
        let body = Full::new(Bytes::from(answer.to_string()));
        Some(Response::builder().status(code).body(body).unwrap())
    }
}

fn failure(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": ""})
}

impl State {
    fn serve(&mut self, call: &Call) -> (u16, Value) {
        let (path, body) = (call.path.as_str(), &call.body);
        match (call.method.as_str(), path) {
            ("GET", "/openapi/v3") => {
                let place = format!("/openapi/v3/apis/{GROUP}/{VERSION}");
                (
                    200,
                    json!({"paths": {format!("apis/{GROUP}/{VERSION}"): {"serverRelativeURL": place}}}),
                )
            }
            ("GET", path) if path.starts_with("/openapi/") => (200, openapi()),
            ("GET", path) => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => (404, failure(404, "not found")),
            },
            ("POST", path) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                match self.objects.contains_key(&path) {
                    true => (409, failure(409, "already exists")),
                    false => (201, self.store(&path, body.clone())),
                }
            }
            ("DELETE", path) => match self.objects.remove(path) {
                Some(_) => (200, json!({"kind": "Status", "status": "Success"})),
                None => (404, failure(404, "not found")),
            },
            ("PATCH", path) if call.query.contains("dryRun=All") => {
                let there = self.objects.get(path).cloned();
                (200, there.unwrap_or_else(|| body.clone()))
            }
            ("PATCH", path) => match path.strip_suffix("/status") {
                Some(path) => {
                    let mut object = self.objects[path].clone();
                    object["status"] = body["status"].clone();
                    (200, self.store(path, object))
                }
                None if body["apiVersion"].is_null() => self.merge(path, body),
                None => (200, self.apply(path, body)),
            },
            _ => (405, failure(405, "unknown")),
        }
    }

    /// A merge patch, guarded by its resourceVersion if it has one.
    fn merge(&mut self, path: &str, change: &Value) -> (u16, Value) {
        let Some(mut object) = self.objects.get(path).cloned() else {
            return (404, failure(404, "not found"));
        };
        let known = &change["metadata"]["resourceVersion"];
        if !known.is_null() && *known != object["metadata"]["resourceVersion"] {
            return (409, failure(409, "the object has been modified"));
        }
        merge(&mut object, change);
        (200, self.store(path, object))
    }

    /// Server-side apply by one manager: what it wants is what there is.
    fn apply(&mut self, path: &str, wanted: &Value) -> Value {
        let mut object = wanted.clone();
        let mut fields = Map::new();
        for (key, value) in wanted.as_object().unwrap() {
            match key.as_str() {
                "apiVersion" | "kind" => {}
                "metadata" => {
                    let mut metadata = value.clone();
                    for name in ["name", "namespace"] {
                        metadata.as_object_mut().unwrap().remove(name);
                    }
                    fields.insert("f:metadata".into(), held(&metadata));
                }
                _ => {
                    fields.insert(format!("f:{key}"), held(value));
                }
            }
        }
        // As a server does: what others say of it stays, and another spec is another generation.
        let known = self.objects.get(path).cloned().unwrap_or_default();
        let generation = known["metadata"]["generation"].as_i64().unwrap_or(0);
        let changed = known["spec"] != wanted["spec"];
        object["metadata"]["generation"] = (generation + i64::from(changed)).into();
        if !known["status"].is_null() {
            object["status"] = known["status"].clone();
        }
        object["metadata"]["managedFields"] = json!([{
            "manager": "vumi-operator",
            "operation": "Apply",
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }]);
        self.store(path, object)
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let uid = match self.objects.get(path) {
            Some(known) => known["metadata"]["uid"].clone(),
            None => format!("uid-{}", self.version).into(),
        };
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = uid;
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn merge(into: &mut Value, change: &Value) {
    match change {
        Value::Object(fields) => {
            for (key, value) in fields {
                match (value, into.as_object_mut()) {
                    (Value::Null, Some(fields)) => drop(fields.remove(key)),
                    _ => merge(&mut into[key], value),
                }
            }
        }
        leaf => *into = leaf.clone(),
    }
}

/// What a manager holds of a value: lists as a whole.
fn held(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(key, value)| (format!("f:{key}"), held(value)))
                .collect::<Map<_, _>>()
                .into()
        }
        _ => json!({}),
    }
}
