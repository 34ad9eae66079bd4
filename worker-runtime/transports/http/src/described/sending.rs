//! How a message becomes a request to the provider, and what the answer means for it.

use super::answers::Headers;
use super::scope::{Config, Scope};
use super::xml::Paths;
use super::{failed, template, unfit};
use crate::engine::Sent;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use vumi_api::template::{Escape, Names, Template, Value, of_json, to_json};
use vumi_api::transports::generic_http::{
    NumberForm, Outcome, OutcomeRule, ParametersIn, RequestMethod, SendRule,
};
use vumi_core::codes::{self, Code};
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::message::{Actor, FailureClass, UserMessage};
use vumi_core::numbers::Numbers;
use vumi_core::outcome::Refusal;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::worker::WorkerContext;
use vumi_http::{Answer, Call, Caller, FORM, HeaderMap, Method, PROVIDER, class_of, retry_after};

const TEXT: &str = "text/plain; charset=utf-8";
/// What templates read an answer's body by.
const OF_BODY: [&str; 3] = ["body", "json", "xml"];

pub(super) struct Sending {
    method: Method,
    url: Template,
    parameters: Vec<(String, Template)>,
    place: ParametersIn,
    body: Option<(Template, Escape)>,
    content_type: Option<HeaderValue>,
    headers: Headers,
    needs: Vec<String>,
    /// Messages that are not sent, and the code of the reason.
    refuse: Vec<(Template, String)>,
    numbers: Option<Arc<Numbers>>,
    numbers_as: Option<NumberForm>,
    xml: Option<Paths>,
    outcomes: Vec<Meaning>,
    table: Arc<ErrorTable>,
    caller: Arc<dyn Caller>,
    cx: Arc<WorkerContext>,
}

/// What an answer means, when `when` is true.
struct Meaning {
    when: Option<Template>,
    is: Outcome,
    id: Option<Template>,
    code: Option<Template>,
}

/// An answer, and how much of it is there.
struct Heard<'a> {
    answer: &'a Answer,
    /// It was longer than is read: what is found in its body is not what the provider said.
    is_cut: bool,
}

impl Heard<'_> {
    /// Whether a template asks for what may have been left out.
    fn hides(&self, template: Option<&Template>) -> bool {
        self.is_cut && template.is_some_and(|template| template.reads(&OF_BODY))
    }
}

impl Meaning {
    fn new(rule: &OutcomeRule) -> Result<Self, WorkError> {
        Ok(Self {
            when: rule.when.as_deref().map(template).transpose()?,
            is: rule.is,
            id: rule.id.as_deref().map(template).transpose()?,
            code: rule.code.as_deref().map(template).transpose()?,
        })
    }
}

impl Sending {
    pub(super) fn new(
        rule: &SendRule,
        numbers: Option<Arc<Numbers>>,
        table: Arc<ErrorTable>,
        caller: Arc<dyn Caller>,
        config: &Config,
    ) -> Result<Self, WorkError> {
        let url = template(&rule.url)?;
        // An address that no message has a part in is right or wrong for all of them.
        if url.check(&Names::default().with("config")).is_none() {
            address(&url, &config.scope()?).map_err(|mut error| {
                (error.class, error.code) = (ErrorClass::Config, codes::CONFIG_INVALID);
                error
            })?;
        }
        let method = rule.method.unwrap_or(RequestMethod::Post);
        let in_query = method == RequestMethod::Get || rule.body.is_some();
        let place = rule.parameters_in.unwrap_or(match in_query {
            true => ParametersIn::Query,
            false => ParametersIn::Form,
        });
        let content_type = match (&rule.body, place) {
            (Some(_), _) => Some(rule.content_type.as_deref().unwrap_or(TEXT)),
            (None, ParametersIn::Form) => Some(rule.content_type.as_deref().unwrap_or(FORM)),
            (None, ParametersIn::Json) => {
                Some(rule.content_type.as_deref().unwrap_or("application/json"))
            }
            (None, ParametersIn::Query) => None,
        };
        let escape = Escape::of(content_type.unwrap_or_default());
        let parameters = rule.parameters.iter().flatten();
        let parameters = parameters.map(|(name, source)| Ok((name.clone(), template(source)?)));
        let needs = ["to_addr", "content"].map(str::to_owned);
        let body = rule.body.as_deref().map(template).transpose()?;
        let outcomes = rule.outcomes.iter().flatten().map(Meaning::new);
        let refuse = rule.refuse.iter().flatten();
        let refuse = refuse.map(|rule| Ok((template(&rule.when)?, rule.code.clone())));
        Ok(Self {
            method: method.as_str().parse().unwrap_or(Method::POST),
            url,
            parameters: parameters.collect::<Result<_, WorkError>>()?,
            place,
            body: body.map(|body| (body, escape)),
            content_type: content_type.and_then(|kind| kind.parse().ok()),
            headers: Headers::new(rule.headers.as_ref())?,
            needs: rule.needs.clone().unwrap_or(needs.into()),
            refuse: refuse.collect::<Result<_, WorkError>>()?,
            numbers,
            numbers_as: rule.numbers_as,
            xml: rule.xml.as_ref().map(Paths::new).transpose()?,
            outcomes: outcomes.collect::<Result<_, WorkError>>()?,
            table,
            caller,
            cx: Arc::clone(&config.cx),
        })
    }

    /// Sends a message. One for which a template has no value is refused.
    pub(super) async fn send(
        &self,
        message: &UserMessage,
        scope: Scope,
    ) -> Result<Sent, WorkError> {
        match self.attempt(message, scope).await {
            Err(error) if error.class == ErrorClass::BadInput => {
                tracing::warn!(worker = self.cx.worker_name(), message_id = message.message_id(), code = %error.code, reason = %error, "a message cannot be sent");
                let refused = refused_content(error.code, error.text.clone());
                PROVIDER.judged::<Sent>(&self.cx, &Err(error));
                Ok(refused)
            }
            sent => sent,
        }
    }

    async fn attempt(&self, message: &UserMessage, scope: Scope) -> Result<Sent, WorkError> {
        let lacks = |name: &&String| match message.field(name) {
            None | Some(Json::Null) => true,
            Some(value) => value.as_str() == Some(""),
        };
        let missing: Vec<&str> = self
            .needs
            .iter()
            .filter(lacks)
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            let text = format!("Missing fields: {}", missing.join(", "));
            return Ok(refused_content(codes::REPLY_FIELDS, text));
        }
        let values = scope.value();
        for (when, code) in &self.refuse {
            if when.holds(&values).map_err(|e| failed(&e))? {
                return Ok(Sent::Refused(self.table.refusal(code)));
            }
        }
        // A message to a group has no number that could be unclear, unless it is to one member.
        let number = message.to_addr().filter(|number| !number.is_empty());
        let call = match self.numbers.as_ref().zip(number) {
            None => self.call(&scope)?,
            Some((numbers, number)) => match numbers.goes(number, self.numbers_as) {
                Ok(number) => {
                    let mut message = message.clone();
                    message.set_field("to_addr", number);
                    self.call(&scope.clone().with_message(&message))?
                }
                Err(refusal) => return Ok(Sent::Refused(refusal)),
            },
        };
        let answer = PROVIDER.ask(&self.cx, &*self.caller, call).await?;
        let heard = Heard {
            answer: &answer,
            is_cut: self.caller.leaves_out(&answer),
        };
        // What cannot be judged may have been taken.
        let judged = self.judge(message, &heard, scope).map_err(|mut error| {
            if error.class == ErrorClass::BadInput {
                error.class = ErrorClass::Timeout;
                error.text = format!("the provider's answer cannot be judged: {}", error.text);
            }
            error
        });
        PROVIDER.judged(&self.cx, &judged);
        judged
    }

    fn call(&self, scope: &Scope) -> Result<Call, WorkError> {
        let values = scope.value();
        let mut query = String::new();
        let mut body = String::new();
        match self.place {
            ParametersIn::Json => {
                let mut members = Map::new();
                for (name, template) in &self.parameters {
                    if let Some(value) = template.value(&values).map_err(|e| failed(&e))? {
                        members.insert(name.clone(), to_json(&value));
                    }
                }
                body = Json::Object(members).to_string();
            }
            ParametersIn::Query | ParametersIn::Form => {
                let mut encoded = Serializer::new(String::new());
                for (name, template) in &self.parameters {
                    if let Some(text) = template.text(&values).map_err(|e| failed(&e))? {
                        encoded.append_pair(name, &text);
                    }
                }
                let encoded = encoded.finish();
                match self.place {
                    ParametersIn::Query => query = encoded,
                    _ => body = encoded,
                }
            }
        }
        if let Some((template, escape)) = &self.body {
            body = template.render(&values, *escape).map_err(|e| failed(&e))?;
        }
        let mut url = address(&self.url, scope)?;
        if !query.is_empty() {
            let before = url.to_string();
            let sign = if before.contains('?') { '&' } else { '?' };
            url = uri(&format!("{before}{sign}{query}"))?;
        }
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::from_static(concat!("vumi/", env!("CARGO_PKG_VERSION")));
        headers.insert(http::header::USER_AGENT, agent);
        if let Some(kind) = &self.content_type {
            headers.insert(CONTENT_TYPE, kind.clone());
        }
        self.headers.fill(&mut headers, scope)?;
        Ok(Call {
            method: self.method.clone(),
            url,
            headers,
            body: Bytes::from(body),
        })
    }

    /// What an answer means.
    fn judge(
        &self,
        message: &UserMessage,
        heard: &Heard<'_>,
        scope: Scope,
    ) -> Result<Sent, WorkError> {
        let answer = heard.answer;
        let scope = of_answer(answer, scope);
        let scope = match &self.xml {
            // What is no XML has no values in it, and is judged by the rest.
            Some(paths) => scope.with(
                "xml",
                Value::from_pairs(paths.read(&answer.body).unwrap_or_default()),
            ),
            None => scope,
        };
        let values = scope.value();
        let text = |template: &Option<Template>| match template {
            Some(template) if !heard.hides(Some(template)) => {
                template.text(&values).map_err(|e| failed(&e))
            }
            _ => Ok(None),
        };
        let mut meaning = None;
        for rule in &self.outcomes {
            if heard.hides(rule.when.as_ref()) {
                let text = "the provider's answer is longer than client.maxAnswer, and send.outcomes look into it";
                let (class, code) = (ErrorClass::Timeout, codes::PEER_TIMEOUT);
                return Err(WorkError::new(class, code, text));
            }
            let holds = match &rule.when {
                None => true,
                Some(when) => when.holds(&values).map_err(|e| failed(&e))?,
            };
            if holds {
                meaning = Some(rule);
                break;
            }
        }
        let status = answer.status.as_u16().to_string();
        let Some(rule) = meaning else {
            return match class_of(answer) {
                None => Ok(Sent::Accepted(message.message_id().to_owned())),
                Some(ErrorClass::RemotePermanent)
                    if answer.status.is_redirection() && !self.table.knows(&status) =>
                {
                    let (class, code) = (FailureClass::Provider, codes::PEER_REFUSED);
                    let text = format!(
                        "The provider redirects (status {status}), and that is not followed: write the address that it redirects to as send.url."
                    );
                    let refusal = Refusal::new(class, code, text, Actor::Operator);
                    Ok(Sent::Refused(refusal.with_provider_code(&status)))
                }
                Some(ErrorClass::RemotePermanent) => Ok(Sent::Refused(self.table.refusal(&status))),
                Some(class) => Err(self.error(class, &status)),
            };
        };
        let code = text(&rule.code)?
            .filter(|code| !code.is_empty())
            .unwrap_or(status);
        let code: String = code.chars().take(64).collect();
        match rule.is {
            Outcome::Accepted => {
                let id = text(&rule.id)?.filter(|id| !id.is_empty());
                Ok(Sent::Accepted(
                    id.unwrap_or_else(|| message.message_id().to_owned()),
                ))
            }
            Outcome::Refused => Ok(Sent::Refused(self.table.refusal(&code))),
            Outcome::Throttled => {
                Err(self.error(ErrorClass::Throttled(retry_after(&answer.headers)), &code))
            }
            Outcome::Temporary => Err(self.error(ErrorClass::RemoteTemporary, &code)),
            Outcome::Credentials => Err(self.error(ErrorClass::Auth, &code)),
            Outcome::Unknown => Err(self.error(ErrorClass::Timeout, &code)),
        }
    }

    /// The error of an answer that is neither a yes nor a no, with what the provider's code means.
    fn error(&self, class: ErrorClass, code: &str) -> WorkError {
        let says = match self.table.codes.iter().find(|known| known.code == code) {
            Some(known) => format!("{code}: {}", known.text),
            None => code.to_owned(),
        };
        let mut error = PROVIDER.error(class, &says);
        error.provider_code = Some(code.to_owned());
        error
    }
}

/// That a message will never be sent for what it holds.
fn refused_content(code: Code, text: String) -> Sent {
    let class = FailureClass::Content;
    Sent::Refused(Refusal::new(class, code, text, Actor::Campaign))
}

/// Where a request goes to, as its template says.
fn address(url: &Template, scope: &Scope) -> Result<Uri, WorkError> {
    let text = url.text(&scope.value()).map_err(|e| failed(&e))?;
    let url = uri(&text.unwrap_or_default())?;
    match matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some() {
        true => Ok(url),
        false => Err(unfit(
            "send.url must begin with http:// or https:// and a host".into(),
        )),
    }
}

fn uri(text: &str) -> Result<Uri, WorkError> {
    text.parse().map_err(|_| unfit("send.url is no URL".into()))
}

/// A scope with an answer of the provider.
fn of_answer(answer: &Answer, scope: Scope) -> Scope {
    let body = String::from_utf8_lossy(&answer.body);
    let json: Json = serde_json::from_str(&body).unwrap_or_default();
    let headers = answer.headers.iter();
    let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    scope
        .with("status", answer.status.as_u16())
        .with("headers", Value::from_pairs(headers))
        .with("body", body.trim())
        .with("json", of_json(&json))
}
