//! What a request of the provider carries: which rule it falls under, whether it is who it says, whether it is whole, and
//! the message or receipt in it.

mod access;
mod fields;
mod receipts;

use super::answers::Answers;
use super::scope::Scope;
use super::sessions::{Found, REDIAL, SESSION, SessionBook};
use super::{failed, template};
use crate::engine::{AnswerOnce, Carried, Inbound, Refused, SessionMove};
use access::Access;
use fields::{Fields, Findings};
use receipts::Receipts;
use std::collections::BTreeMap;
use std::sync::Arc;
use vumi_api::template::{Template, Value, to_json};
use vumi_api::transports::GenericHttp;
use vumi_api::transports::generic_http::{MessageRule, RequestMethod, RequestRule};
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::numbers;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::reasons;
use vumi_core::status::{StatusLevel, StatusReport};
use vumi_core::worker::WorkerContext;
use vumi_http::{Answer, Method, Request, StatusCode};

/// The kinds of requests of one provider.
pub(super) struct Requests {
    cx: Arc<WorkerContext>,
    transport_type: String,
    numbers_of: Option<String>,
    access: Access,
    rules: Vec<Rule>,
    invalid: Option<Answers>,
}

struct Rule {
    path: Option<Vec<Part>>,
    methods: Vec<Method>,
    when: Option<Template>,
    fields: Fields,
    message: Option<Message>,
    receipts: Option<Receipts>,
    answer: Option<Arc<Answers>>,
}

/// One part of a path.
enum Part {
    Fixed(String),
    Named(String),
}

/// The fields of a message.
struct Message {
    from_addr: Template,
    to_addr: Template,
    texts: Vec<(&'static str, Template)>,
    session_event: Option<Template>,
    id: Option<Template>,
    metadata: [(&'static str, Vec<(String, Template)>); 2],
}

impl Requests {
    pub(super) fn new(
        provider: &GenericHttp,
        table: Arc<ErrorTable>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let access = Access::new(provider.access.as_ref(), cx)?;
        let rules = provider.requests.iter().flatten();
        let rules = rules.map(|rule| Rule::new(rule, &access, &table, cx));
        Ok(Self {
            transport_type: provider
                .transport_type
                .clone()
                .unwrap_or_else(|| "sms".into()),
            numbers_of: provider.numbers_of.clone(),
            rules: rules.collect::<Result<_, WorkError>>()?,
            invalid: provider.invalid.as_ref().map(Answers::new).transpose()?,
            access,
            cx: Arc::clone(cx),
        })
    }

    /// Methods of requests to a path; none if no rule is for it.
    pub(super) fn methods(&self, below: &str) -> Option<Vec<Method>> {
        let rules = self.rules.iter().filter(|rule| rule.parts(below).is_some());
        let mut methods: Vec<Method> = Vec::new();
        for method in rules.flat_map(|rule| &rule.methods) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        (!methods.is_empty()).then_some(methods)
    }

    pub(super) async fn read(
        &self,
        request: &Request,
        below: &str,
        config: Value,
        sessions: Option<&SessionBook>,
    ) -> Result<Carried, Refused> {
        let read = fields::read(request)?;
        let scope = read.scope(request).with("config", config);
        if let Some(refused) = self.access.check(request, &scope)? {
            return Err(refused);
        }
        let (rule, scope) = self.rule(request, below, scope)?;
        let mut findings = rule.fields.findings(&read, &scope)?;
        if let Some(problem) = read.problem {
            findings.add("invalid_body", problem);
        }
        if !findings.is_empty() {
            return Err(self.invalid(findings, &scope));
        }
        if let Some(message) = &rule.message {
            return self.message(rule, message, scope, sessions).await;
        }
        let answer = || match &rule.answer {
            Some(answer) => answer.answer(&scope),
            None => Ok(Answer::text(StatusCode::OK, "")),
        };
        let answer = answer().map_err(|error| broken(&error))?;
        match &rule.receipts {
            None => Ok(Carried::Nothing(answer)),
            Some(receipts) => match receipts.receipt(&scope).map_err(|e| broken(&e))? {
                Some(receipt) => Ok(Carried::Receipt(receipt, answer)),
                None => Ok(Carried::Nothing(answer)),
            },
        }
    }

    /// The rule that a request falls under.
    fn rule(
        &self,
        request: &Request,
        below: &str,
        scope: Scope,
    ) -> Result<(&Rule, Scope), Refused> {
        for rule in &self.rules {
            let Some(parts) = rule.parts(below) else {
                continue;
            };
            if !rule.methods.contains(&request.head.method) {
                continue;
            }
            let scope = scope.clone().with("path", Value::from_pairs(parts));
            let holds = match &rule.when {
                None => true,
                Some(when) => when
                    .holds(&scope.value())
                    .map_err(|e| broken(&failed(&e)))?,
            };
            if holds {
                return Ok((rule, scope));
            }
        }
        let mut findings = Findings::default();
        findings.add("unknown_request", "no rule is for it".into());
        Err(self.invalid(findings, &scope))
    }

    fn invalid(&self, findings: Findings, scope: &Scope) -> Refused {
        let (answer, text) = match &self.invalid {
            None => (findings.answer(), findings.sentence()),
            Some(invalid) => {
                let text = findings.sentence();
                let scope = scope.clone().with("findings", findings.value());
                match invalid.answer(&scope) {
                    Ok(answer) => (answer, text),
                    Err(error) => return broken(&error),
                }
            }
        };
        Refused::new(answer, reasons::INVALID_REQUEST, text)
    }

    async fn message(
        &self,
        rule: &Rule,
        rule_message: &Message,
        scope: Scope,
        sessions: Option<&SessionBook>,
    ) -> Result<Carried, Refused> {
        let broke = |error: WorkError| broken(&error);
        let found = match sessions {
            Some(sessions) => sessions.find(&scope).await.map_err(broke)?,
            None => None,
        };
        let session = found.as_ref().map_or_else(|| Value::from(()), Found::value);
        let scope = scope.with("session", session);
        let values = scope.value();
        let text = |template: &Template| template.text(&values).map_err(|e| broken(&failed(&e)));
        let mut event = match &rule_message.session_event {
            Some(template) => text(template)?,
            None => None,
        };
        let from_addr = text(&rule_message.from_addr)?;
        if let Some(sessions) = sessions {
            let mut redialled = None;
            let step;
            let Some(found) = found else {
                let mut findings = Findings::default();
                findings.add("missing_session", "it names no session".into());
                return Err(self.invalid(findings, &scope));
            };
            let closes = event.as_deref() == Some("close");
            if found.begins && !closes {
                if let Some(user) = &from_addr {
                    redialled = sessions.redialled(user).await.map_err(broke)?;
                }
                let fields = match &redialled {
                    Some(fields) => fields.clone(),
                    None => sessions.first(&scope).map_err(broke)?,
                };
                let own = if redialled.is_some() { "resume" } else { "new" };
                event = event.or(Some(own.into()));
                step = Some(SessionMove::Begin(found.id.clone(), fields));
            } else if found.stored.is_none() {
                return Err(self.unknown_session(sessions, &scope));
            } else if closes {
                step = Some(SessionMove::End(found.id.clone()));
            } else {
                event = event.or(Some("resume".into()));
                step = None;
            }
            return self.fill(
                rule,
                rule_message,
                scope,
                Filled {
                    from_addr,
                    event,
                    session: Some(found.id),
                    step,
                    redialled,
                },
            );
        }
        self.fill(
            rule,
            rule_message,
            scope,
            Filled {
                from_addr,
                event,
                session: None,
                step: None,
                redialled: None,
            },
        )
    }

    fn unknown_session(&self, sessions: &SessionBook, scope: &Scope) -> Refused {
        let text = "a request is of a session that is not known";
        match &sessions.unknown {
            Some(unknown) => match unknown.answer(scope) {
                Ok(answer) => Refused::new(answer, reasons::UNKNOWN_SESSION, text),
                Err(error) => broken(&error),
            },
            None => {
                let mut findings = Findings::default();
                findings.add("unknown_session", "it is not known".into());
                self.invalid(findings, scope)
            }
        }
    }

    fn fill(
        &self,
        rule: &Rule,
        from: &Message,
        scope: Scope,
        filled: Filled,
    ) -> Result<Carried, Refused> {
        // A user who is back sees where the conversation stood: the new dial string is nothing that was said in it.
        let scope = match &filled.redialled {
            Some(fields) => {
                let fields = fields.iter();
                let fields = fields.map(|(name, text)| (name.as_str(), text.as_str()));
                scope.with("session", Value::from_pairs(fields))
            }
            None => scope,
        };
        let values = scope.value();
        let value = |template: &Template| template.value(&values).map_err(|e| broken(&failed(&e)));
        let text = |template: &Template| Ok::<_, Refused>(value(template)?.map(|v| v.to_string()));
        let to_addr = text(&from.to_addr)?;
        let mut message = UserMessage::new(&self.transport_type, to_addr.as_deref(), None);
        for (name, template) in &from.texts {
            let skipped = *name == "content" && filled.redialled.is_some();
            if let Some(text) = text(template)?.filter(|_| !skipped) {
                message.set_field(name, text);
            }
        }
        if let Some(event) = &filled.event {
            let known = [SessionEvent::New, SessionEvent::Resume, SessionEvent::Close];
            let event = known.into_iter().find(|known| known.as_str() == event);
            let Some(event) = event else {
                let mut findings = Findings::default();
                findings.add("invalid_parameter", "session_event".into());
                return Err(self.invalid(findings, &scope));
            };
            message.set_session_event(Some(event));
        }
        for (name, entries) in &from.metadata {
            for (key, template) in entries {
                let entry = value(template)?;
                let metadata = match *name {
                    "helper_metadata" => message.helper_metadata_mut(),
                    _ => message.transport_metadata_mut(),
                };
                metadata.insert(
                    key.clone(),
                    entry.as_ref().map_or(serde_json::Value::Null, to_json),
                );
            }
        }
        if let Some(session) = filled.session {
            message
                .transport_metadata_mut()
                .insert(SESSION.into(), session.into());
        }
        if filled.redialled.is_some() {
            message
                .helper_metadata_mut()
                .insert(REDIAL.into(), true.into());
        }
        self.address(&mut message, filled.from_addr);
        let provider_id = match &from.id {
            Some(template) => text(template)?.filter(|id| !id.is_empty()),
            None => None,
        };
        let answer = rule.answer.clone().map(|answers| {
            Box::new(move |message: &UserMessage| answers.answer(&scope.with_message(message)))
                as AnswerOnce
        });
        Ok(Carried::Message(Box::new(Inbound {
            message,
            provider_id,
            session: filled.step,
            answer,
        })))
    }

    /// Sets the user's address, in its one spelling where numbers have one.
    fn address(&self, message: &mut UserMessage, given: Option<String>) {
        let (Some(region), Some(number)) = (&self.numbers_of, &given) else {
            message.set_from_addr(given.as_deref());
            return;
        };
        match numbers::normalised(number, region) {
            Ok(normal) => {
                if normal != *number {
                    let metadata = message.transport_metadata_mut();
                    metadata.insert("from_addr".into(), number.as_str().into());
                }
                message.set_from_addr(Some(&normal));
            }
            Err(unclear) => {
                // Passed on as it is, and said: the address may become a second person.
                let metadata = message.helper_metadata_mut();
                metadata.insert("number".into(), "unclear".into());
                message.set_from_addr(Some(number));
                let text = format!("{unclear}; the message goes on with it as it came");
                tracing::warn!(
                    worker = self.cx.worker_name(),
                    reason = text,
                    "a number is unclear"
                );
                let report = StatusReport::new(
                    "numbers",
                    StatusLevel::Degraded,
                    reasons::NUMBER_UNCLEAR,
                    text,
                );
                self.cx.report(report);
            }
        }
    }
}

/// What is known of a message before its rule fills it.
struct Filled {
    from_addr: Option<String>,
    event: Option<String>,
    session: Option<String>,
    step: Option<SessionMove>,
    redialled: Option<BTreeMap<String, String>>,
}

/// A template failed, or the store: the provider is to come again.
fn broken(error: &WorkError) -> Refused {
    Refused {
        answer: Box::new(Answer::refusal(error)),
        why: Some((reasons::CANNOT_ANSWER, error.text.clone())),
    }
}

impl Rule {
    fn new(
        rule: &RequestRule,
        access: &Access,
        table: &Arc<ErrorTable>,
        cx: &Arc<WorkerContext>,
    ) -> Result<Self, WorkError> {
        let default = [RequestMethod::Get, RequestMethod::Post];
        let methods = rule.methods.as_deref().unwrap_or(&default);
        let methods = methods
            .iter()
            .filter_map(|method| method.as_str().parse().ok());
        let receipts = rule.receipt.as_ref();
        Ok(Self {
            path: rule.path.as_deref().map(parts_of),
            methods: methods.collect(),
            when: rule.when.as_deref().map(template).transpose()?,
            fields: Fields::new(rule, access)?,
            message: rule.message.as_ref().map(Message::new).transpose()?,
            receipts: receipts
                .map(|receipt| Receipts::new(receipt, Arc::clone(table), cx))
                .transpose()?,
            answer: rule
                .answer
                .as_ref()
                .map(Answers::new)
                .transpose()?
                .map(Arc::new),
        })
    }

    /// The named parts of a path, if the rule is for it.
    fn parts(&self, below: &str) -> Option<Vec<(&str, String)>> {
        let Some(parts) = &self.path else {
            return Some(Vec::new());
        };
        let given: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        if given.len() != parts.len() {
            return None;
        }
        let mut named = Vec::new();
        for (part, given) in parts.iter().zip(given) {
            match part {
                Part::Fixed(text) if text == given => {}
                Part::Fixed(_) => return None,
                Part::Named(name) => named.push((name.as_str(), fields::unescaped(given))),
            }
        }
        Some(named)
    }
}

fn parts_of(path: &str) -> Vec<Part> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => Part::Named(name.to_owned()),
        None => Part::Fixed(part.to_owned()),
    };
    parts.map(part).collect()
}

impl Message {
    fn new(rule: &MessageRule) -> Result<Self, WorkError> {
        let mut texts = Vec::new();
        for (name, source) in [
            ("content", &rule.content),
            ("provider", &rule.provider),
            ("group", &rule.group),
        ] {
            if let Some(source) = source {
                texts.push((name, template(source)?));
            }
        }
        let metadata = |map: &Option<BTreeMap<String, String>>| {
            let entries = map.iter().flatten();
            let entries = entries.map(|(name, source)| Ok((name.clone(), template(source)?)));
            entries.collect::<Result<Vec<_>, WorkError>>()
        };
        Ok(Self {
            from_addr: template(&rule.from_addr)?,
            to_addr: template(&rule.to_addr)?,
            texts,
            session_event: rule.session_event.as_deref().map(template).transpose()?,
            id: rule.id.as_deref().map(template).transpose()?,
            metadata: [
                ("transport_metadata", metadata(&rule.transport_metadata)?),
                ("helper_metadata", metadata(&rule.helper_metadata)?),
            ],
        })
    }
}
