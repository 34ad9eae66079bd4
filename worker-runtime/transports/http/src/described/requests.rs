//! What a request of the provider carries: which rule it falls under, whether it is who it says, whether it is whole, and
//! the message or receipt in it.

mod access;
mod fields;
mod message;
mod receipts;
mod rule;

use super::answers::Answers;
use super::failed;
use super::scope::Scope;
use super::sessions::{Found, SessionBook};
use super::xml::Paths;
use crate::engine::{Carried, Received, Refused};
use crate::findings::Findings;
use crate::repeated::Repeated;
use access::Access;
pub(crate) use access::Door;
use rule::Rule;
use std::sync::Arc;
use vumi_api::template::{Value, of_json};
use vumi_api::transports::GenericHttp;
use vumi_core::error::WorkError;
use vumi_core::numbers::Numbers;
use vumi_core::outcome::table::ErrorTable;
use vumi_core::reasons;
use vumi_core::worker::WorkerContext;
use vumi_http::{Answer, Method, Request, StatusCode};

/// The kinds of requests of one provider.
pub(super) struct Requests {
    cx: Arc<WorkerContext>,
    transport_type: String,
    numbers: Option<Arc<Numbers>>,
    access: Access,
    xml: Option<Paths>,
    rules: Vec<Rule>,
    invalid: Option<Answers>,
    repeated: Repeated,
}

impl Requests {
    pub(super) fn new(
        provider: &GenericHttp,
        table: Arc<ErrorTable>,
        numbers: Option<Arc<Numbers>>,
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
            numbers,
            xml: provider.xml.as_ref().map(Paths::new).transpose()?,
            rules: rules.collect::<Result<_, WorkError>>()?,
            invalid: provider.invalid.as_ref().map(Answers::new).transpose()?,
            access,
            repeated: Repeated::new(cx),
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
    ) -> Result<Received, Refused> {
        // Whoever does not show who it is gets no body read: what JSON is made into takes many times its bytes.
        let (params, problem) = fields::params(request, self.xml.as_ref()).await?;
        let scope = fields::outside(&params, request).with("config", config.clone());
        let inside = fields::may_hold_more(request, self.xml.as_ref());
        if let Some(refused) = self.access.check(request, &scope, inside)? {
            return Err(refused);
        }
        let read = fields::read(request, &params, problem, self.xml.as_ref())?;
        let scope = read.scope(request).with("config", config);
        if inside && let Some(refused) = self.access.check_inside(&scope)? {
            return Err(refused);
        }
        let unsigned = self.access.unsigned(request);
        let unsigned = unsigned.map_err(|error| fields::too_many(&error))?;
        let (rule, scope) = self.rule(request, below, scope)?;
        let named = rule.fields.named();
        let odd = self.repeated.look(&params, &read.repeated, named);
        let found = match (&rule.message, sessions) {
            (Some(_), Some(sessions)) => sessions.find(&scope).await.map_err(|e| broken(&e))?,
            _ => None,
        };
        let scope = match &found {
            Some(found) => scope.with("session", found.value()),
            None => scope,
        };
        let mut findings = rule.fields.findings(&read, &scope)?;
        for name in unsigned {
            findings.add("unsigned_parameter", &name);
        }
        if let Some(problem) = read.problem {
            findings.add("invalid_body", &problem);
        }
        if !findings.is_empty() {
            return Err(self.invalid(findings, &scope));
        }
        let sessions = sessions.map(|sessions| (sessions, found));
        let carried = self.carried(rule, scope, sessions).await?;
        Ok(Received { carried, odd })
    }

    /// What a request carries in which nothing is wrong.
    async fn carried(
        &self,
        rule: &Rule,
        scope: Scope,
        sessions: Option<(&SessionBook, Option<Found>)>,
    ) -> Result<Carried, Refused> {
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
        findings.add("unknown_request", "no rule is for it");
        Err(self.invalid(findings, &scope))
    }

    fn invalid(&self, findings: Findings, scope: &Scope) -> Refused {
        let (answer, text) = match &self.invalid {
            None => (findings.answer(), findings.sentence()),
            Some(invalid) => {
                let text = findings.sentence();
                let scope = scope.clone().with("findings", of_json(&findings.value()));
                match invalid.answer(&scope) {
                    Ok(answer) => (answer, text),
                    Err(error) => return broken(&error),
                }
            }
        };
        Refused::new(answer, reasons::INVALID_REQUEST, text)
    }
}

/// The store failed, and the provider is to come again; or a template, and it need not.
fn broken(error: &WorkError) -> Refused {
    Refused {
        answer: Box::new(Answer::refusal(error)),
        why: Some((reasons::CANNOT_ANSWER, error.text.clone())),
    }
}
