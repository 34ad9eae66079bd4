//! What it is: relays messages and events to a program of yours by HTTP, and sends what that program answers.
//!
//! Provider's specification: none; body, reply header and rules are those of Vumi's HTTP relay. Signatures are those of the
//! Standard Webhooks specification, version 1 (docs/webhooks.md).
//!
//! Statuses: `endpoint` ok while messages are taken; degraded after an answer that asks to come again, came too late or refused
//! a message; down while the endpoint cannot be reached or refuses our credentials.
//!
//! Limits: at least once: after a crash, a lost answer or a requeue the same message comes again, with the same `webhook-id`. A
//! message that its user's earlier one waits for waits too; other users' go on. Redirects are not followed. The end of a
//! session is not relayed. Whoever waits for the reply to a message that is set aside hears nothing of that: a request of
//! `httpApi` or `httpRpc` ends with the answer to one whose reply did not come in time. Without a state store a message is tried again for `holdLimit` alone, and then set aside.
//!
//! Codes: `peer.unreachable`, `peer.timeout`, `peer.failed`, `peer.throttled`, `peer.credentials`, `relay.refused`,
//! `relay.redirected`, `relay.reply_unusable`, `retry.expired`, `retry.exhausted`, `retry.no_store`, `secret.missing`, `secret.empty`.
//!
//! ## Requests
//!
//! The body is the whole message or event as JSON (docs/wire-protocol.md), `application/json`.
//!
//! | Header | Holds | When |
//! |---|---|---|
//! | `webhook-id` | id of the delivery; the same when it is repeated | always |
//! | `webhook-timestamp` | when it was sent, in seconds since 1970 | with `signing` |
//! | `webhook-signature` | `v1,…`, one for each secret, separated by spaces | with `signing` |
//! | `Authorization` | HTTP Basic | with `auth` |
//!
//! ## Answers
//!
//! | Answer | Then |
//! |---|---|
//! | 200 with `X-Vumi-HTTPRelay-Reply: true` and a body, to a message | the body, without spaces around it, is the reply to its sender; the session goes on |
//! | any other 2xx | nothing: the endpoint has it |
//! | no connection, none in time, 408, 429, 5xx | tried again, at the time that `Retry-After` says or after the back-off of `retry`, in the order of its user |
//! | 401, 403 | tried again as well: a corrected Secret takes effect without a restart |
//! | another 4xx, or a redirect | set aside at once; `vumi parked requeue` delivers it later |
//!
//! What waits outlives the process in the state store, for up to `retry.maxAge`; `vumi journal list` shows it.

use crate::resource::{Kind, Resource, WorkerConfig};
use crate::shared::{BasicAuth, OrderingMode, RequestMethod, SecretValue};
use crate::topology::Topology;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Relays messages and events by HTTP; the answer may be the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRelay {
    /// Where messages are relayed to.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^https?://"))]
    pub url: String,
    /// Where events are relayed to. Default: `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^https?://"))]
    pub event_url: Option<String>,
    /// Events that are relayed; `[]` for none. Default: all. Vumi left out `nack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3))]
    pub events: Option<Vec<RelayedEvent>>,
    /// Method, of messages and events. Default `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<RequestMethod>,
    /// HTTP Basic credentials that are shown to the endpoint. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<BasicAuth>,
    /// Signs what is relayed, so that the endpoint knows who sends it. Default: nothing is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RelayedEvent {
    /// The network has a message.
    Ack,
    /// It will never have it.
    Nack,
    /// What became of a message that it has.
    DeliveryReport,
}

/// Signatures as Standard Webhooks has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signing {
    /// The secret, `whsec_` and at least 24 bytes in base64; a second one while it is being changed: both sign, so that the
    /// endpoint may know either.
    #[schemars(length(min = 1, max = 2))]
    pub secrets: Vec<SecretValue>,
}

impl HttpRelay {
    /// Whether an event of this kind is relayed.
    pub fn relays(&self, event: RelayedEvent) -> bool {
        self.events.as_ref().is_none_or(|all| all.contains(&event))
    }
}

impl WorkerConfig for HttpRelay {
    const KIND: Kind = Kind::Application;
    const TYPE: &'static str = "httpRelay";
    const ORDERING: OrderingMode = OrderingMode::PerUser;
    const HONOURS: &'static [&'static str] = &["client"];
    // An endpoint may be away for hours: only `retry.maxAge` ends that.
    const ATTEMPTS: u32 = u32::MAX;

    fn pick(resource: &Resource) -> Option<&Self> {
        resource.application().and_then(|a| a.http_relay.as_ref())
    }

    fn topology(&self, resource: &Resource) -> Topology {
        Topology::application(resource.transport_name())
    }

    fn validate(&self, _: &Resource) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let urls = [
            ("url", Some(&self.url)),
            ("eventUrl", self.event_url.as_ref()),
        ];
        for (field, url) in urls {
            let Some(url) = url else { continue };
            let path = format!("httpRelay.{field}");
            let authority = url.split("://").nth(1).unwrap_or_default();
            let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
            if authority.contains('@') {
                let sentence = "would show credentials to everybody who reads the manifest: write them into auth";
                findings.push((path, sentence.to_owned()));
            } else if url.contains('#') || url.contains(char::is_whitespace) || authority.is_empty()
            {
                findings.push((path, "is no address that can be called".to_owned()));
            }
        }
        if self.event_url.is_some() && self.events.as_ref().is_some_and(Vec::is_empty) {
            let sentence = "has no effect: events is empty, so that none is relayed";
            findings.push(("httpRelay.eventUrl".into(), sentence.into()));
        }
        findings
    }
}
