//! Heartbeats: "this worker lives", for Vumi's heartbeat monitor. Not one of the versioned messages: it has a version
//! and a time format of its own.

use super::fields::{DecodeError, Fields};
use bytes::Bytes;
use serde_json::Value;

/// Version of the heartbeat body.
pub const HEARTBEAT_VERSION: &str = "20130319";
/// Routing key on [`crate::broker::HEALTH_EXCHANGE`].
pub const HEARTBEAT_KEY: &str = "heartbeat.inbound";

/// A heartbeat: its JSON object with typed access. Fields nobody knows are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat(Fields);

impl Heartbeat {
    /// A beat of worker `worker_name` of installation `system_id`, sent at `epoch` (seconds since 1970).
    pub fn new(system_id: &str, worker_name: &str, hostname: &str, pid: u32, epoch: f64) -> Self {
        let mut fields = Fields::default();
        fields.set("version", HEARTBEAT_VERSION);
        fields.set("worker_id", format!("{system_id}:{worker_name}"));
        fields.set("system_id", system_id);
        fields.set("worker_name", worker_name);
        fields.set("hostname", hostname);
        fields.set("pid", pid);
        fields.set("timestamp", epoch);
        Self(fields)
    }

    /// Decodes and validates a body.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let fields = Fields::parse(body)?;
        match fields.require("version")? {
            Value::String(version) if version == HEARTBEAT_VERSION => {}
            other => {
                return Err(DecodeError::Field {
                    field: "version",
                    problem: format!("is {other}, only {HEARTBEAT_VERSION} is known"),
                });
            }
        }
        for key in [
            "system_id",
            "worker_id",
            "worker_name",
            "hostname",
            "pid",
            "timestamp",
        ] {
            fields.require(key)?;
        }
        Ok(Self(fields))
    }

    /// The body.
    pub fn encode(&self) -> Bytes {
        self.0.encode()
    }

    /// `<system_id>:<worker_name>`.
    pub fn worker_id(&self) -> &str {
        self.0.text("worker_id").unwrap_or_default()
    }

    /// When it was sent, in seconds since 1970.
    pub fn epoch(&self) -> Option<f64> {
        self.0.get("timestamp").and_then(Value::as_f64)
    }

    /// Any field.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets any field: attributes of one's own.
    pub fn set_field(&mut self, key: &str, value: impl Into<Value>) {
        self.0.set(key, value);
    }
}
