//! A worker between an application and a provider that are made up: real sockets towards it, no socket out of it.

use super::agree::{agree, called, fill, respond, with_id};
use super::file::{CaseFile, Reply, Response, Sent, Step};
use crate::described::MADE;
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use vumi_api::{Flow, Port};
use vumi_core::conformance::stand_in::{PATIENCE, StandIn};
use vumi_core::error::ErrorClass;
use vumi_core::holding::HOLDER;
use vumi_core::message::{Message, UserMessage};
use vumi_core::outcome::ReceiptOutcome;
use vumi_core::outside::Outside;
use vumi_core::secrets::Secrets;
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::{Input, Worker};
use vumi_http::{Answer, Call, CallError, Caller, Client, HeaderMap, StatusCode};

/// A provider that answers as a case says, and keeps what it was asked.
#[derive(Default)]
pub(super) struct Made {
    answers: Mutex<VecDeque<Response>>,
    calls: Mutex<Vec<Call>>,
    /// Whether the last answer was longer than is read.
    cut: AtomicBool,
}

#[async_trait]
impl Caller for Made {
    fn leaves_out(&self, _: &Answer) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    async fn call(&self, call: Call) -> Result<Answer, CallError> {
        self.calls.lock().unwrap().push(call);
        let Some(answer) = self.answers.lock().unwrap().pop_front() else {
            return Err(CallError::Unreachable("nobody expects this call".into()));
        };
        match answer.fails.as_deref() {
            Some("unreachable") => return Err(CallError::Unreachable("refused".into())),
            Some(_) => return Err(CallError::Lost("no answer".into())),
            None => {}
        }
        self.cut.store(answer.cut, Ordering::Relaxed);
        let status = StatusCode::from_u16(answer.status.unwrap_or(200)).unwrap();
        let mut given = match &answer.json {
            Some(json) => Answer::json(status, json),
            None => Answer::text(status, answer.body.clone().unwrap_or_default()),
        };
        for (name, value) in &answer.headers {
            let name: http::HeaderName = name.parse().unwrap();
            given.headers.insert(name, value.parse().unwrap());
        }
        Ok(given)
    }
}

/// What requests made that no step looked at.
#[derive(Debug)]
pub(super) struct Came {
    /// Ids of messages.
    pub(super) messages: Vec<String>,
    pub(super) receipts: usize,
}

pub(super) struct Scene {
    pub(super) engine: Arc<StandIn>,
    worker: Arc<dyn Worker>,
    provider: Arc<Made>,
    closing: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    client: Arc<Client>,
    name: String,
    port: u16,
    /// Outputs, receipts and calls that steps have looked at.
    outputs: usize,
    receipts: usize,
    calls: usize,
}

impl Scene {
    pub(super) async fn start(file: &CaseFile) -> Result<Self, String> {
        let engine = StandIn::new();
        engine.remember();
        let closing = CancellationToken::new();
        let secrets = Secrets::new(file.secrets.clone(), None);
        let resource = file.resource.clone();
        let name = resource.transport_name().to_owned();
        let registration = crate::WORKERS
            .iter()
            .find(|worker| (worker.matches)(&resource));
        let registration = registration.ok_or("it is no type of this family")?;
        let has_door = resource.transport().is_some_and(|t| t.http.is_some());
        let cx = engine.context_with(resource, "one", closing.clone(), secrets);
        let provider = Arc::new(Made::default());
        let caller = Arc::clone(&provider) as Arc<dyn Caller>;
        let building = MADE.scope(caller, registration.worker(Arc::clone(&cx)));
        let worker = building.await.map_err(|e| e.to_string())?;
        let runs = Arc::clone(&worker);
        let running = tokio::spawn(async move { runs.run(cx).await.unwrap() });
        let port = match has_door {
            true => engine.address().await?.port(),
            false => 0,
        };
        let settings = serde_json::from_value(json!({"answerTimeout": "20s"})).unwrap();
        let client = Client::new(&settings, &Secrets::default(), Outside::default());
        let client = client.map_err(|e| e.to_string())?;
        Ok(Self {
            engine,
            worker,
            provider,
            closing,
            running,
            client: Arc::new(client),
            name,
            port,
            outputs: 0,
            receipts: 0,
            calls: 0,
        })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The worker ends, whatever waits.
    pub(super) async fn end(&self) {
        self.closing.cancel();
        let closed = tokio::time::timeout(PATIENCE, self.worker.close()).await;
        closed.unwrap();
    }

    /// Looks at what came since the last look.
    pub(super) fn came(&mut self) -> Came {
        let (outputs, receipts) = (self.engine.outputs(), self.engine.receipts().len());
        let messages = outputs[self.outputs..].iter();
        let came = Came {
            messages: messages
                .map(|output| output.message.id().to_owned())
                .collect(),
            receipts: receipts - self.receipts,
        };
        (self.outputs, self.receipts) = (outputs.len(), receipts);
        came
    }

    /// Everything has been looked at, and the worker ends.
    pub(super) async fn stop(self) -> Result<(), String> {
        let outputs = self.engine.outputs().len();
        if outputs > self.outputs {
            return Err(format!(
                "{} messages more than the steps say",
                outputs - self.outputs
            ));
        }
        let calls = self.provider.calls.lock().unwrap().len();
        if calls > self.calls {
            return Err(format!(
                "{} calls more than the steps say",
                calls - self.calls
            ));
        }
        self.closing.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running).await;
        ended
            .map_err(|_| "it does not stop")?
            .map_err(|e| e.to_string())?;
        let closed = tokio::time::timeout(PATIENCE, self.worker.close()).await;
        closed.map_err(|_| "it does not close".to_owned())
    }

    pub(super) async fn step(&mut self, step: &Step) -> Result<(), String> {
        let counted = self.engine.counted().len();
        self.provider
            .answers
            .lock()
            .unwrap()
            .extend(step.answers.iter().cloned());
        if let Some(sent) = &step.request {
            self.request(step, sent).await?;
        }
        if let Some(fields) = &step.send {
            let mut message = UserMessage::new("sms", None, None);
            fill(&mut message, fields);
            self.outbound(step, message).await?;
        }
        if let Some(expected) = &step.status {
            self.status(expected)?;
        }
        if let Some(expected) = &step.count {
            let seen = self.engine.counted();
            let seen: Vec<String> = seen[counted..].iter().filter_map(counts).collect();
            if seen != *expected {
                return Err(format!("count: {seen:?} and not {expected:?}"));
            }
        }
        Ok(())
    }

    async fn request(&mut self, step: &Step, sent: &Sent) -> Result<(), String> {
        let (client, call) = (Arc::clone(&self.client), self.call(sent));
        let mut asking = tokio::spawn(async move { client.call(call).await });
        let mut came_in = None;
        if let Some(expected) = &step.message {
            let output = tokio::select! {
                output = self.engine.output(self.outputs) => output?,
                answer = &mut asking => match self.engine.outputs().get(self.outputs) {
                    Some(output) => {
                        let output = output.clone();
                        asking = tokio::spawn(async move { answer.unwrap() });
                        output
                    }
                    None => return Err(format!("no message, but {answer:?}")),
                },
            };
            self.outputs += 1;
            if output.port != Port::new(self.name.as_str(), Flow::Inbound) {
                return Err(format!("it came out on {}", output.port));
            }
            let Message::User(message) = output.message else {
                return Err("an event came in".into());
            };
            let value: Value = serde_json::from_slice(&message.encode()).unwrap();
            agree("message", expected, &value)?;
            came_in = Some(message);
        }
        let (mut now, mut late) = (None, None);
        if let (Some(reply), Some(message)) = (&step.reply, &came_in) {
            match reply.late {
                true => late = Some((reply, message)),
                false => now = Some((reply, message)),
            }
        }
        if let Some((reply, message)) = now {
            self.reply(step, reply, message).await?;
        }
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let answer = answer
            .map_err(|_| "no answer")?
            .map_err(|e| e.to_string())?;
        let answer = answer.map_err(|e| format!("no answer: {e}"))?;
        if let Some(expected) = &step.response {
            let id = came_in.as_ref().map_or("", |message| message.message_id());
            respond(expected, &answer, id)?;
        }
        if let Some(expected) = &step.receipt {
            let receipts = self.engine.receipts();
            let receipt = receipts.get(self.receipts).ok_or("no receipt")?;
            self.receipts += 1;
            let (state, code) = match &receipt.outcome {
                ReceiptOutcome::Accepted => ("accepted", None),
                ReceiptOutcome::Refused(refusal) => ("refused", refusal.provider_code.clone()),
                ReceiptOutcome::Pending => ("pending", None),
                ReceiptOutcome::Delivered => ("delivered", None),
                ReceiptOutcome::Failed(refusal) => ("failed", refusal.provider_code.clone()),
            };
            let seen = json!({
                "message_id": receipt.message_id, "remote_id": receipt.remote_id,
                "state": state, "code": code,
            });
            agree("receipt", expected, &seen)?;
        }
        match late {
            Some((reply, message)) => self.reply(step, reply, message).await,
            None => Ok(()),
        }
    }

    async fn reply(&mut self, step: &Step, reply: &Reply, to: &UserMessage) -> Result<(), String> {
        let reply = to.reply("case", 0, reply.content.as_deref(), reply.close);
        self.outbound(step, reply).await
    }

    async fn outbound(&mut self, step: &Step, message: UserMessage) -> Result<(), String> {
        let id = message.message_id().to_owned();
        let input = Input {
            port: Port::new(self.name.as_str(), Flow::Outbound),
            message: message.into(),
            attempt: 1,
        };
        let handled = tokio::time::timeout(PATIENCE, self.worker.handle(input)).await;
        let handled = handled.map_err(|_| "it is not handled")?;
        let calls = self.provider.calls.lock().unwrap()[self.calls..].to_vec();
        self.calls += calls.len();
        let expected = step.calls.clone().unwrap_or_default();
        if calls.len() != expected.len() {
            return Err(format!("calls: {} and not {}", calls.len(), expected.len()));
        }
        for (call, expected) in calls.iter().zip(&expected) {
            called(expected, call, &id)?;
        }
        match (handled, &step.event, &step.error) {
            (Ok(mut outputs), Some(expected), _) if outputs.len() == 1 => {
                let output = outputs.remove(0);
                let Message::Event(event) = output.message else {
                    return Err("event: it is a message".into());
                };
                let value: Value = serde_json::from_slice(&event.encode()).unwrap();
                let expected = with_id(expected, &id);
                agree("event", &expected, &value)
            }
            (Err(error), _, Some(expected)) => {
                let after = match error.class {
                    ErrorClass::Throttled(after) => after.map(|after| after.as_secs()),
                    _ => None,
                };
                let seen = json!({
                    "class": error.class.label(), "code": error.code.name, "text": error.text,
                    "provider_code": error.provider_code, "retry_after": after,
                    "failure": error.failure_class().as_str(), "who": error.who_acts().as_str(),
                });
                agree("error", expected, &seen)
            }
            (Ok(outputs), ..) => Err(format!("event: {} outputs", outputs.len())),
            (Err(error), ..) => Err(format!("error: {}: {error}", error.code)),
        }
    }

    fn status(&self, expected: &Map<String, Value>) -> Result<(), String> {
        let reports = self.engine.reports();
        let component = expected.get("component").and_then(Value::as_str);
        let mut last = reports
            .iter()
            .rev()
            .filter(|r| Some(r.component.as_str()) == component);
        let last = last.next().ok_or("status: there is none")?;
        let seen = json!({
            "component": last.component, "level": last.level.as_str(), "reason": last.reason,
        });
        agree("status", expected, &seen)
    }

    /// A request to the worker.
    pub(super) fn call(&self, sent: &Sent) -> Call {
        let mut url = format!(
            "http://127.0.0.1:{}{}",
            self.port,
            sent.path.as_deref().unwrap_or("/")
        );
        if !sent.query.is_empty() {
            url = format!("{url}?{}", encoded(&sent.query));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &sent.headers {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let mut kind = |kind: &'static str| {
            let header = http::HeaderValue::from_static(kind);
            headers.entry(http::header::CONTENT_TYPE).or_insert(header);
        };
        let body = match (&sent.form, &sent.json, &sent.body) {
            _ if sent.parts.is_some() => {
                kind("multipart/form-data; boundary=edge");
                in_parts(sent.parts.iter().flatten())
            }
            (Some(form), ..) => {
                kind("application/x-www-form-urlencoded");
                encoded(form)
            }
            (_, Some(json), _) => {
                kind("application/json");
                json.to_string()
            }
            (.., body) => body.clone().unwrap_or_default(),
        };
        Call {
            method: sent.method.as_deref().unwrap_or("GET").parse().unwrap(),
            url: url.parse().unwrap(),
            headers,
            body: body.into(),
        }
    }

    /// A request that was made for another worker of the same file.
    pub(super) fn here(&self, mut call: Call) -> Call {
        let path = call.url.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        call.url = url.parse().unwrap();
        call
    }

    /// Asks, and replies to whatever message waits for it, as an application would.
    pub(super) async fn converse(&self, call: Call) -> Result<Answer, String> {
        let seen = self.engine.outputs().len();
        let asking = self.ask(call);
        tokio::pin!(asking);
        let output = tokio::select! {
            answer = &mut asking => return answer,
            output = self.engine.output(seen) => output?,
        };
        let waits = |message: &UserMessage| {
            let metadata = message.transport_metadata();
            metadata.is_some_and(|metadata| metadata.contains_key(HOLDER))
        };
        let Message::User(message) = output.message else {
            return Err("an event came in".into());
        };
        if !waits(&message) {
            return asking.await;
        }
        let input = Input {
            port: Port::new(self.name.as_str(), Flow::Outbound),
            message: message.reply("case", 0, Some("unwritten"), false).into(),
            attempt: 1,
        };
        // The reply is done when its answer is written.
        let (handled, answer) = tokio::join!(self.worker.handle(input), asking);
        handled.map_err(|error| error.to_string())?;
        answer
    }

    pub(super) async fn ask(&self, call: Call) -> Result<Answer, String> {
        let asked = tokio::time::timeout(Duration::from_secs(30), self.client.call(call)).await;
        asked.map_err(|_| "no answer")?.map_err(|e| e.to_string())
    }
}

/// What was counted, in words; none for what every request is counted by.
fn counts(seen: &HttpSeen) -> Option<String> {
    let words = match seen {
        HttpSeen::Request { .. } | HttpSeen::Open(_) => return None,
        HttpSeen::Repeat => "repeat".to_owned(),
        HttpSeen::DeadlineMissed => "deadline missed".to_owned(),
        HttpSeen::LateReply => "late reply".to_owned(),
        HttpSeen::RepeatedParameter => "repeated parameter".to_owned(),
        HttpSeen::UnclearNumber(direction) => format!("unclear number {}", direction.as_str()),
        HttpSeen::Receipt(state) => format!("receipt {state}"),
    };
    Some(words)
}

fn encoded(pairs: &BTreeMap<String, String>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A body in parts (RFC 7578), between lines of `edge`.
fn in_parts<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let parts = pairs.map(|(name, text)| {
        format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    });
    format!("{}--edge--\r\n", parts.collect::<String>())
}
