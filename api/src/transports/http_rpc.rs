//! What it is: an HTTP interface that holds each request until the application replies, with parameter names of your own:
//! what most USSD gateways and many programs expect.
//!
//! Provider's specification: none; the rules are those of the transport on which Vumi builds its HTTP transports.
//!
//! Statuses: `listener` ok while the port is open; `request` ok, or degraded after one that is invalid or has a parameter twice; `response` ok,
//! degraded (over `http.degradedAfter`), or down (over `http.downAfter`, or no reply in time) as the last response was; with
//! `numbersOf`, `numbers` degraded after one that is unclear, until none was for a minute.
//!
//! Limits: it is called and calls nobody, so a message that answers no request gets a nack event. Without `idField` a request
//! that comes again is another message. Sessions are the caller's to know: what `session_event` says is passed on,
//! and after the `deadline` nothing is kept: who dials again begins anew.
//!
//! Codes: `listen.failed`, `message.invalid`, `message.too_large`, `reply.missing_fields`, `reply.holder_gone`,
//! `reply.session_closed`, `backlog.full`, `broker.unreachable`, `secret.missing`, `secret.empty`.
//!
//! ## Requests and answers
//!
//! A request to `http.path`, or below it, carries its parameters in the query, a form (`multipart/form-data` too), or a JSON object. The parameters that
//! `fields` names are the message; each must be there unless `defaults` or `optional` says otherwise, and may be empty, but
//! for the addresses. A request whose session event is `close` waits for no reply: its user has left. In mode `strict` no others may be there, and members of a JSON body that are lists or objects are named as well.
//!
//! | Status | When |
//! |---|---|
//! | 200 | the content of the reply, as `contentType` |
//! | 200 | nothing, where the session event is `close`: as soon as the broker has the message |
//! | 200 | `deadline.text`, if the network will not wait longer; a later reply ends as `reply.session_closed` |
//! | 400 | `{"missing_parameter": ["to_addr"], "unexpected_parameter": ["foo"], "invalid_parameter": []}`, of which only the lists that have names; `{"unclear_number": ["msisdn"]}`, where a number belongs to no numbering plan or to two; or the body cannot be read |
//! | 401 | `http.auth` is set, and user name or password is missing or wrong |
//! | 403 | `access` is set, and what it asks for is missing or wrong; `access.refused` says otherwise |
//! | 404, 405 | another path; another method (`Allow` names the right ones) |
//! | 408, 413, 415 | the body is too slow; body or message is too large; the body has another type |
//! | 431 | the head, with the URL and all headers, has more than 16 KiB; the connection is closed |
//! | 502 | the application's reply was refused, as one without content; the user got nothing |
//! | 503 | the broker is away, too many messages wait, too many connections, or the worker stops; try again after `Retry-After` |
//! | 504 | no reply came within `http.requestTimeout`; `http.timeoutStatus` and `http.timeoutBody` say otherwise |
//!
//! The reply is acked once its last byte is written. One that nobody waits for any more gets a nack event, where Vumi acked it.

use super::generic_http::{
    Access, DeadlineRule, RequestMethod, UnclearNumbers, WITHOUT_COUNTRY, check_access,
};
use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{HttpListener, OrderingMode, SecretValue};
use crate::topology::{Holds, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Holds each request until the application replies; parameters have names of your own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRpc {
    /// `transport_type` of its messages: `ussd`, `sms`, … Default `http_rpc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub transport_type: Option<String>,
    /// Names of the parameters that hold the fields of the message. Default `content`, `to_addr` and `from_addr`, named so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<RpcFields>,
    /// Values of fields that no parameter gives. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<RpcFields>,
    /// Parameters that may be missing; those that `fields` does not name are ignored. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    pub optional: Option<Vec<String>>,
    /// What becomes of a request with parameters that nobody named. Default `strict`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_mode: Option<ValidationMode>,
    /// Methods; others get 405. With `access.signature`, which is of the body, GET is none of them. Default `GET, POST, PUT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 5))]
    pub methods: Option<Vec<RequestMethod>>,
    /// Parameter with the caller's own id of the request: one that comes again gets the same answer, and makes no second
    /// message. Default: callers give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub id_field: Option<String>,
    /// Country of numbers without a country code (ISO 3166, such as `ZA`): with it, `from_addr` is written as `+27…`, and as
    /// it came in `transport_metadata.from_addr`. Default: numbers stay as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2), regex(pattern = "^[A-Z]{2}$"))]
    pub numbers_of: Option<String>,
    /// What becomes of a message from or to a number that belongs to no numbering plan, or to two. Either is a status, a log
    /// line and a count. Default `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclear_numbers: Option<UnclearNumbers>,
    /// What templates of `access` find under `config`, and nobody may read. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub secrets: Option<BTreeMap<String, SecretValue>>,
    /// How callers show who they are, beside `http.auth`. Default: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Content type of replies. Default `text/plain; charset=utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub content_type: Option<String>,
    /// How long the network waits for a reply. Default: as long as `http.requestTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DeadlineRule>,
}

/// One text for each field of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RpcFields {
    /// The user's address. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub from_addr: Option<String>,
    /// The address written to, such as a short code. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub to_addr: Option<String>,
    /// The text. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub content: Option<String>,
    /// `new`, `resume` or `close`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub session_event: Option<String>,
    /// The network behind the caller. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub provider: Option<String>,
    /// The group or room. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub group: Option<String>,
}

impl RpcFields {
    /// Each field by its name in a manifest, with its text.
    pub fn entries(&self) -> [(&'static str, Option<&str>); 6] {
        [
            ("fromAddr", self.from_addr.as_deref()),
            ("toAddr", self.to_addr.as_deref()),
            ("content", self.content.as_deref()),
            ("sessionEvent", self.session_event.as_deref()),
            ("provider", self.provider.as_deref()),
            ("group", self.group.as_deref()),
        ]
    }
}

/// What becomes of parameters that nobody named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ValidationMode {
    /// The request is refused.
    #[default]
    Strict,
    /// They are ignored.
    Permissive,
}

impl HttpRpc {
    /// Whether callers sign their bodies.
    pub fn is_signed(&self) -> bool {
        let access = self.access.as_ref();
        access.is_some_and(|access| access.signature.is_some())
    }

    /// Names of parameters, field by field.
    pub fn parameters(&self) -> RpcFields {
        self.fields.clone().unwrap_or_else(|| RpcFields {
            from_addr: Some("from_addr".into()),
            to_addr: Some("to_addr".into()),
            content: Some("content".into()),
            ..RpcFields::default()
        })
    }
}

impl WorkerConfig for HttpRpc {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "httpRpc";
    const ORDERING: OrderingMode = OrderingMode::None;
    const NEEDS: &'static [&'static str] = &["http"];
    const HONOURS: &'static [&'static str] = &["dedupe", "service"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.http_rpc.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        let mut topology = Topology::listening(resource);
        topology.holds = Some(Holds::Requests);
        topology.only_answers = true;
        topology
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let transport = resource.transport();
        let http = transport.and_then(|t| t.http.as_ref());
        let mut findings = http.map(HttpListener::validate).unwrap_or_default();
        let mut refuse = |path: &str, text: String| findings.push((path.into(), text));
        let (named, defaults) = (self.parameters(), self.defaults.clone().unwrap_or_default());
        let given = named.entries().into_iter().zip(defaults.entries());
        for ((field, parameter), (_, default)) in given {
            if parameter.is_none() && default.is_none() && ["fromAddr", "toAddr"].contains(&field) {
                refuse(
                    "httpRpc.fields",
                    format!(
                        "no message has {field}: name its parameter here, or write its value into defaults"
                    ),
                );
            }
        }
        let of = |wanted: &str| {
            let twice = named.entries().into_iter();
            twice.filter(|(_, name)| *name == Some(wanted)).count()
        };
        if let Some((field, name)) = named
            .entries()
            .into_iter()
            .find_map(|(field, name)| Some((field, name.filter(|name| of(name) > 1)?)))
        {
            refuse(
                &format!("httpRpc.fields.{field}"),
                format!("parameter {name} holds two fields"),
            );
        }
        let events = ["new", "resume", "close"];
        if let Some(event) = &defaults.session_event
            && !events.contains(&event.as_str())
        {
            refuse(
                "httpRpc.defaults.sessionEvent",
                format!("{event:?} is not one of {}", events.join(", ")),
            );
        }
        if self.id_field.is_none() && transport.is_some_and(|t| t.dedupe.is_some()) {
            refuse(
                "dedupe",
                "has no effect without httpRpc.idField, which names the parameter with the caller's id".into(),
            );
        }
        let methods = self.methods.iter().flatten();
        if self.is_signed() && methods.copied().any(|method| method == RequestMethod::Get) {
            refuse(
                "httpRpc.methods",
                "nothing of a GET is signed: beside access.signature, leave it out".into(),
            );
        }
        if let Some(text) = self.deadline.as_ref().and_then(|d| d.too_late(http)) {
            refuse("httpRpc.deadline.after", text);
        }
        if self.unclear_numbers.is_some() && self.numbers_of.is_none() {
            refuse("httpRpc.unclearNumbers", WITHOUT_COUNTRY.into());
        }
        for (path, text) in check_access(
            self.access.as_ref(),
            self.secrets.as_ref(),
            self.id_field.as_ref(),
        ) {
            refuse(&format!("httpRpc.{path}"), text);
        }
        findings
    }
}
