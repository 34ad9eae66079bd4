//! `httpRelay`: relays messages and events to an endpoint by HTTP, and sends what it answers. When it is tried again, and
//! where it waits until then, is the engine's matter: here an answer only becomes an error of a class.

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};
use std::sync::Arc;
use vumi_api::applications::{HttpRelay, RelayedEvent};
use vumi_core::clock;
use vumi_core::codes;
use vumi_core::conformance::Fixture;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Event, EventType, Message, UserMessage, derived_id};
use vumi_core::worker::{Input, Output, Worker, WorkerContext, WorkerType};
use vumi_http::{Answer, Call, Caller, Client, ENDPOINT, class_of, webhook};

/// Says that the body of an answer is the reply.
const REPLY: &str = "x-vumi-httprelay-reply";

pub(crate) struct Def;

struct Relay {
    config: HttpRelay,
    url: Uri,
    event_url: Uri,
    method: Method,
    client: Client,
    cx: Arc<WorkerContext>,
}

#[async_trait]
impl WorkerType for Def {
    type Config = HttpRelay;

    async fn build(
        config: HttpRelay,
        cx: Arc<WorkerContext>,
    ) -> Result<Arc<dyn Worker>, WorkError> {
        let client = cx.resource().application().and_then(|a| a.client.clone());
        let url = address("url", &config.url)?;
        let relay = Relay {
            event_url: match &config.event_url {
                Some(event_url) => address("eventUrl", event_url)?,
                None => url.clone(),
            },
            url,
            method: config
                .method
                .and_then(|method| method.as_str().parse().ok())
                .unwrap_or(Method::POST),
            client: Client::new(
                &client.unwrap_or_default(),
                cx.secrets(),
                cx.outside().clone(),
            )?,
            config,
            cx,
        };
        // What is missing now is said now; what is rotated later is read when it is used.
        relay.credentials(&mut HeaderMap::new())?;
        relay.keys()?;
        Ok(Arc::new(relay))
    }

    fn fixture() -> Fixture {
        Fixture {
            manifest: "apiVersion: vumi.dev/v1alpha1\nkind: Application\nmetadata: {name: relay}\nspec:\n  httpRelay:\n    url: \"http://127.0.0.1:{provider}/\"\n    auth: {username: me, password: {value: fixture-password}}\n    signing: {secrets: [{value: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]}\n  transportName: telnet\n",
            peer: None,
        }
    }
}

fn address(key: &str, url: &str) -> Result<Uri, WorkError> {
    let wrong = |_| {
        let text = format!("httpRelay.{key} is no address");
        WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
    };
    url.parse().map_err(wrong)
}

#[async_trait]
impl Worker for Relay {
    async fn handle(&self, input: Input) -> Result<Vec<Output>, WorkError> {
        let question = crate::question(&input);
        let url = match &input.message {
            Message::User(_) if question.is_some() => &self.url,
            Message::Event(event) if self.config.relays(kind(event)) => &self.event_url,
            _ => return Ok(Vec::new()),
        };
        // A secret that is not there, or cannot be one, is waited for: a rotation may be half done.
        let call = self.call(url, &input.message).map_err(|mut error| {
            error.class = ErrorClass::Auth;
            error
        });
        let judged = match call {
            Ok(call) => {
                let answer = ENDPOINT.ask(&self.cx, &self.client, call).await?;
                self.judge(question, &answer)
            }
            Err(error) => Err(error),
        };
        ENDPOINT.judged(&self.cx, &judged);
        let reply = question.zip(judged?).map(|(message, text)| {
            let reply = message.reply(self.cx.worker_name(), 0, Some(&text), false);
            crate::answer(&self.cx, reply)
        });
        Ok(reply.into_iter().collect())
    }
}

fn kind(event: &Event) -> RelayedEvent {
    match event.event_type() {
        EventType::Ack => RelayedEvent::Ack,
        EventType::Nack => RelayedEvent::Nack,
        EventType::DeliveryReport => RelayedEvent::DeliveryReport,
    }
}

impl Relay {
    fn call(&self, url: &Uri, message: &Message) -> Result<Call, WorkError> {
        let body = message.encode();
        let id = self.delivery(message, &body);
        let mut headers = webhook::headers(&id, clock::now(), &body, &self.keys()?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = HeaderValue::from_static(concat!("vumi/", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent);
        self.credentials(&mut headers)?;
        Ok(Call {
            method: self.method.clone(),
            url: url.clone(),
            headers,
            body,
        })
    }

    /// Id of the delivery of a message by this relay. What has no id of its own is known by all that it says.
    fn delivery(&self, message: &Message, body: &[u8]) -> String {
        let relay = self.cx.worker_name();
        match message.id() {
            "" => derived_id(&["relay", relay, "", &String::from_utf8_lossy(body)]),
            id => derived_id(&["relay", relay, id]),
        }
    }

    /// Adds what shows who we are.
    fn credentials(&self, headers: &mut HeaderMap) -> Result<(), WorkError> {
        let Some(auth) = &self.config.auth else {
            return Ok(());
        };
        let password = self.cx.secrets().resolve(&auth.password)?;
        let pair = BASE64_STANDARD.encode(format!("{}:{password}", auth.username));
        if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {pair}")) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }

    /// The keys that sign now, the first secret's first.
    fn keys(&self) -> Result<Vec<Vec<u8>>, WorkError> {
        let secrets = self.config.signing.iter().flat_map(|s| &s.secrets);
        let keys = secrets.map(|secret| {
            let text = self.cx.secrets().resolve(secret)?;
            webhook::signing_key(&text).map_err(|bad| {
                let text = format!("httpRelay.signing.secrets: {bad}");
                WorkError::new(ErrorClass::Config, codes::CONFIG_INVALID, text)
            })
        });
        keys.collect()
    }

    /// What an answer means: a reply, if there is one to send.
    fn judge(
        &self,
        question: Option<&UserMessage>,
        answer: &Answer,
    ) -> Result<Option<String>, WorkError> {
        let status = answer.status;
        let permanent = |code, text: &str| {
            let text = format!("{text} (it says {})", status.as_u16());
            let mut error = WorkError::new(ErrorClass::RemotePermanent, code, text);
            error.provider_code = Some(status.as_u16().to_string());
            error
        };
        match class_of(answer) {
            Some(ErrorClass::RemotePermanent) if status.is_redirection() => {
                let text = "the endpoint redirects, and that is not followed";
                return Err(permanent(codes::RELAY_REDIRECTED, text));
            }
            Some(ErrorClass::RemotePermanent) => {
                let text = "the endpoint refuses the message for good";
                return Err(permanent(codes::RELAY_REFUSED, text));
            }
            Some(class) => return Err(ENDPOINT.error(class, status.as_str())),
            None => {}
        }
        let says = answer.headers.get(REPLY);
        let is_reply = says.is_some_and(|says| says.as_bytes().eq_ignore_ascii_case(b"true"));
        if question.is_none() || status != StatusCode::OK || !is_reply {
            return Ok(None);
        }
        if self.client.leaves_out(answer) {
            let text = "the endpoint's reply is too large";
            return Err(permanent(codes::RELAY_REPLY, text));
        }
        let text = std::str::from_utf8(&answer.body).map_err(|_| {
            let text = "the endpoint's reply is no UTF-8";
            permanent(codes::RELAY_REPLY, text)
        })?;
        Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests;
