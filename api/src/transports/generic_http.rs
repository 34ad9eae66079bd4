//! What it is: any provider that speaks HTTP, described in the manifest: what it sends, how it is answered, and how a
//! message becomes a request to it. Built-in providers are descriptions of the same kind.
//!
//! Provider's specification: yours; the manifest says it.
//!
//! Statuses: `listener` ok while the port is open; `request` ok, or degraded after one that is invalid, has a parameter
//! twice or shows wrong credentials; `response` as the last answer was in time; `provider` ok while messages are taken, degraded after an answer
//! that asks to come again, down while it cannot be reached or refuses our credentials; `numbers` degraded after a number
//! that cannot be read.
//!
//! Limits: one level of parameters in a JSON body that is sent; deeper ones are written as `body`. A request carries one
//! message or receipt. XML is read where the description has paths for it, in UTF-8, at most 32 elements deep and 10,000 in
//! all, without a document type or entities of its own. Of `multipart/form-data` the names
//! and bytes of the parts count, also of files.
//! At most 10,000 connections and 64 MiB of bodies at one time, 1,000 parameters, 30 s each for a request's head, for its body and
//! for reading the answer, and 75 s between two requests of a connection. A caller that closes its connection, or its half of
//! it, before the answer is not waited for. A receipt whose message nobody knows is asked for again for ten minutes, and then
//! answered as if it were taken.
//!
//! Codes: `listen.failed`, `message.invalid`, `message.too_large`, `reply.missing_fields`, `reply.not_expected`,
//! `reply.holder_gone`, `reply.session_closed`, `number.unclear`, `backlog.full`, `broker.unreachable`, `secret.missing`, `secret.empty`, `receipt.unmatched`, `peer.refused`,
//! `peer.throttled`, `peer.timeout`, `peer.unreachable`, `peer.credentials`, `peer.failed`, `template.failed`.
//!
//! ## A description
//!
//! ```yaml
//! genericHttp:
//!   provider: acme
//!   secrets: {password: {secretKeyRef: {name: acme, key: password}}}
//!   requests:
//!     - name: sms
//!       required: [from, to, text, id]
//!       message:
//!         fromAddr: "{{ params.from }}"
//!         toAddr: "{{ params.to }}"
//!         content: "{{ params.text }}"
//!         id: "{{ params.id }}"
//!       answer: {body: OK}
//!     - name: receipt
//!       path: /receipt
//!       required: [ref, state]
//!       receipt:
//!         messageId: "{{ params.ref }}"
//!         status: "{{ params.state }}"
//!         statuses: {D: delivered, U: failed, Q: pending}
//!       answer: {body: OK}
//!   send:
//!     url: https://acme.example/send
//!     parameters:
//!       to: "{{ message.to_addr }}"
//!       text: "{{ message.content }}"
//!       ref: "{{ message.message_id }}"
//!       key: "{{ config.password }}"
//! ```
//!
//! ## Templates
//!
//! Texts with `{{ … }}` are templates in the Jinja language. One that is a single expression keeps its type, and leaves out
//! what it would fill if it has no value. Values are escaped in bodies whose content type is JSON or XML.
//!
//! | Name | Holds | In |
//! |---|---|---|
//! | `config` | `settings` and `secrets` by name | every template |
//! | `params` | parameters of query and form, members of a JSON body that are text, numbers or truth values, what `xml` names in XML | requests |
//! | `json` | the whole JSON body | requests |
//! | `headers`, `method`, `path` | headers by name in lower case; the method; parts of the path that have names | requests |
//! | `session` | what `session.store` kept, and `created_at`; none where there is none | `refuse`, `message` and `answer` of requests with a message, `invalid` |
//! | `message` | the message by the names of its fields on the wire: `message.content`, `message.from_addr` | answers, `reply`, `send` |
//! | `close` | whether the message ends its session | `reply`, `send` |
//! | `findings` | what is wrong with a request | `invalid` |
//! | `status`, `headers`, `body`, `json` | the answer of the provider | `send.outcomes` |
//! | `xml` | what `send.xml` names in it | `send.outcomes` |
//!
//! Beside the filters of the language there are `ltrim` and `base64`, and the test `matching`: `{{ x is matching("^1") }}`.
//!
//! ## XML
//!
//! `xml` gives names to values in a body of XML, which are parameters then; a body that begins with `<` is one, whatever its
//! type says. Each path begins below the root element, whose own name does not count:
//!
//! | Path | Is |
//! |---|---|
//! | `page_id` | the text of the first such element in the root |
//! | `Event/Context/@MSISDN` | an attribute |
//! | `@version` | an attribute of the root |
//! | `params/param/value/struct/member[name=MSISDN]/value` | the text in the first member whose child `name` has that text |
//!
//! Prefixes of namespaces do not count. A path to nothing has no value: its parameter is missing.
//!
//! ## What is done without being asked
//!
//! A request is answered once the broker has what it carries. One that comes again with the same `id` gets the first
//! answer. A status that nobody wrote down is `pending` and a count, not an error. Messages that the provider does not take
//! are tried again by what kind of failure it was, in order; one that it may have taken is not (see `onUnknown`). With
//! `session.redial: resume`, a reply that comes after the deadline is refused as `reply.session_closed` and kept: its user
//! reads it on dialling the same `toAddr` again, and the application hears no more of the redial than the next thing that
//! the user says. What is kept goes only when it was read, or when the broker has the message of the redial.

mod check;
mod numbers;
mod requests;
mod sending;
mod sessions;
mod xml;

pub use crate::shared::RequestMethod;
pub(crate) use check::check_access;
pub(crate) use numbers::WITHOUT_COUNTRY;
pub use numbers::{NumberForm, UnclearNumbers};
pub use requests::{
    Access, MessageRule, ReceiptRule, ReceiptStatus, RequestRule, Signature, SignatureEncoding,
};
pub use sending::{Outcome, OutcomeRule, ParametersIn, RefusalRule, SendRule};
pub use sessions::{DeadlineRule, Redial, SessionRule};
pub use xml::{XmlPath, XmlStep};

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::{ShortText, Template, TemplateMap};
use crate::shared::{HttpListener, OrderingMode, ProviderCode, SecretValue, StateNeed};
use crate::topology::{Holds, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Fields of a message that templates may ask for under `message`, and `send.needs` may name.
pub const MESSAGE_FIELDS: [&str; 18] = [
    "message_version",
    "message_type",
    "message_id",
    "timestamp",
    "to_addr",
    "from_addr",
    "content",
    "session_event",
    "in_reply_to",
    "group",
    "provider",
    "transport_name",
    "transport_type",
    "transport_metadata",
    "helper_metadata",
    "routing_metadata",
    "to_addr_type",
    "from_addr_type",
];

/// A provider that speaks HTTP, described in the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GenericHttp {
    /// `transport_type` of its messages: `sms`, `ussd`, … Default `sms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub transport_type: Option<String>,
    /// What templates find under `config`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ShortText>>", extend("maxProperties" = 64))]
    pub settings: Option<BTreeMap<String, String>>,
    /// What templates find under `config` and nobody may read. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub secrets: Option<BTreeMap<String, SecretValue>>,
    /// Country of numbers without a country code (ISO 3166, such as `ZA`). With it, `from_addr` is written as `+27…`, and as
    /// it came in `transport_metadata.from_addr`. Default: numbers stay as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2), regex(pattern = "^[A-Z]{2}$"))]
    pub numbers_of: Option<String>,
    /// What becomes of a message from or to a number that belongs to no numbering plan, or to two. Either is a status, a log
    /// line and a count. Default `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclear_numbers: Option<UnclearNumbers>,
    /// How the provider shows who it is, beside `http.auth`. Default: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Names for values in a body of XML, which are parameters then, each with the path to it from the root element:
    /// `Event/Context/@user`. Default: XML is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ShortText>>", extend("maxProperties" = 64))]
    pub xml: Option<BTreeMap<String, String>>,
    /// The kinds of requests that it makes. Default: it makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub requests: Option<Vec<RequestRule>>,
    /// The answer to an invalid request. Default: status 400 with the findings as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<Answer>,
    /// Sessions of users with the network. Default: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRule>,
    /// How long the network waits for an answer. Default: as long as `http.requestTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DeadlineRule>,
    /// The answer that a reply makes, to the request that waits for it. Default: its content, as `text/plain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Answer>,
    /// How a message that no request waits for is sent. Default: it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<SendRule>,
    /// What the provider's codes mean. One that is not here is a failure of the provider. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub codes: Option<Vec<ProviderCode>>,
}

/// An answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// Status. Default `200`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// Content type; as JSON or XML, values in the body are escaped. Default `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub content_type: Option<String>,
    /// Headers. One without a value is left out. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TemplateMap>")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Body. Default: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Template>")]
    pub body: Option<String>,
}

impl GenericHttp {
    /// Whether some of its requests wait for a reply.
    pub fn holds(&self) -> bool {
        let mut rules = self.requests.iter().flatten();
        rules.any(|rule| rule.message.is_some() && rule.answer.is_none())
    }

    /// Whether the provider reports on messages after it took them.
    pub fn has_receipts(&self) -> bool {
        let mut rules = self.requests.iter().flatten();
        rules.any(|rule| rule.receipt.is_some())
    }

    /// Whether the provider gives ids to requests with messages, by which one that comes again is recognised.
    pub fn has_ids(&self) -> bool {
        let rules = self.requests.iter().flatten();
        let mut messages = rules.filter_map(|rule| rule.message.as_ref());
        messages.any(|message| message.id.is_some())
    }

    /// How much it needs a state store: sessions, and ids of the provider, are kept there.
    pub fn needs_state(&self) -> StateNeed {
        let receipts = self.requests.iter().flatten();
        let mut receipts = receipts.filter_map(|rule| rule.receipt.as_ref());
        let by_their_id = receipts.any(|receipt| receipt.message_id.is_none());
        match self.session.is_some() || by_their_id {
            true => StateNeed::Shared,
            false => StateNeed::None,
        }
    }

    /// What is wrong with it, as `(path within it, sentence)` pairs. `config` are names beside its own settings and
    /// secrets that templates may use.
    pub fn check(&self, config: &[&str]) -> Vec<(String, String)> {
        check::check(self, config)
    }

    /// Queues and address of a transport that works by this description.
    pub fn topology(&self, resource: &Resource) -> Topology {
        let mut topology = Topology::listening(resource);
        topology.holds = self.holds().then_some(Holds::Requests);
        topology.only_answers = self.send.is_none();
        topology
    }
}

impl WorkerConfig for GenericHttp {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "genericHttp";
    const ORDERING: OrderingMode = OrderingMode::None;
    const HONOURS: &'static [&'static str] = &["http", "client", "dedupe", "service"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.generic_http.as_ref())
    }

    fn state(&self) -> StateNeed {
        self.needs_state()
    }

    fn topology(&self, resource: &Resource) -> Topology {
        self.topology(resource)
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let transport = resource.transport();
        let http = transport.and_then(|t| t.http.as_ref());
        let mut findings = http.map(HttpListener::validate).unwrap_or_default();
        let own = self.check(&[]);
        findings.extend(own.into_iter().map(|(path, text)| match path.is_empty() {
            true => ("genericHttp".to_owned(), text),
            false => (format!("genericHttp.{path}"), text),
        }));
        let requests = self
            .requests
            .as_ref()
            .is_some_and(|rules| !rules.is_empty());
        let mut refuse = |path: &str, text: &str| findings.push((path.into(), text.into()));
        match (requests, http) {
            (true, None) => refuse(
                "genericHttp.requests",
                "needs a port: add `http: {port: …}` beside it",
            ),
            (false, Some(_)) => refuse("http", "has no effect without genericHttp.requests"),
            _ => {}
        }
        if self.send.is_none() && transport.is_some_and(|t| t.client.is_some()) {
            refuse("client", "has no effect without genericHttp.send");
        }
        let rules = self.requests.iter().flatten().enumerate();
        for (n, path) in rules.filter_map(|(n, rule)| Some((n, rule.path.as_ref()?))) {
            // Where all of them are hidden, `http` has said so.
            if http.is_some_and(|http| http.hides(path) && !http.hides("")) {
                refuse(
                    &format!("genericHttp.requests[{n}].path"),
                    "requests would be answered as health checks and their messages lost: set http.healthPath to another path",
                );
            }
        }
        if !self.has_ids() && transport.is_some_and(|t| t.dedupe.is_some()) {
            refuse(
                "dedupe",
                "has no effect without an `id` in the messages of genericHttp.requests",
            );
        }
        if let Some(text) = self.deadline.as_ref().and_then(|d| d.too_late(http)) {
            refuse("genericHttp.deadline.after", &text);
        }
        findings
    }
}
