//! What the schema cannot say about a description: templates that cannot be read, names that have no value, rules that
//! never apply.

use super::{
    Access, Answer, DeadlineRule, GenericHttp, MESSAGE_FIELDS, MessageRule, Redial, RequestRule,
    SendRule, SessionRule, Signature, WITHOUT_COUNTRY, XmlPath,
};
use crate::shared::{ProviderCode, SecretValue};
use crate::template::{Names, Template};
use std::collections::{BTreeMap, BTreeSet};

/// Beginning of names under which a session keeps what is the engine's.
const RESERVED: &str = "vumi_";

/// How long a session lives, as its field states it.
const KEEP: std::time::Duration = std::time::Duration::from_secs(600);

/// The names that have values, and what was found so far.
struct Check {
    config: BTreeSet<String>,
    session: Option<BTreeSet<String>>,
    findings: Vec<(String, String)>,
}

/// What is wrong with `access`, of which templates find nothing but `secrets` under `config`; paths begin with `access`. `id_field`
/// holds the callers' ids, if they give any.
pub(crate) fn check_access(
    access: Option<&Access>,
    secrets: Option<&BTreeMap<String, SecretValue>>,
    id_field: Option<&String>,
) -> Vec<(String, String)> {
    let mut check = Check {
        config: secrets
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect(),
        session: None,
        findings: Vec::new(),
    };
    match access {
        Some(access) => check.access(access),
        None if secrets.is_some() => check.refuse("secrets", "has no effect without `access`"),
        None => {}
    }
    let signature = access.and_then(|access| access.signature.as_ref());
    if id_field.is_none() && signature.is_some_and(Signature::is_timeless) {
        check.refuse(
            "access.signature",
            "a request that somebody recorded would be good for ever: name timestampHeader, or idField beside access",
        );
    }
    check.findings
}

/// See [`GenericHttp::check`].
pub(super) fn check(provider: &GenericHttp, config: &[&str]) -> Vec<(String, String)> {
    let settings = provider.settings.iter().flat_map(BTreeMap::keys);
    let secrets = provider.secrets.iter().flat_map(BTreeMap::keys);
    let mut names: BTreeSet<String> = settings.chain(secrets).cloned().collect();
    names.extend(config.iter().map(|name| (*name).to_owned()));
    let session = provider.session.as_ref().map(|session| {
        let stored = session.store.iter().flat_map(BTreeMap::keys).cloned();
        stored.chain(["created_at".to_owned()]).collect()
    });
    let mut check = Check {
        config: names,
        session,
        findings: Vec::new(),
    };
    check.all(provider);
    check.findings
}

impl Check {
    fn refuse(&mut self, path: impl Into<String>, sentence: impl Into<String>) {
        self.findings.push((path.into(), sentence.into()));
    }

    fn template(&mut self, path: &str, source: &str, names: &Names) {
        let problem = match Template::new(source) {
            Ok(template) => template.check(names),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            self.refuse(path, problem);
        }
    }

    fn optional(&mut self, path: &str, source: Option<&String>, names: &Names) {
        if let Some(source) = source {
            self.template(path, source, names);
        }
    }

    fn map(&mut self, path: &str, map: Option<&BTreeMap<String, String>>, names: &Names) {
        for (name, source) in map.into_iter().flatten() {
            self.template(&format!("{path}.{name}"), source, names);
        }
    }

    fn answer(&mut self, path: &str, answer: Option<&Answer>, names: &Names) {
        let Some(answer) = answer else { return };
        self.optional(&format!("{path}.body"), answer.body.as_ref(), names);
        self.headers(&format!("{path}.headers"), answer.headers.as_ref(), names);
    }

    fn headers(&mut self, path: &str, map: Option<&BTreeMap<String, String>>, names: &Names) {
        self.map(path, map, names);
        for name in map.into_iter().flat_map(BTreeMap::keys) {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                self.refuse(format!("{path}.{name}"), "is no name of a header");
            }
        }
    }

    fn paths(&mut self, path: &str, map: Option<&BTreeMap<String, String>>) {
        for (name, source) in map.into_iter().flatten() {
            if let Err(problem) = source.parse::<XmlPath>() {
                self.refuse(format!("{path}.{name}"), problem);
            }
        }
    }

    /// What every template has.
    fn base(&self) -> Names {
        Names::default().with_members("config", self.config.iter().cloned())
    }

    fn with_session(&self, names: Names) -> Names {
        match &self.session {
            Some(members) => names.with_members("session", members.iter().cloned()),
            None => names,
        }
    }

    fn with_message(names: Names) -> Names {
        names.with_members("message", MESSAGE_FIELDS)
    }

    fn of_request(&self, rule: Option<&RequestRule>) -> Names {
        let names = self.base().with("headers").with("method").with("json");
        let Some(rule) = rule else {
            return names.with("params").with("path");
        };
        let parts = rule.path.iter().flat_map(|path| path.split('/'));
        let parts = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let names = names.with_members("path", parts);
        match (&rule.required, &rule.optional) {
            (None, None) => names.with("params"),
            (required, optional) => {
                let known = required.iter().chain(optional).flatten().cloned();
                names.with_members("params", known)
            }
        }
    }

    fn all(&mut self, provider: &GenericHttp) {
        if provider.requests.as_ref().is_none_or(Vec::is_empty) && provider.send.is_none() {
            self.refuse("", "does nothing: add `requests`, `send` or both");
        }
        let request = self.of_request(None);
        if let Some(access) = &provider.access {
            self.access(access);
        }
        if provider.unclear_numbers.is_some() && provider.numbers_of.is_none() {
            self.refuse("unclearNumbers", WITHOUT_COUNTRY);
        }
        self.paths("xml", provider.xml.as_ref());
        let rules = provider.requests.as_deref().unwrap_or_default();
        if provider.xml.is_some() && rules.is_empty() {
            self.refuse("xml", "has no effect: there are no requests");
        }
        for (n, rule) in rules.iter().enumerate() {
            let path = format!("requests[{n}]");
            if rules[..n].iter().any(|before| before.name == rule.name) {
                self.refuse(format!("{path}.name"), "each rule needs a name of its own");
            }
            self.rule(&path, rule);
        }
        let invalid = self.with_session(request.clone()).with("findings");
        self.answer("invalid", provider.invalid.as_ref(), &invalid);
        if let Some(session) = &provider.session {
            self.session(session, rules);
            self.times(session, provider.deadline.as_ref());
        }
        if provider.deadline.is_some() && !provider.holds() {
            self.refuse("deadline", "has no effect: no request waits for a reply");
        }
        if provider.reply.is_some() && !provider.holds() {
            self.refuse("reply", "has no effect: no request waits for a reply");
        }
        let reply = Self::with_message(self.base()).with("close");
        self.answer("reply", provider.reply.as_ref(), &reply);
        let codes = provider.codes.as_deref().unwrap_or_default();
        if let Some(send) = &provider.send {
            self.send(send, &reply);
            if send.numbers_as.is_some() && provider.numbers_of.is_none() {
                self.refuse(
                    "send.numbersAs",
                    "needs numbersOf: the country of the numbers",
                );
            }
            for (n, rule) in send.refuse.iter().flatten().enumerate() {
                let path = format!("send.refuse[{n}]");
                self.template(&format!("{path}.when"), &rule.when, &reply);
                if !codes.iter().any(|known| known.code == rule.code) {
                    self.refuse(format!("{path}.code"), "is none of `codes`");
                }
            }
        }
        for (n, field, problem) in ProviderCode::check(codes) {
            self.refuse(format!("codes[{n}].{field}"), problem);
        }
    }

    fn access(&mut self, access: &Access) {
        let (base, request) = (self.base(), self.of_request(None));
        self.map("access.parameters", access.parameters.as_ref(), &base);
        self.headers("access.headers", access.headers.as_ref(), &base);
        self.answer("access.refused", access.refused.as_ref(), &request);
        if let Some(signature) = &access.signature {
            self.signature(signature);
        }
    }

    fn rule(&mut self, path: &str, rule: &RequestRule) {
        let names = self.of_request(Some(rule));
        // The session is looked up for a message, once it is known that the request is one.
        let names = match rule.message {
            Some(_) => self.with_session(names),
            None => names,
        };
        let at = |field: &str| format!("{path}.{field}");
        self.optional(&at("when"), rule.when.as_ref(), &self.of_request(None));
        self.map(&at("refuse"), rule.refuse.as_ref(), &names);
        if rule.message.is_some() && rule.receipt.is_some() {
            self.refuse(path, "carries a message or a receipt, not both");
        }
        if rule.message.is_none() && rule.answer.is_none() {
            self.refuse(path, "needs an answer: only a message waits for a reply");
        }
        if let Some(message) = &rule.message {
            self.message(&at("message"), message, &names);
        }
        if let Some(receipt) = &rule.receipt {
            let at = |field: &str| format!("{path}.receipt.{field}");
            if receipt.message_id.is_none() && receipt.remote_id.is_none() {
                self.refuse(
                    format!("{path}.receipt"),
                    "needs messageId or remoteId, to find its message",
                );
            }
            self.optional(&at("messageId"), receipt.message_id.as_ref(), &names);
            self.optional(&at("remoteId"), receipt.remote_id.as_ref(), &names);
            self.template(&at("status"), &receipt.status, &names);
            self.optional(&at("code"), receipt.code.as_ref(), &names);
        }
        let answer = match rule.message {
            Some(_) => Self::with_message(names),
            None => names,
        };
        self.answer(&at("answer"), rule.answer.as_ref(), &answer);
    }

    fn message(&mut self, path: &str, message: &MessageRule, names: &Names) {
        let at = |field: &str| format!("{path}.{field}");
        self.template(&at("fromAddr"), &message.from_addr, names);
        self.template(&at("toAddr"), &message.to_addr, names);
        for (field, source) in [
            ("content", &message.content),
            ("sessionEvent", &message.session_event),
            ("provider", &message.provider),
            ("group", &message.group),
            ("id", &message.id),
        ] {
            self.optional(&at(field), source.as_ref(), names);
        }
        self.map(
            &at("transportMetadata"),
            message.transport_metadata.as_ref(),
            names,
        );
        self.map(
            &at("helperMetadata"),
            message.helper_metadata.as_ref(),
            names,
        );
    }

    fn session(&mut self, session: &SessionRule, rules: &[RequestRule]) {
        if !rules.iter().any(|rule| rule.message.is_some()) {
            self.refuse("session", "has no effect: no request carries a message");
        }
        let names = self.of_request(None);
        self.template("session.id", &session.id, &names);
        self.optional("session.begins", session.begins.as_ref(), &names);
        self.map("session.store", session.store.as_ref(), &names);
        for name in session.store.iter().flat_map(BTreeMap::keys) {
            if name.starts_with(RESERVED) || name == "created_at" {
                self.refuse(
                    format!("session.store.{name}"),
                    "is a name of the engine's own",
                );
            }
        }
        self.answer("session.unknown", session.unknown.as_ref(), &names);
    }

    fn times(&mut self, session: &SessionRule, deadline: Option<&DeadlineRule>) {
        let resumes = session.redial == Some(Redial::Resume);
        if resumes && deadline.is_none() {
            self.refuse(
                "session.redial",
                "has no effect without `deadline`: nothing else cuts off a session",
            );
        }
        if !resumes && session.redial_within.is_some() {
            self.refuse(
                "session.redialWithin",
                "has no effect without redial: resume",
            );
        }
        let keep = session.keep.map_or(KEEP, |keep| keep.0);
        if let Some(deadline) = deadline.filter(|deadline| deadline.after.0 >= keep) {
            self.refuse(
                "session.keep",
                format!(
                    "must be longer than deadline.after ({}): the session would be over before its first answer",
                    deadline.after
                ),
            );
        }
    }

    fn signature(&mut self, signature: &Signature) {
        let Some(tolerance) = &signature.tolerance else {
            return;
        };
        if signature.timestamp_header.is_none() {
            self.refuse(
                "access.signature.tolerance",
                "has no effect without timestampHeader: no time is signed",
            );
        }
        if tolerance.0.is_zero() {
            self.refuse(
                "access.signature.tolerance",
                "no request could be signed at this very moment: write at least 1s",
            );
        }
    }

    fn send(&mut self, send: &SendRule, message: &Names) {
        self.template("send.url", &send.url, message);
        if !send.url.contains("{{")
            && !send.url.starts_with("http://")
            && !send.url.starts_with("https://")
        {
            self.refuse("send.url", "must begin with http:// or https://");
        }
        self.map("send.parameters", send.parameters.as_ref(), message);
        self.optional("send.body", send.body.as_ref(), message);
        self.headers("send.headers", send.headers.as_ref(), message);
        if send.body.is_some()
            && send
                .parameters_in
                .is_some_and(|place| place != super::ParametersIn::Query)
        {
            self.refuse("send.parametersIn", "must be `query` where there is a body");
        }
        for (n, name) in send.needs.iter().flatten().enumerate() {
            if !MESSAGE_FIELDS.contains(&name.as_str()) {
                self.refuse(format!("send.needs[{n}]"), "is no field of a message");
            }
        }
        self.paths("send.xml", send.xml.as_ref());
        let names = self
            .base()
            .with("status")
            .with("headers")
            .with("body")
            .with("json")
            .with_members("xml", send.xml.iter().flat_map(BTreeMap::keys).cloned());
        let names = Self::with_message(names);
        for (n, outcome) in send.outcomes.iter().flatten().enumerate() {
            let at = |field: &str| format!("send.outcomes[{n}].{field}");
            self.optional(&at("when"), outcome.when.as_ref(), &names);
            self.optional(&at("id"), outcome.id.as_ref(), &names);
            self.optional(&at("code"), outcome.code.as_ref(), &names);
        }
    }
}
