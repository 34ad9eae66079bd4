//! The files of campaign tests, as they are written. An unknown key is an error.

use super::answers::{Answer, StandInAnswer};
use super::text::{Text, written};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vumi_api::shared::Duration;
use vumi_api::transports::generic_http::SignatureEncoding;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "`tests:` with a list of tests below it"
)]
pub struct TestFile {
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// Manifests, relative to the file: files, or folders whose manifests are read.
    #[serde(default = "above")]
    pub manifests: Vec<PathBuf>,
    /// Secrets by name, beside those among the manifests.
    #[serde(default)]
    pub secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Fake HTTP servers by name.
    #[serde(default)]
    pub servers: BTreeMap<String, Server>,
    /// What stands in for transports, by connector.
    #[serde(default)]
    pub transports: BTreeMap<String, TransportSetting>,
    /// The tests, each of which starts the campaign anew.
    pub tests: Vec<Test>,
}

fn above() -> Vec<PathBuf> {
    vec!["..".into()]
}

/// A fake HTTP server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// Which place it is to the campaign, e.g. `https://crm.example.org` or `https://example.org/crm`: every call there comes to
    /// this server. At the head of the file it is required.
    #[serde(default)]
    pub at: Option<String>,
    /// Its answers, one after the other; the last one is given again and again. Without any, 200 and nothing more.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// Whether a transport runs, and how its stand-in answers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransportSetting {
    /// It runs as it is, although no step speaks to it.
    #[serde(default)]
    pub real: bool,
    /// What its stand-in tells of each outbound message, one after the other; the last one is told again and again. Without
    /// any, `ack`.
    #[serde(default)]
    pub answers: Vec<StandInAnswer>,
}

/// One test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Test {
    /// What is shown by it, in a sentence.
    pub name: String,
    /// What happens, in turn.
    pub steps: Vec<Step>,
}

macro_rules! steps {
    ($( #[doc = $doc:literal] $field:ident $name:literal: $type:ty => $variant:ident; )*) => {
        /// One step as it is written: exactly one of these.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        pub struct Step {
            $( #[doc = $doc] pub $field: Option<$type>, )*
        }

        /// What a step does.
        #[derive(Clone, Copy, Debug)]
        pub enum Action<'a> {
            $( #[doc = $doc] $variant(&'a $type), )*
        }

        impl Step {
            pub(super) const NAMES: &'static [&'static str] = &[$( $name ),*];

            pub(super) fn actions(&self) -> Vec<(&'static str, Action<'_>)> {
                let mut actions = Vec::new();
                $(
                    if let Some(action) = &self.$field {
                        actions.push(($name, Action::$variant(action)));
                    }
                )*
                actions
            }
        }
    };
}

steps! {
    /// A message from a user, as a transport would publish it.
    inbound "inbound": Given => Inbound;
    /// A message to a user, as an application or another program would publish it.
    outbound "outbound": Given => Outbound;
    /// What became of an outbound message, as a transport would tell it.
    event "event": GivenEvent => Event;
    /// A request to a transport that listens for HTTP.
    request "request": Request => Request;
    /// A line of a user to a transport that listens for connections; the first one connects.
    line "line": Line => Line;
    /// A user with this name ends the connection.
    hang_up "hangUp": String => HangUp;
    /// What fake servers answer from now on.
    servers "servers": BTreeMap<String, Server> => Servers;
    /// How stand-ins answer from now on.
    transports "transports": BTreeMap<String, TransportSetting> => Transports;
    /// Lets time pass.
    advance "advance": Duration => Advance;
    /// What came since the last time.
    expect "expect": Expect => Expect;
}

impl Step {
    /// What it does, with its name. Checked when the file was read.
    pub fn action(&self) -> Option<(&'static str, Action<'_>)> {
        self.actions().into_iter().next()
    }
}

/// A message that is published.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Given {
    /// Connector. The only one that has a stand-in (inbound) or a transport that runs (outbound), if not named.
    pub connector: Option<String>,
    /// `from_addr`.
    pub from: Option<String>,
    /// `to_addr`.
    pub to: Option<String>,
    /// `content`.
    pub content: Option<String>,
    /// `session_event`: new, resume or close.
    pub session: Option<String>,
    /// Endpoint in `routing_metadata`.
    pub endpoint: Option<String>,
    /// `helper_metadata`, such as the labels `class`, `batch` and `tenant`.
    pub helper_metadata: Option<Map<String, Value>>,
    /// A body that is published as it is, instead of a message.
    pub raw: Option<String>,
    /// Outbound: a reply to the last inbound message of the connector, which says from, to and the rest.
    pub reply: bool,
    /// Any other field of the message.
    pub fields: Map<String, Value>,
}

/// An event that is published.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenEvent {
    /// Connector.
    #[serde(default)]
    pub connector: Option<String>,
    /// `ack`, `nack` or `delivery_report`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// `delivery_status`: pending, failed or delivered.
    #[serde(default)]
    pub status: Option<String>,
    /// `nack_reason`.
    #[serde(default)]
    pub reason: Option<String>,
    /// Content of the outbound message that it is about; the last one, if not said.
    #[serde(default)]
    pub of: Option<Text>,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Name of the transport.
    pub to: String,
    /// Name for its response; that of the transport, if not given.
    #[serde(default, rename = "as")]
    pub named: Option<String>,
    /// Method; GET without a body, POST with one.
    #[serde(default)]
    pub method: Option<String>,
    /// Path and query.
    pub path: String,
    /// Header fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body as it is.
    #[serde(default)]
    pub body: Option<String>,
    /// Body as JSON.
    #[serde(default)]
    pub json: Option<Value>,
    /// Body as a form.
    #[serde(default)]
    pub form: Option<BTreeMap<String, String>>,
    /// Signs it, as a transport with `access.signature` asks for.
    #[serde(default)]
    pub sign: Option<Sign>,
}

/// How a request is signed; the names are those of `access.signature`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sign {
    /// The secret.
    pub secret: String,
    /// Header for the signature.
    pub header: String,
    /// What stands before it.
    #[serde(default)]
    pub prefix: String,
    /// How it is written.
    #[serde(default)]
    pub encoding: SignatureEncoding,
    /// The header among those of the request that holds the id of the delivery.
    #[serde(default)]
    pub id_header: Option<String>,
    /// Header for the time of signing.
    #[serde(default)]
    pub timestamp_header: Option<String>,
    /// How long ago that was.
    #[serde(default)]
    pub age: Option<Duration>,
}

/// A line.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Line {
    /// Name of the transport.
    pub to: String,
    /// Name of the user, within the test.
    pub user: String,
    /// What is said; nothing only connects.
    #[serde(default)]
    pub text: Option<String>,
}

/// What should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// For how long the campaign may wait until it is so. Default 5 s.
    pub within: Option<Duration>,
    /// Messages to users: all of them.
    pub outbound: Option<Vec<ExpectMessage>>,
    /// Messages from users that transports published: all of them.
    pub inbound: Option<Vec<ExpectMessage>>,
    /// Events that workers published: all of them.
    pub events: Option<Vec<ExpectEvent>>,
    /// Requests to the fake servers: all of them, in order per server.
    pub calls: Option<Vec<ExpectCall>>,
    /// Responses to requests of steps.
    pub responses: Option<Vec<ExpectResponse>>,
    /// Lines that users heard: all of them, in order, by user.
    pub lines: Option<BTreeMap<String, Vec<Text>>>,
    /// Users whose connections were ended by the transport.
    pub closed: Option<Vec<String>>,
    /// Messages that were set aside: all of them.
    pub parked: Option<Vec<ExpectParked>>,
}

impl Expect {
    /// Whether nothing is expected, not even silence.
    pub(super) fn is_empty(&self) -> bool {
        self.outbound.is_none()
            && self.inbound.is_none()
            && self.events.is_none()
            && self.calls.is_none()
            && self.responses.as_ref().is_none_or(Vec::is_empty)
            && self.lines.as_ref().is_none_or(BTreeMap::is_empty)
            && self.closed.as_ref().is_none_or(Vec::is_empty)
            && self.parked.is_none()
    }
}

/// A user message that should have come. What is not written does not matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectMessage {
    /// Connector.
    pub connector: Option<String>,
    /// `from_addr`.
    #[serde(deserialize_with = "written")]
    pub from: Option<Text>,
    /// `to_addr`.
    #[serde(deserialize_with = "written")]
    pub to: Option<Text>,
    /// `content`.
    #[serde(deserialize_with = "written")]
    pub content: Option<Text>,
    /// `session_event`.
    #[serde(deserialize_with = "written")]
    pub session: Option<Text>,
    /// Endpoint.
    #[serde(deserialize_with = "written")]
    pub endpoint: Option<Text>,
    /// `helper_metadata`: these keys.
    pub helper_metadata: Option<Map<String, Value>>,
    /// Other fields of the message: these.
    pub fields: Map<String, Value>,
}

/// An event that should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectEvent {
    /// Connector.
    pub connector: Option<String>,
    /// `event_type`.
    #[serde(rename = "type", deserialize_with = "written")]
    pub event_type: Option<Text>,
    /// `delivery_status`.
    #[serde(deserialize_with = "written")]
    pub status: Option<Text>,
    /// `nack_reason`.
    #[serde(deserialize_with = "written")]
    pub reason: Option<Text>,
    /// Content of the message that it is about.
    #[serde(deserialize_with = "written")]
    pub of: Option<Text>,
    /// Other fields of the event: these.
    pub fields: Map<String, Value>,
}

/// A request that a fake server should have got.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectCall {
    /// Name of the server.
    pub server: Option<String>,
    /// Method.
    #[serde(deserialize_with = "written")]
    pub method: Option<Text>,
    /// Path and query.
    #[serde(deserialize_with = "written")]
    pub path: Option<Text>,
    /// Header fields: these.
    pub headers: BTreeMap<String, Text>,
    /// Body.
    #[serde(deserialize_with = "written")]
    pub body: Option<Text>,
    /// Body as JSON: these keys.
    pub json: Option<Value>,
}

/// A response that should have come.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectResponse {
    /// Name of the request; the last one, if not given.
    pub of: Option<String>,
    /// Status.
    pub status: Option<u16>,
    /// Header fields: these.
    pub headers: BTreeMap<String, Text>,
    /// Body.
    #[serde(deserialize_with = "written")]
    pub body: Option<Text>,
    /// Body as JSON: these keys.
    pub json: Option<Value>,
}

/// A message that should have been set aside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExpectParked {
    /// Queue that it came from.
    #[serde(deserialize_with = "written")]
    pub queue: Option<Text>,
    /// Code of the reason.
    #[serde(deserialize_with = "written")]
    pub code: Option<Text>,
    /// The reason.
    #[serde(deserialize_with = "written")]
    pub reason: Option<Text>,
}
