//! The HTTP server of a worker that listens for requests.

use super::quantity::{Duration, Size};
use super::secret::SecretValue;
use super::shapes::{BodySize, ListenPort, PATH_PATTERN};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where and how a worker serves HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpListener {
    /// Address to listen on. `::` for IPv6. Default `0.0.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Port to listen on; 1024 or higher, and not 9464, where the worker serves health checks and metrics.
    #[schemars(with = "ListenPort")]
    pub port: u16,
    /// Path of the requests, e.g. `/api/messages`. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub path: Option<String>,
    /// Path that answers load balancers with the number of pending requests. Default `/health`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = PATH_PATTERN))]
    pub health_path: Option<String>,
    /// HTTP Basic credentials that callers must present. Default: none; anyone may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<BasicAuth>,
    /// Largest accepted request body; larger ones get 413, and so does one that makes a message of more than 1 MiB.
    /// Default `1Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BodySize>")]
    pub max_body: Option<Size>,
    /// How long a request may wait for its reply before it gets 504. Default `240s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
}

impl HttpListener {
    /// What the schema cannot say, as `(path below spec, sentence)` pairs.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut refuse = |field: &str, sentence: &str| {
            findings.push((format!("http.{field}"), sentence.to_owned()));
        };
        let path = self.path.as_deref().unwrap_or("/");
        let health = self.health_path.as_deref().unwrap_or("/health");
        let below = path.trim_end_matches('/').strip_prefix(health);
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            let field = if self.path.is_some() {
                "path"
            } else {
                "healthPath"
            };
            refuse(
                field,
                "requests would be answered as health checks and their messages lost: path and healthPath must differ",
            );
        }
        if self.max_body.is_some_and(|size| size.0 == 0) {
            refuse("maxBody", "every request with a body would be refused");
        }
        if self.request_timeout.is_some_and(|d| d.0.is_zero()) {
            refuse("requestTimeout", "no request could be answered in time");
        }
        findings
    }
}

/// HTTP Basic credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// Name that callers give.
    #[schemars(length(min = 1, max = 255))]
    pub username: String,
    /// Password that callers give.
    pub password: SecretValue,
}
