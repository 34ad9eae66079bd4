//! Parking: messages that must not be retried are set aside in `<consumed queue>.parked`, with their reason, until a
//! person looks at them (R18). The envelope is here, what people do with it in `desk`, when to stop in `breaker`.

mod breaker;
mod desk;

pub use breaker::{Breaker, KEPT_LIMIT, Trip};
pub(crate) use desk::depth;
pub use desk::{Handled, Parked, Selection, Summary, drop, expire, list, of_person, requeue, show};

use crate::broker::{Publication, PublicationClass, RawDelivery};
use crate::codes::{self, Code};
use crate::error::WorkError;
use crate::message::Timestamp;
use crate::message::glance::Glance;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

const SUFFIX: &str = ".parked";
/// Largest envelope published. RabbitMQ takes no message above 16 MiB, and text in text or base64 grows.
const ENVELOPE_LIMIT: usize = 15 << 20;

/// The queue that keeps what was parked of `consumed`.
pub fn parked_queue(consumed: &str) -> String {
    format!("{consumed}{SUFFIX}")
}

/// A parked message: where it came from, why it is here, and its body as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Queue it was consumed from and is requeued to.
    pub origin: String,
    /// Registered code, such as `message.invalid`.
    pub code: String,
    /// One sentence; no content, addresses or secrets.
    pub reason: String,
    /// Label of the error class.
    pub class: String,
    /// Kind and name of the worker that parked it.
    pub worker: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it was parked: seconds since 1970.
    pub time: f64,
    /// `message_id` or `event_id` of the body, if it could be read.
    pub message_id: Option<String>,
    /// AMQP `message_id` property.
    pub amqp_message_id: Option<String>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// The part of the wire form that is not the same as in [`Envelope`]: text where possible, so that people can read it.
#[derive(Deserialize)]
struct Wire {
    origin: String,
    code: String,
    reason: String,
    class: String,
    worker: String,
    attempts: u32,
    time: f64,
    message_id: Option<String>,
    amqp_message_id: Option<String>,
    encoding: Encoding,
    body: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Text,
    Base64,
}

impl Envelope {
    /// Parks `delivery`, which `worker` (kind and name) consumed from `origin` and gave up after `attempts`.
    pub fn new(
        origin: &str,
        delivery: &RawDelivery,
        error: &WorkError,
        worker: &str,
        attempts: u32,
    ) -> Self {
        Self {
            origin: origin.to_owned(),
            code: error.code.name.to_owned(),
            reason: error.text.clone(),
            class: error.class.label().to_owned(),
            worker: worker.to_owned(),
            attempts,
            // Milliseconds are enough, and as text they read back exactly.
            time: (Timestamp::now().epoch() * 1e3).round() / 1e3,
            message_id: Glance::of(&delivery.body).id(),
            amqp_message_id: delivery.message_id.clone(),
            body: delivery.body.clone(),
        }
    }

    /// The body of the parked message: one JSON object.
    pub fn encode(&self) -> Bytes {
        let (encoding, body) = self.written_body();
        let wire = json!({
            "origin": self.origin,
            "code": self.code,
            "reason": self.reason,
            "class": self.class,
            "worker": self.worker,
            "attempts": self.attempts,
            "time": self.time,
            "message_id": self.message_id,
            "amqp_message_id": self.amqp_message_id,
            "encoding": encoding,
            "body": body,
        });
        Bytes::from(wire.to_string())
    }

    /// How the body is written in JSON, and the body so written: `text`, or `base64` for what is not UTF-8.
    pub fn written_body(&self) -> (&'static str, String) {
        match std::str::from_utf8(&self.body) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("base64", BASE64.encode(&self.body)),
        }
    }

    /// Reads what [`Self::encode`] wrote; the error says what is wrong, without content.
    pub fn decode(body: &[u8]) -> Result<Self, String> {
        // The parser's own sentence would quote the body.
        let wire: Wire = serde_json::from_slice(body).map_err(|e| {
            let what = if e.is_data() {
                "other fields"
            } else {
                "no JSON"
            };
            format!("{what}, seen at line {} column {}", e.line(), e.column())
        })?;
        let body = match wire.encoding {
            Encoding::Text => Bytes::from(wire.body),
            Encoding::Base64 => BASE64
                .decode(&wire.body)
                .map_err(|_| "field body is not base64".to_owned())?
                .into(),
        };
        Ok(Self {
            origin: wire.origin,
            code: wire.code,
            reason: wire.reason,
            class: wire.class,
            worker: wire.worker,
            attempts: wire.attempts,
            time: wire.time,
            message_id: wire.message_id,
            amqp_message_id: wire.amqp_message_id,
            body,
        })
    }

    /// The publication that parks it: the queue must be declared ([`crate::broker::QueueSpec::Parking`]) before, and
    /// the delivery is acknowledged only after the confirmation. A body too large to be wrapped is parked bare: better
    /// its reason only in the log than a message that can be neither handled nor parked.
    pub fn publication(&self) -> Publication {
        let envelope = self.encode();
        let body = if envelope.len() <= ENVELOPE_LIMIT {
            envelope
        } else {
            self.body.clone()
        };
        Publication {
            exchange: String::new(),
            routing_key: parked_queue(&self.origin),
            body,
            message_id: self.amqp_message_id.clone(),
            class: PublicationClass::Direct,
        }
    }

    /// A body in the parking queue of `consumed` without envelope: kept, listed, requeued and dropped as others.
    fn foreign(consumed: &str, delivery: &RawDelivery, problem: &str) -> Self {
        let Code { name, .. } = codes::PARKED_FOREIGN;
        Self {
            origin: consumed.to_owned(),
            code: name.to_owned(),
            reason: format!(
                "no envelope: too large for one, or written by something else ({problem})"
            ),
            class: String::new(),
            worker: String::new(),
            attempts: 0,
            time: 0.0,
            message_id: Glance::of(&delivery.body).id(),
            amqp_message_id: delivery.message_id.clone(),
            body: delivery.body.clone(),
        }
    }
}

/// Stable id of a parked message: derived from its envelope, so that every listing shows the same.
fn parked_id(envelope: &[u8]) -> String {
    let digest = Sha256::digest(envelope);
    digest[..6].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
