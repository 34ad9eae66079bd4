//! Everything that passed the connectors of a campaign, in order, and what of it was expected.

use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vumi_api::{Flow, Port};

/// One message that passed.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Where.
    pub port: Port,
    /// The whole message.
    pub body: Value,
    /// Published by the test or by a stand-in.
    pub ours: bool,
    /// An expectation took it.
    pub taken: bool,
}

impl Passed {
    /// A text of the message.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// `message_id`, or `event_id`.
    pub fn id(&self) -> &str {
        id(&self.body)
    }

    /// Endpoint in `routing_metadata`.
    pub fn endpoint(&self) -> Option<&str> {
        self.body
            .pointer("/routing_metadata/endpoint_name")?
            .as_str()
    }
}

fn id(body: &Value) -> &str {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    text("message_id")
        .or_else(|| text("event_id"))
        .unwrap_or("")
}

#[derive(Default)]
struct Inner {
    passed: Vec<Passed>,
    /// Queue and id of what the test and stand-ins publish.
    ours: HashSet<(String, String)>,
}

/// The transcript of one test.
#[derive(Clone, Default)]
pub struct Transcript(Arc<Mutex<Inner>>);

impl Transcript {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is about to be published by the test or a stand-in.
    pub fn announce(&self, port: &Port, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let key = (port.queue(), id(&body).to_owned());
        self.inner().ours.insert(key);
    }

    /// This passed.
    pub fn add(&self, routing_key: &str, body: &[u8]) {
        let Some((connector, kind)) = routing_key.rsplit_once('.') else {
            return;
        };
        let Some(flow) = vumi_core::tap::flow(kind) else {
            return;
        };
        let body: Value = serde_json::from_slice(body)
            .unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into());
        let mut inner = self.inner();
        let ours = inner
            .ours
            .contains(&(routing_key.to_owned(), id(&body).to_owned()));
        inner.passed.push(Passed {
            port: Port::new(connector, flow),
            body,
            ours,
            taken: false,
        });
    }

    /// A copy of all of it.
    pub fn all(&self) -> Vec<Passed> {
        self.inner().passed.clone()
    }

    /// What nobody expected yet of a flow of these connectors, without what the test published; each with its position.
    pub fn open(&self, flow: Flow, connectors: &[String]) -> Vec<(usize, Passed)> {
        let inner = self.inner();
        let open = inner.passed.iter().enumerate().filter(|(_, passed)| {
            !passed.ours
                && !passed.taken
                && passed.port.flow == flow
                && connectors.contains(&passed.port.connector)
        });
        open.map(|(at, passed)| (at, passed.clone())).collect()
    }

    /// An expectation took these.
    pub fn take(&self, positions: &[usize]) {
        let mut inner = self.inner();
        for at in positions {
            if let Some(passed) = inner.passed.get_mut(*at) {
                passed.taken = true;
            }
        }
    }
}
