//! What it is: a small HTTP API through which other programs post messages and, if asked, wait for the reply.
//!
//! Provider's specification: none; the request fields are those of Vumi's HTTP API transport.
//!
//! Statuses: `listener` ok while the port is open; `request` ok, or degraded after one that is invalid or has a parameter twice; `response` ok, degraded
//! (over `http.degradedAfter`), or down (over `http.downAfter`, or no reply in time) as the last response was; ok again with the
//! next one in time, or when none was late for a minute; with `numbersOf`, `numbers` degraded after one that is unclear, until none was for a minute.
//!
//! Limits: sessions are the caller's to know: what `session_event` says is passed on, and a request waits for its reply
//! whatever it says. After the `deadline` nothing is kept: who comes again begins anew. Without `replyExpected`, replies have nowhere to go and get a nack event. A reply that is refused is not
//! waited for again: its caller gets 502 at once, and the nack event says why. A caller that closes its connection, or its
//! half of it, before the answer is not waited for. At most 10,000 connections and 64 MiB of bodies at one time, 1,000 parameters, 30 s
//! each for a request's head, for its body and for reading the answer, and 75 s between two requests of a connection.
//!
//! Codes: `listen.failed`, `message.invalid`, `message.too_large`, `reply.not_expected`, `reply.missing_fields`,
//! `reply.holder_gone`, `reply.session_closed`, `backlog.full`, `broker.unreachable`, `secret.missing`, `secret.empty`.
//!
//! ## Requests
//!
//! GET, POST and PUT on `http.path`, or below it, carry one message each; with `access.signature` POST alone does. Its fields are request parameters, read from
//!
//! * the query string, for every method: pairs separated by `&` or `;`, percent-encoded UTF-8, `+` for a space;
//! * the body of a POST: `application/x-www-form-urlencoded`, `multipart/form-data` (of a part the name and the bytes count,
//!   also of a file), or `application/json` with one object of text values. A field in the body counts before one in the
//!   query. Bodies of other types are refused with 415; the bodies of GET and PUT are not read.
//!
//! Names are case-sensitive, and of a repeated name the first value counts.
//!
//! | Parameter | Meaning | Needed |
//! |---|---|---|
//! | `content` | the text; may be empty | yes |
//! | `to_addr` | the address written to, such as a short code; not empty | yes |
//! | `from_addr` | the user's address, such as a phone number; not empty | yes |
//! | `group` | the group or room it was written in | no |
//! | `session_event` | `new`, `resume` or `close`, if the caller has sessions | no |
//! | the one named by `idField` | the caller's own id of the message | no |
//!
//! `allowedFields` replaces the first five names of this list: others are refused, and what is left out is not needed. A
//! field in `fieldDefaults` is not needed either.
//!
//! With `access`, callers show who they are by a header, a parameter (beside the fields above) or a signature of the body, by
//! either of two secrets while one is replaced; what is signed stands in the body, so that such
//! callers post (other methods get 405), and fields in the query of theirs are refused. So that a request that somebody recorded is not good
//! for ever, the time is signed (`timestampHeader`), or every request has its id (`idField`), by which a repeat is known for
//! `dedupe.window`. With `numbersOf`,
//! `from_addr` gets its one spelling.
//!
//! HEAD says that the path is there, and makes no message. GET on `http.healthPath` needs no credentials and answers `{"pending_requests": 0}`; 503 once the worker stops.
//!
//! ## Answers
//!
//! A 200 means that the broker has the message. Its body is `{"message_id": "…"}` (`application/json`); with
//! `replyExpected` it is the content of the reply (`text/plain; charset=utf-8`), and is sent once that arrives, or
//! `deadline.text` where it does not in time; a later reply ends as `reply.session_closed`.
//!
//! | Status | When |
//! |---|---|
//! | 200 | as above |
//! | 400 | parameters are wrong: `{"missing_parameter": ["to_addr"], "unexpected_parameter": [], "invalid_parameter": []}`, of which only the lists that have names; `{"unclear_number": ["from_addr"]}`, where a number belongs to no numbering plan or to two; `unsigned_parameter`, of those in the query beside a signature; or the body cannot be read |
//! | 401 | `http.auth` is set, and user name or password is missing or wrong |
//! | 403 | `access` is set, and what it asks for is missing or wrong; `access.refused` says otherwise |
//! | 404, 405 | another path; another method (`Allow` names the right ones) |
//! | 408, 413, 415 | the body is too slow; body or message is too large; the body has another type |
//! | 431 | the head, with the URL and all headers, has more than 16 KiB; the connection is closed |
//! | 502 | the application's reply was refused, as one without content (`reply.missing_fields`); the user got nothing |
//! | 503 | the broker is away (`broker.unreachable`), too many messages wait (`backlog.full`), too many connections, or the worker stops; try again after `Retry-After` |
//! | 504 | no reply that could be delivered came within `http.requestTimeout` |
//!
//! Errors are `application/json`: `{"error": "broker.unreachable", "message": "…"}`, but for the lists of 400. `error` is one
//! of the codes below, or the status's name, such as `not_found`. What is refused before it was read as a request (bytes
//! that are not HTTP, too large a head, one connection too many) gets an empty body.
//!
//! After a 5xx the message may have been taken all the same. With `idField`, a caller that repeats the request sends the
//! same message again, and applications can tell.
//!
//! ## With curl
//!
//! ```console
//! $ curl 'http://localhost:8080/?content=hello&from_addr=27820000001&to_addr=12345'
//! {"message_id":"5c1e6c4b0f9b4f5e8d7a3c2b1a097856"}
//! $ curl http://localhost:8080/ --data-urlencode content='fish & chips' -d from_addr=27820000001 -d to_addr=12345
//! {"message_id":"d0a4e2f7b1c84c0f9e6b5a3d2c1f0e47"}
//! $ curl http://localhost:8080/ -H 'Content-Type: application/json' \
//!     -d '{"content": "hello", "from_addr": "27820000001", "to_addr": "12345"}'
//! {"message_id":"8f2b7d1c6e5a4938b0c1d2e3f4a59687"}
//! $ curl 'http://localhost:8080/?content=hello'
//! {"missing_parameter":["to_addr","from_addr"]}
//! ```

use super::generic_http::{Access, DeadlineRule, UnclearNumbers, WITHOUT_COUNTRY, check_access};
use crate::names::{listed, nearest};
use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::shapes::ShortText;
use crate::shared::{HttpListener, OrderingMode, SecretValue};
use crate::topology::{Holds, Topology};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Message fields that are not text or not a caller's to say.
const RESERVED: [&str; 8] = [
    "message_version",
    "message_type",
    "timestamp",
    "transport_name",
    "in_reply_to",
    "transport_metadata",
    "helper_metadata",
    "routing_metadata",
];
/// Message fields that a default may stand in for.
const DEFAULTED: [&str; 9] = [
    "content",
    "to_addr",
    "from_addr",
    "group",
    "session_event",
    "provider",
    "transport_type",
    "to_addr_type",
    "from_addr_type",
];
/// What `session_event` of a request may be.
const SESSION_EVENTS: [&str; 3] = ["new", "resume", "close"];

/// Messages in by HTTP GET, POST or PUT; the reply, if expected, is the response body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpApi {
    /// Hold each request until the application replies, and answer with the reply. Without it, a request is
    /// answered at once with the message id. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_expected: Option<bool>,
    /// Request fields that callers may set. Default `content, to_addr, from_addr, group, session_event`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    pub allowed_fields: Option<Vec<String>>,
    /// Message fields set when the caller does not set them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, ShortText>>", extend("maxProperties" = 32))]
    pub field_defaults: Option<BTreeMap<String, String>>,
    /// Request field that holds the caller's own id of the message. A repeated request with the same id yields the
    /// same `message_id`. Default: callers give none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub id_field: Option<String>,
    /// Country of numbers without a country code (ISO 3166, such as `ZA`): with it, `from_addr` is written as `+27…`, and as
    /// it came in `transport_metadata.from_addr`. Default: numbers stay as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2), regex(pattern = "^[A-Z]{2}$"))]
    pub numbers_of: Option<String>,
    /// What becomes of a message from a number that belongs to no numbering plan, or to two. Either is a status, a log
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
    /// How long the caller's network waits for a reply; needs `replyExpected`. Default: as long as `http.requestTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DeadlineRule>,
}

impl WorkerConfig for HttpApi {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "httpApi";
    const ORDERING: OrderingMode = OrderingMode::None;
    const NEEDS: &'static [&'static str] = &["http"];
    const HONOURS: &'static [&'static str] = &["dedupe", "service"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.http_api.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        let mut t = Topology::listening(resource);
        t.holds = self
            .reply_expected
            .unwrap_or(false)
            .then_some(Holds::Requests);
        t.only_answers = true;
        t
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let refused = |name: &str| RESERVED.contains(&name);
        let http = resource.transport().and_then(|t| t.http.as_ref());
        let mut findings = http.map(HttpListener::validate).unwrap_or_default();
        let dedupe = resource.transport().and_then(|t| t.dedupe.as_ref());
        if dedupe.is_some() && self.id_field.is_none() {
            let sentence =
                "has no effect without httpApi.idField, which names the field with the caller's id";
            findings.push(("dedupe".into(), sentence.into()));
        }
        let mut refuse = |path: String, sentence: String| {
            findings.push((format!("httpApi.{path}"), sentence));
        };
        for (index, name) in self.allowed_fields.iter().flatten().enumerate() {
            let sentence = match nearest(name, DEFAULTED) {
                _ if refused(name) => {
                    format!("{name} is set by the transport itself; remove it here")
                }
                // Callers may have fields of their own, such as content_type.
                Some(near) if !name.starts_with(near) && !near.starts_with(name.as_str()) => {
                    format!("no message has this field; did you mean {near}?")
                }
                _ => continue,
            };
            refuse(format!("allowedFields[{index}]"), sentence);
        }
        for name in self.field_defaults.iter().flat_map(BTreeMap::keys) {
            let sentence = match name.as_str() {
                "message_id" => "every message needs an id of its own; remove it here".to_owned(),
                _ if refused(name) => {
                    format!("{name} is set by the transport itself; remove it here")
                }
                // One of their own is meant if callers may set it.
                known if DEFAULTED.contains(&known) => continue,
                own if self
                    .allowed_fields
                    .iter()
                    .flatten()
                    .any(|field| field == own) =>
                {
                    continue;
                }
                slip => match nearest(slip, DEFAULTED) {
                    Some(name) => format!("no message has this field; did you mean {name}?"),
                    None => format!(
                        "no message has this field; fields are {}",
                        listed(DEFAULTED)
                    ),
                },
            };
            refuse(format!("fieldDefaults.{name}"), sentence);
        }
        let defaults = self.field_defaults.as_ref();
        for field in ["to_addr", "from_addr"] {
            if defaults
                .and_then(|d| d.get(field))
                .is_some_and(|a| a.trim().is_empty())
            {
                let sentence = "an empty address names nobody; remove it, or name somebody";
                refuse(format!("fieldDefaults.{field}"), sentence.into());
            }
        }
        if let Some(event) = defaults.and_then(|d| d.get("session_event"))
            && !SESSION_EVENTS.contains(&event.as_str())
        {
            let sentence = format!("{event:?} is not one of {}", SESSION_EVENTS.join(", "));
            refuse("fieldDefaults.session_event".into(), sentence);
        }
        if self.unclear_numbers.is_some() && self.numbers_of.is_none() {
            refuse("unclearNumbers".into(), WITHOUT_COUNTRY.into());
        }
        if self.deadline.is_some() && !self.reply_expected.unwrap_or(false) {
            let sentence =
                "has no effect without replyExpected: true; no request waits for a reply";
            refuse("deadline".into(), sentence.into());
        }
        if let Some(sentence) = self.deadline.as_ref().and_then(|d| d.too_late(http)) {
            refuse("deadline.after".into(), sentence);
        }
        for (path, sentence) in check_access(
            self.access.as_ref(),
            self.secrets.as_ref(),
            self.id_field.as_ref(),
        ) {
            refuse(path, sentence);
        }
        findings
    }
}
