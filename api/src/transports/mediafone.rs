//! What it is: SMS in and out by Mediafone in Cameroon. The provider calls for each message that comes in, and is called for
//! each that goes out.
//!
//! Provider's specification: none that is public; the parameters and answers are those of Vumi's Mediafone transport.
//!
//! Statuses: `listener` ok while the port is open; `request` ok, or degraded after one that is invalid or has a parameter twice; `response` as the last
//! answer was in time; `provider` ok while messages are taken, else degraded or down; with `numbersOf`,
//! `numbers` degraded after one that is unclear, until none was for a minute.
//!
//! Limits: the provider gives no ids and no receipts: a message that it took is at its end, and a request that comes again is
//! another message. The sender's address is not sent. What Vumi refused for good, a failing provider included, is tried
//! again here by what kind of failure it was.
//!
//! Codes: `listen.failed`, `message.invalid`, `reply.missing_fields`, `backlog.full`, `broker.unreachable`, `secret.missing`, `secret.empty`, `number.unclear`,
//! `peer.refused`, `peer.throttled`, `peer.timeout`, `peer.unreachable`, `peer.credentials`, `peer.failed`.
//!
//! ## On the wire
//!
//! In: GET or POST with `to`, `from` and `sms`; answered with `{"message_id": "…"}`, or with 400 and
//! `{"unclear_number": ["from"]}`, where the number belongs to no numbering plan or to two. Out: GET with `username`, `password`, `phone`
//! and `msg`; 200 means that the message is taken.

use super::generic_http::{UnclearNumbers, WITHOUT_COUNTRY};
use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{HttpListener, OrderingMode, SecretValue};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SMS by Mediafone in Cameroon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mediafone {
    /// Where messages are sent, as the provider says.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^https?://"))]
    pub url: String,
    /// Name of the account.
    #[schemars(length(min = 1, max = 255))]
    pub username: String,
    /// Password of the account.
    pub password: SecretValue,
    /// Country of numbers without a country code (ISO 3166; Mediafone's is `CM`). With it, `from_addr` is written as `+237…`,
    /// and as it came in `transport_metadata.from_addr`; `phone` is written in digits, `237…`. Default: numbers stay as they
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 2), regex(pattern = "^[A-Z]{2}$"))]
    pub numbers_of: Option<String>,
    /// What becomes of a message from or to a number that belongs to no numbering plan, or to two. Either is a status, a log
    /// line and a count. Default `refuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclear_numbers: Option<UnclearNumbers>,
}

impl WorkerConfig for Mediafone {
    const KIND: Kind = Kind::Transport;
    const TYPE: &'static str = "mediafone";
    const ORDERING: OrderingMode = OrderingMode::None;
    const NEEDS: &'static [&'static str] = &["http"];
    const HONOURS: &'static [&'static str] = &["client", "service"];

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.transport().and_then(|t| t.mediafone.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::listening(resource)
    }

    fn validate(&self, resource: &Resource) -> Vec<(String, String)> {
        let http = resource.transport().and_then(|t| t.http.as_ref());
        let mut findings = http.map(HttpListener::validate).unwrap_or_default();
        if self.unclear_numbers.is_some() && self.numbers_of.is_none() {
            findings.push(("mediafone.unclearNumbers".into(), WITHOUT_COUNTRY.into()));
        }
        findings
    }
}
