//! Schema-only types: shapes that several fields share and that no Rust type states. They are named with
//! `#[schemars(with = "…")]`; the field itself keeps its plain type.

use super::quantity::{DURATION_PATTERN, Duration, SIZE_PATTERN, Size};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;
use std::borrow::Cow;

/// Pattern of a connector name (S15): what Vumi accepts as a routing key, in lower case.
pub const CONNECTOR_PATTERN: &str = r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$";
/// Pattern of a path in a URL.
pub const PATH_PATTERN: &str = r"^/[^ ?#]*$";
/// Pattern of a host name that callers use.
pub const HOST_PATTERN: &str = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
/// Pattern of the name of a port.
pub const PORT_NAME_PATTERN: &str = r"^[a-z]([-a-z0-9]*[a-z0-9])?$";
/// Pattern of an amount of processor time.
pub const CPU_PATTERN: &str = r"^[0-9]+(\.[0-9]{1,3}|m)?$";
/// Longest connector name, so that every queue made from it stays below the broker's limit of 255 bytes.
pub const CONNECTOR_MAX: u32 = 180;
/// Port of health checks and metrics in every worker pod (K27).
pub const ADMIN_PORT: u16 = 9464;
/// Last labels that a connector name must not have, because queues get them as suffixes (S15); `p0`, `p1`, … as well.
pub const RESERVED_LABELS: &[&str] = &[
    "inbound",
    "outbound",
    "event",
    "status",
    "failures",
    "parked",
    "reply",
    "bind",
    "interactive",
    "transactional",
    "bulk",
];

/// Whether a transport may have this name, by [`CONNECTOR_PATTERN`], [`CONNECTOR_MAX`] and [`RESERVED_LABELS`].
pub fn is_connector(name: &str) -> bool {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
    let label = |label: &str| !label.is_empty() && label.chars().all(plain);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let last = name.rsplit('.').next().unwrap_or(name);
    let number = last.strip_prefix('p').unwrap_or("x");
    let partition = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let reserved = RESERVED_LABELS.contains(&last) || partition;
    begins && name.split('.').all(label) && name.len() <= CONNECTOR_MAX as usize && !reserved
}

/// The reserved last labels as a regular expression without anchors.
pub(crate) fn reserved_labels() -> String {
    format!("({}|p[0-9]+)", RESERVED_LABELS.join("|"))
}

/// Ends a message about a reserved label.
pub(crate) fn reserved_sentence(subject: &str) -> String {
    format!(
        "{subject} must not end in a suffix of our queues: {} or p0, p1, …",
        RESERVED_LABELS.join(", ")
    )
}

macro_rules! shape {
    ($(#[$meta:meta])* $name:ident, $generator:pat => $schema:expr) => {
        $(#[$meta])*
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

shape!(
    /// A connector name: the part of a queue's name before `.inbound`, `.outbound` or `.event`.
    ConnectorName, _ => json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": CONNECTOR_MAX,
        "pattern": CONNECTOR_PATTERN,
        "x-kubernetes-validations": [{
            "rule": format!("!self.matches('(^|[.]){}$')", reserved_labels()),
            "message": reserved_sentence("a connector name"),
        }],
    })
);

shape!(
    /// A list of connectors named elsewhere in the same spec; membership is checked there.
    ConnectorRefs, _ => json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 100,
        "items": {"type": "string", "minLength": 1, "maxLength": CONNECTOR_MAX},
    })
);

shape!(
    /// A connector named elsewhere in the same spec; membership is checked there.
    ConnectorRef, _ => json_schema!({"type": "string", "minLength": 1, "maxLength": CONNECTOR_MAX})
);

/// A duration or size with an upper bound, as a rule that the API server evaluates with its own functions. A text that
/// the pattern refuses is not refused twice.
fn bounded(mut schema: Schema, pattern: &str, small_enough: &str, sentence: &str) -> Schema {
    let rule = json!({
        "rule": format!("!self.matches('{pattern}') || {small_enough}"),
        "message": sentence,
    });
    schema.insert("x-kubernetes-validations".into(), json!([rule]));
    schema
}

shape!(
    /// How long a message may be held: a third of the time after which RabbitMQ gives a consumer up (R3).
    HoldLimit, generator => bounded(
        Duration::json_schema(generator),
        DURATION_PATTERN,
        "duration(self) <= duration('10m')",
        "at most 10m: RabbitMQ cuts off a consumer that holds a message for 30m",
    )
);

shape!(
    /// How long a receipt is waited for.
    Deadline, generator => bounded(
        Duration::json_schema(generator),
        DURATION_PATTERN,
        "duration(self) >= duration('1s')",
        "at least 1s",
    )
);

shape!(
    /// How long repeats are recognised.
    DedupeWindow, generator => bounded(
        Duration::json_schema(generator),
        DURATION_PATTERN,
        "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        "1s to 168h",
    )
);

shape!(
    /// How long something is kept. What is forgotten sooner cannot be recognised when the broker delivers it again.
    Retained, generator => bounded(
        Duration::json_schema(generator),
        DURATION_PATTERN,
        "duration(self) >= duration('1h')",
        "at least 1h: what is forgotten sooner is not recognised when it comes again",
    )
);

shape!(
    /// How long a trail is kept, or `0s` for none.
    RetainedTrail, generator => bounded(
        Duration::json_schema(generator),
        DURATION_PATTERN,
        "duration(self) == duration('0s') || duration(self) >= duration('1h')",
        "at least 1h, or 0s for none",
    )
);

shape!(
    /// A size of a request body, which becomes a message.
    BodySize, generator => bounded(
        Size::json_schema(generator),
        SIZE_PATTERN,
        "quantity(self).compareTo(quantity('1Mi')) <= 0",
        "at most 1Mi: no message is larger",
    )
);

shape!(
    /// A size of a provider's answer.
    AnswerSize, generator => bounded(
        Size::json_schema(generator),
        SIZE_PATTERN,
        "quantity(self).compareTo(quantity('16Mi')) <= 0",
        "at most 16Mi",
    )
);

shape!(
    /// A size of a volume.
    VolumeSize, generator => bounded(
        Size::json_schema(generator),
        SIZE_PATTERN,
        "quantity(self).compareTo(quantity('16Mi')) >= 0",
        "at least 16Mi",
    )
);

shape!(
    /// A size of a line: even if every byte of it is escaped by six, it fits into a message.
    LineSize, generator => bounded(
        Size::json_schema(generator),
        SIZE_PATTERN,
        "quantity(self).compareTo(quantity('64Ki')) <= 0",
        "at most 64Ki",
    )
);

shape!(
    /// A port to listen on (K27).
    ListenPort, _ => json_schema!({
        "type": "integer",
        "minimum": 1024,
        "maximum": u16::MAX,
        "x-kubernetes-validations": [{
            "rule": format!("self != {ADMIN_PORT}"),
            "message": format!(
                "port {ADMIN_PORT} is the worker's own port for health checks and metrics: choose another"
            ),
        }],
    })
);

shape!(
    /// Ports of others.
    Ports, _ => json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 32,
        "items": {"type": "integer", "minimum": 1, "maximum": u16::MAX},
    })
);

shape!(
    /// Words of a command line.
    Words, _ => json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {"type": "string", "maxLength": 4096},
    })
);

shape!(
    /// Name of a variable of the environment.
    EnvName, _ => json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
    })
);

shape!(
    /// Name of a port.
    PortName, _ => json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 15,
        "pattern": PORT_NAME_PATTERN,
    })
);

shape!(
    /// A host name in an address that callers use.
    ListenHost, _ => json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": HOST_PATTERN,
    })
);

shape!(
    /// An amount of processor time.
    CpuQuantity, _ => json_schema!({"type": "string", "maxLength": 20, "pattern": CPU_PATTERN})
);

shape!(
    /// Labels that something has.
    Labels, _ => json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
);

shape!(
    /// Annotations that something gets.
    Annotations, _ => json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
);

shape!(
    /// An object of somebody else, whose fields nobody here knows.
    FreeObject, _ => json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
);

shape!(
    /// An address of a user or service: MSISDN, short code, JID, …
    Address, _ => json_schema!({"type": "string", "minLength": 1, "maxLength": 255})
);

shape!(
    /// A short free text.
    ShortText, _ => json_schema!({"type": "string", "maxLength": 1024})
);

shape!(
    /// A template: a text with `{{ … }}` (see [`crate::template`]).
    Template, _ => json_schema!({"type": "string", "maxLength": 4096})
);

shape!(
    /// Name → template.
    TemplateMap, _ => json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
);

shape!(
    /// Words to guess in a game, of letters that everybody can type.
    GameWords, _ => json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 1000,
        "items": {"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[A-Za-z]+$"},
    })
);

shape!(
    /// Endpoint → route, one connector's rows of a routing table.
    Rows, generator => json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 100,
        "additionalProperties": generator.subschema_for::<crate::dispatchers::Route>(),
    })
);
