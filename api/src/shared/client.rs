//! The HTTP client of a worker that calls a provider or an endpoint.

use super::quantity::{Duration, Size};
use super::shapes::{AnswerSize, Deadline};
use super::tls::CallTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a worker calls others. Connections are kept and used again; redirects are not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpClient {
    /// Longest wait for a connection, TLS included; nothing is sent before there is one, and what was not is tried again.
    /// Default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub connect_timeout: Option<Duration>,
    /// Longest wait for the whole answer, from the moment that there is a connection; then nobody knows whether the other
    /// side has the message. Default `15s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub answer_timeout: Option<Duration>,
    /// Largest answer that is read; the rest is left. Default `256Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AnswerSize>")]
    pub max_answer: Option<Size>,
    /// Connections kept open while there is nothing to send. Default `32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub idle_connections: Option<u32>,
    /// How long a connection is kept while there is nothing to send. Shorter than the other side keeps it: what is written
    /// to a connection that is being closed may have arrived or not. Raise it, to spare new connections, where the other side
    /// is known to keep them longer. Default `4s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Deadline>")]
    pub idle_timeout: Option<Duration>,
    /// TLS settings of `https` URLs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<CallTls>,
}
