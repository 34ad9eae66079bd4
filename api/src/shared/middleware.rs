//! Middleware: an ordered list, each item one type, run around every message of a worker.

use super::quantity::Duration;
use super::shapes::Address;
use crate::crds::one_of;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The middleware types: the keys of an item of which exactly one is given.
pub const MIDDLEWARE_TYPES: &[&str] = &["logging", "addressTranslation", "sessionLength"];

/// One middleware. Exactly one type key is given. Consumed messages pass the list in ascending `consumePriority`,
/// published ones in ascending `publishPriority`; ties go in list order when consuming, in reverse list order when
/// publishing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [one_of("middleware type", MIDDLEWARE_TYPES)]))]
pub struct MiddlewareItem {
    /// Name, unique in the list; appears in logs.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Place among consumed messages; lower runs first. Default `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consume_priority: Option<i32>,
    /// Place among published messages; lower runs first. Default `0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_priority: Option<i32>,
    /// Writes one log line per message: ids, hashed addresses, never contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Replaces addresses by a table, outbound on `to_addr`, inbound on `from_addr` in reverse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_translation: Option<AddressTranslation>,
    /// Notes in `helper_metadata` when the session of a message began, and when it ended. Needs a state store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_length: Option<SessionLength>,
}

/// Settings of the logging middleware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Logging {
    /// Level of the lines. Default `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
}

/// Level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// Normal operation.
    Info,
    /// Needs attention.
    Warn,
}

/// Settings of the address translation middleware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressTranslation {
    /// Address as the application knows it → address as the network knows it. Targets must be distinct, so that the
    /// way back is clear.
    #[schemars(with = "BTreeMap<String, Address>", extend("minProperties" = 1, "maxProperties" = 1000))]
    pub outbound_map: BTreeMap<String, String>,
}

/// Settings of the session length middleware, which works as Vumi's: seconds since 1970 as numbers in
/// `helper_metadata.<fieldName>.session_start` and `.session_end`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionLength {
    /// How long a session's beginning is remembered. Default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_timeout: Option<Duration>,
    /// Under which name sessions are remembered: workers with the same one (and the same store) know of each other's.
    /// Default `transportName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<SessionNamespace>,
    /// Field of `helper_metadata` that holds the times. Default `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub field_name: Option<String>,
}

/// Under which name sessions are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionNamespace {
    /// The `transport_name` of the message.
    #[default]
    TransportName,
    /// Pool and name of the tag in its `helper_metadata`.
    Tag,
}

impl SessionLength {
    /// How long a session's beginning is remembered.
    pub fn session_timeout(&self) -> std::time::Duration {
        let default = std::time::Duration::from_secs(600);
        self.session_timeout.map_or(default, |timeout| timeout.0)
    }

    /// Field of `helper_metadata`.
    pub fn field_name(&self) -> &str {
        self.field_name.as_deref().unwrap_or("session")
    }
}

/// What the schema cannot say about a list of middleware, as `(path below spec, sentence)` pairs.
pub(crate) fn validate(items: &[MiddlewareItem]) -> Vec<(String, String)> {
    let mut findings = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let map = item.address_translation.as_ref().map(|t| &t.outbound_map);
        let mut targets = BTreeSet::new();
        for (position, target) in map.into_iter().flat_map(BTreeMap::values).enumerate() {
            if !targets.insert(target) {
                // By its number: an address may be a person's.
                findings.push((
                    format!("middleware[{index}].addressTranslation.outboundMap"),
                    format!(
                        "two addresses have the same target (the second is entry {} in sorted order); \
                         targets must be distinct, so that the way back is clear",
                        position + 1
                    ),
                ));
            }
        }
    }
    findings
}
