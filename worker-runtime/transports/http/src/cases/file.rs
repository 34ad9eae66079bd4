//! What a case file holds.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use vumi_api::manifest::{self, Target};
use vumi_api::resource::Spec;
use vumi_api::{Manifests, Resource};

/// One file.
#[derive(Clone)]
pub(super) struct CaseFile {
    pub(super) resource: Resource,
    pub(super) secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Secrets that stand in the manifest itself.
    plain: Vec<String>,
    pub(super) cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    manifest: String,
    cases: Vec<Case>,
}

/// One conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
}

/// One thing that happens, and what it leads to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// The provider's request.
    pub(super) request: Option<Sent>,
    /// Fields of the message that it makes.
    pub(super) message: Option<Map<String, Value>>,
    /// The receipt that it makes: `{message_id, state, code}`.
    pub(super) receipt: Option<Map<String, Value>>,
    /// The application's reply to that message.
    pub(super) reply: Option<Reply>,
    /// The answer that the provider gets.
    pub(super) response: Option<Response>,
    /// An outbound message that answers nothing.
    pub(super) send: Option<Map<String, Value>>,
    /// Requests that it makes.
    pub(super) calls: Option<Vec<Sent>>,
    /// Answers of the provider to them.
    #[serde(default)]
    pub(super) answers: Vec<Response>,
    /// The event about the reply or the outbound message.
    pub(super) event: Option<Map<String, Value>>,
    /// The error instead: `{class, code, provider_code, text, retry_after, failure, who}`.
    pub(super) error: Option<Map<String, Value>>,
    /// A status of a component, by now: `{component, level, reason}`.
    pub(super) status: Option<Map<String, Value>>,
    /// All that it counts beside requests: `receipt unknown`, `unclear number inbound`, ….
    pub(super) count: Option<Vec<String>>,
}

impl Step {
    /// Whether its session is over afterwards.
    pub(super) fn ends(&self) -> bool {
        let event = self.message.as_ref().and_then(|m| m.get("session_event"));
        event.and_then(Value::as_str) == Some("close")
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let expects = self.response.is_some() || self.event.is_some() || self.error.is_some();
        match (self.request.is_some(), self.send.is_some()) {
            (true, true) | (false, false) => Err("a step has a request or a send".into()),
            _ if !expects => Err("a step expects a response, an event or an error".into()),
            _ => Ok(()),
        }
    }
}

/// A request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    pub(super) method: Option<String>,
    /// Of a request that comes in.
    pub(super) path: Option<String>,
    /// Of one that goes out.
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    pub(super) form: Option<BTreeMap<String, String>>,
    /// A form in the parts of a body.
    pub(super) parts: Option<BTreeMap<String, String>>,
    pub(super) json: Option<Value>,
    pub(super) body: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

impl Sent {
    /// Its parameters outside of JSON.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&String, &String)> {
        let body = [&self.form, &self.parts].into_iter().flatten().flatten();
        self.query.iter().chain(body)
    }
}

/// An answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Response {
    pub(super) status: Option<u16>,
    pub(super) body: Option<String>,
    pub(super) json: Option<Value>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// Instead of an answer: `unreachable` or `lost`.
    pub(super) fails: Option<String>,
    /// Of the provider: it is longer, and this is what was read of it.
    #[serde(default)]
    pub(super) cut: bool,
}

/// A reply of the application.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    pub(super) content: Option<String>,
    #[serde(default)]
    pub(super) close: bool,
    /// It comes only after the caller has an answer.
    #[serde(default)]
    pub(super) late: bool,
}

impl CaseFile {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        Self::parse(&text, path)
    }

    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let written: Written = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
        let manifest = match written.manifest.lines().count() {
            1 => {
                let beside = path
                    .parent()
                    .ok_or("no folder")?
                    .join(written.manifest.trim());
                std::fs::read_to_string(&beside)
                    .map_err(|e| format!("{}: {e}", beside.display()))?
            }
            _ => written.manifest,
        };
        let Manifests {
            mut resources,
            findings,
            secrets,
            ..
        } = manifest::load(&[("manifest.yaml", manifest.as_str())], Target::Local);
        let wrong: Vec<String> = findings.iter().map(|finding| finding.to_string()).collect();
        if !wrong.is_empty() || resources.len() != 1 {
            return Err(format!("{} workers: {wrong:#?}", resources.len()));
        }
        if written.cases.is_empty() {
            return Err("it has no cases".into());
        }
        for case in &written.cases {
            for step in &case.steps {
                step.check()
                    .map_err(|what| format!("{}: {what}", case.name))?;
            }
        }
        let mut plain = Vec::new();
        for document in manifest.split("\n---") {
            let document = serde_yaml::from_str(document).map_err(|e| e.to_string())?;
            plain_in(&document, &mut plain);
        }
        Ok(Self {
            plain,
            resource: resources.remove(0).resource,
            secrets,
            cases: written.cases,
        })
    }

    /// Path of its requests.
    pub(super) fn path(&self) -> &str {
        let http = self.resource.transport().and_then(|t| t.http.as_ref());
        http.and_then(|http| http.path.as_deref()).unwrap_or("/")
    }

    /// Whether requests come in at all.
    pub(super) fn has_door(&self) -> bool {
        self.resource.transport().is_some_and(|t| t.http.is_some())
    }

    /// What holds the provider's own id of a message, if there is one: a parameter, or a template that names it.
    pub(super) fn ids(&self) -> Option<String> {
        let transport = self.resource.transport()?;
        let api = transport.http_api.as_ref();
        let rpc = transport.http_rpc.as_ref();
        let described = transport.generic_http.as_ref();
        let rules = described.and_then(|described| described.requests.as_ref());
        let mut messages = rules
            .into_iter()
            .flatten()
            .filter_map(|rule| rule.message.as_ref());
        api.and_then(|api| api.id_field.clone())
            .or(rpc.and_then(|rpc| rpc.id_field.clone()))
            .or(messages.find_map(|message| message.id.clone()))
    }

    /// Whether a request has the provider's own id.
    pub(super) fn has_ids(&self, sent: &Sent) -> bool {
        let Some(id) = self.ids() else { return false };
        let is_id = |name: &String| *name == id || id.contains(&format!("params.{name} "));
        let body = sent.body.as_deref().unwrap_or_default();
        let body: Option<Value> = serde_json::from_str(body).ok();
        let members = [&sent.json, &body].into_iter().flatten();
        let members = members.filter_map(Value::as_object);
        sent.pairs().any(|(name, _)| is_id(name)) || members.flatten().any(|(name, _)| is_id(name))
    }

    /// The same at another path.
    pub(super) fn at(&self, path: &str) -> Self {
        let mut moved = self.clone();
        if let Spec::Transport(transport) = &mut moved.resource.spec
            && let Some(http) = &mut transport.http
        {
            http.path = Some(path.to_owned());
        }
        moved
    }

    /// Whether there are paths below its own that are nothing to it.
    pub(super) fn names_its_paths(&self) -> bool {
        let described = self
            .resource
            .transport()
            .and_then(|t| t.generic_http.as_ref());
        described.is_some_and(|described| {
            let mut rules = described.requests.iter().flatten();
            rules.all(|rule| rule.path.is_some())
        })
    }

    /// Words that must not be in a log: secrets, and the texts and addresses of the cases.
    pub(super) fn private(&self) -> Vec<String> {
        let secrets = self.secrets.values().flat_map(BTreeMap::values);
        let mut private: Vec<String> = secrets.cloned().collect();
        private.extend(self.plain.iter().cloned());
        for step in self.cases.iter().flat_map(|case| &case.steps) {
            let fields = [&step.message, &step.send];
            let fields = fields.into_iter().flatten();
            let texts =
                fields.flat_map(|m| ["content", "from_addr", "to_addr"].map(|name| m.get(name)));
            private.extend(texts.flatten().filter_map(Value::as_str).map(str::to_owned));
            private.extend(step.reply.iter().filter_map(|reply| reply.content.clone()));
            // Whether they are taken or not.
            if let Some(sent) = &step.request {
                private.extend(sent.pairs().map(|(_, text)| text.clone()));
            }
        }
        private.retain(|word| word.len() > 5);
        private
    }
}

/// Secrets that stand in a manifest themselves.
fn plain_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => match (members.get("value"), members.len()) {
            (Some(Value::String(secret)), 1) => found.push(secret.clone()),
            _ => members.values().for_each(|member| plain_in(member, found)),
        },
        Value::Array(items) => items.iter().for_each(|item| plain_in(item, found)),
        _ => {}
    }
}
