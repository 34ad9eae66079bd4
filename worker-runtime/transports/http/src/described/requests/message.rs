//! The message in a request: where it stands in its session, and its fields.

use super::super::scope::Scope;
use super::super::sessions::{Found, REDIAL, Redialled, SessionBook};
use super::super::{failed, template};
use super::rule::Rule;
use super::{Requests, broken};
use crate::engine::{AnswerOnce, Carried, Cut, Inbound, Late, Refused, SessionMove, message_id};
use crate::findings::Findings;
use crate::front::first_answer;
use std::collections::BTreeMap;
use vumi_api::template::{Template, Value, to_json};
use vumi_api::transports::generic_http::MessageRule;
use vumi_core::error::WorkError;
use vumi_core::message::{SessionEvent, UserMessage};
use vumi_core::numbers::Came;
use vumi_core::reasons::{self, Reason};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::Taken;
use vumi_http::Answer;

/// The fields of a message.
pub(super) struct Message {
    from_addr: Template,
    to_addr: Template,
    texts: Vec<(&'static str, Template)>,
    session_event: Option<Template>,
    id: Option<Template>,
    metadata: [(&'static str, Vec<(String, Template)>); 2],
}

impl Message {
    pub(super) fn new(rule: &MessageRule) -> Result<Self, WorkError> {
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

/// Who dialled, and what.
struct Dialled<'a> {
    user: Option<&'a str>,
    service: Option<String>,
    /// The provider's id of the request.
    id: Option<&'a str>,
}

/// Where a message stands in its session, if there are sessions.
#[derive(Default)]
struct Place<'a> {
    event: Option<String>,
    session: Option<(&'a SessionBook, String)>,
    step: Option<SessionMove>,
    /// What was kept of a session that the deadline cut off.
    redialled: Option<BTreeMap<String, String>>,
}

/// A message that finds its place, or what is answered instead.
enum Placed<'a> {
    At(Place<'a>),
    Instead(Carried),
}

/// An address that is there and names nobody.
fn is_nobody(address: Option<&str>) -> bool {
    address.is_some_and(|address| address.trim().is_empty())
}

/// A finding about a field of the message: the parameters that its template reads are named.
fn named(kind: &str, field: &str, template: &Template, scope: &Scope) -> Findings {
    let mut findings = Findings::default();
    let asked = template.asks("params", &scope.value());
    for name in &asked {
        findings.add_ours(kind, name);
    }
    if asked.is_empty() {
        findings.add_ours(kind, field);
    }
    findings
}

impl Requests {
    pub(super) async fn message(
        &self,
        rule: &Rule,
        from: &Message,
        scope: Scope,
        sessions: Option<(&SessionBook, Option<Found>)>,
    ) -> Result<Carried, Refused> {
        let values = scope.value();
        let text = |template: &Template| template.text(&values).map_err(|e| broken(&failed(&e)));
        let from_addr = text(&from.from_addr)?;
        if is_nobody(from_addr.as_deref()) {
            return Err(self.wrong("from_addr", &from.from_addr, &scope));
        }
        let address = self.address(from_addr, &from.from_addr, &scope)?;
        let event = match &from.session_event {
            Some(template) => text(template)?,
            None => None,
        };
        let provider_id = match &from.id {
            Some(template) => text(template)?.filter(|id| !id.is_empty()),
            None => None,
        };
        let place = match sessions {
            None => Place {
                event,
                ..Place::default()
            },
            Some((sessions, found)) => {
                let dialled = Dialled {
                    user: address.as_ref().map(|address| address.number.as_str()),
                    service: text(&from.to_addr)?,
                    id: provider_id.as_deref(),
                };
                match self.place(sessions, found, &scope, dialled, event).await? {
                    Placed::At(place) => place,
                    Placed::Instead(carried) => return Ok(carried),
                }
            }
        };
        self.fill(rule, from, scope, address, place, provider_id)
    }

    async fn place<'a>(
        &self,
        sessions: &'a SessionBook,
        found: Option<Found>,
        scope: &Scope,
        dialled: Dialled<'_>,
        event: Option<String>,
    ) -> Result<Placed<'a>, Refused> {
        let broke = |error: WorkError| broken(&error);
        let Some(found) = found else {
            let mut findings = Findings::default();
            findings.add("missing_session", "it names no session");
            return Err(self.invalid(findings, scope));
        };
        let closes = event.as_deref() == Some("close");
        let mut place = Place {
            event,
            session: Some((sessions, found.id.clone())),
            ..Place::default()
        };
        if found.begins && !closes {
            let service = dialled.service.as_deref();
            let redialled = match dialled.user {
                Some(user) => sessions.redialled(user, service).await.map_err(broke)?,
                None => None,
            };
            // What was cut off is still there when the same request comes again, and is not for that one.
            let before = match &redialled {
                Some(_) => self.seen(dialled.id).await?,
                None => Taken::Now,
            };
            if let Some(answer) = first_answer(&before) {
                return Ok(self.repeated(answer));
            }
            let repeats = |cut: &Cut| before != Taken::Now && cut.session == found.id;
            let (own, fields, cut) = match redialled {
                Some(redialled) if repeats(&redialled.cut) => {
                    // It waits for its own reply.
                    place.event = place.event.or(Some("new".into()));
                    return Ok(Placed::At(place));
                }
                Some(Redialled {
                    fields,
                    late: Some(reply),
                    cut,
                }) => {
                    // What the application said meanwhile is where the conversation stands.
                    let ends = reply.session_event() == Some(SessionEvent::Close);
                    return Ok(Placed::Instead(Carried::Late(Box::new(Late {
                        reply,
                        provider_id: dialled.id.map(str::to_owned),
                        session: (!ends).then_some(SessionMove::Begin(found.id, fields, None)),
                        read: SessionMove::Forget(cut),
                    }))));
                }
                Some(Redialled {
                    fields,
                    late: None,
                    cut,
                }) => {
                    place.redialled = Some(fields.clone());
                    ("resume", fields, Some(cut))
                }
                None => ("new", sessions.first(scope).map_err(broke)?, None),
            };
            place.event = place.event.or(Some(own.into()));
            place.step = Some(SessionMove::Begin(found.id, fields, cut));
        } else if found.stored.is_none() {
            // Perhaps the session has ended since the request came first.
            let before = self.seen(dialled.id).await?;
            if before == Taken::Now {
                return Err(self.unknown_session(sessions, scope));
            }
            if let Some(answer) = first_answer(&before) {
                return Ok(self.repeated(answer));
            }
            place.event = place.event.or(Some("resume".into()));
        } else if closes {
            place.step = Some(SessionMove::End(found.id));
        } else {
            place.event = place.event.or(Some("resume".into()));
        }
        Ok(Placed::At(place))
    }

    /// A request that was answered before, and gets that answer.
    fn repeated(&self, answer: Answer) -> Placed<'static> {
        self.cx.http(HttpSeen::Repeat);
        Placed::Instead(Carried::Nothing(answer))
    }

    /// What became of a request with this id of the provider, if it was here before.
    async fn seen(&self, id: Option<&str>) -> Result<Taken, Refused> {
        let Some(id) = id else {
            return Ok(Taken::Now);
        };
        let seen = self.cx.seen(&message_id(&self.cx, id)).await;
        seen.map_err(|error| broken(&error))
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
                findings.add("unknown_session", "it is not known");
                self.invalid(findings, scope)
            }
        }
    }

    fn fill(
        &self,
        rule: &Rule,
        from: &Message,
        scope: Scope,
        address: Option<Came>,
        place: Place<'_>,
        provider_id: Option<String>,
    ) -> Result<Carried, Refused> {
        // A user who is back sees where the conversation stood: the new dial string is nothing that was said in it.
        let scope = match &place.redialled {
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
        if is_nobody(to_addr.as_deref()) {
            return Err(self.wrong("to_addr", &from.to_addr, &scope));
        }
        let mut message = UserMessage::new(&self.transport_type, to_addr.as_deref(), None);
        for (name, template) in &from.texts {
            let skipped = *name == "content" && place.redialled.is_some();
            if let Some(text) = text(template)?.filter(|_| !skipped) {
                message.set_field(name, text);
            }
        }
        if let Some(event) = &place.event {
            let known = [SessionEvent::New, SessionEvent::Resume, SessionEvent::Close];
            let event = known.into_iter().find(|known| known.as_str() == event);
            match (event, &from.session_event) {
                (None, Some(template)) => {
                    return Err(self.wrong("session_event", template, &scope));
                }
                (event, _) => message.set_session_event(event),
            }
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
        if let Some(address) = address {
            address.mark(&mut message);
        }
        if let Some((sessions, id)) = place.session {
            sessions.marks(id, &mut message);
        }
        if place.redialled.is_some() {
            let metadata = message.helper_metadata_mut();
            metadata.insert(REDIAL.into(), true.into());
        }
        let answer = rule.answer.clone().map(|answers| {
            Box::new(move |message: &UserMessage| answers.answer(&scope.with_message(message)))
                as AnswerOnce
        });
        Ok(Carried::Message(Box::new(Inbound {
            message,
            provider_id,
            session: place.step,
            answer,
        })))
    }

    /// A field of the message cannot be what the request says.
    fn wrong(&self, field: &str, template: &Template, scope: &Scope) -> Refused {
        let findings = named("invalid_parameter", field, template, scope);
        self.invalid(findings, scope)
    }

    /// The user's address, in its one spelling where numbers have one. One that is unclear was told already.
    fn address(
        &self,
        given: Option<String>,
        template: &Template,
        scope: &Scope,
    ) -> Result<Option<Came>, Refused> {
        let (Some(number), Some(numbers)) = (given.clone(), &self.numbers) else {
            return Ok(given.map(Came::unread));
        };
        match numbers.came(number) {
            Ok(came) => Ok(Some(came)),
            Err(_) => {
                let findings = named("unclear_number", "from_addr", template, scope);
                let refused = self.invalid(findings, scope);
                let untold = |why: &(Reason, String)| why.0 != reasons::INVALID_REQUEST;
                Err(Refused {
                    why: refused.why.filter(untold),
                    ..refused
                })
            }
        }
    }
}
