//! The HTTP server of a worker that listens for requests, and what both sides of HTTP share.

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
    /// Status of the answer to a request whose reply did not come in time. Default `504`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub timeout_status: Option<u16>,
    /// Text of that answer, written as it is, with the content type of replies. Default: the error as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub timeout_body: Option<String>,
    /// A response that took longer is reported as slow. Default `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded_after: Option<Duration>,
    /// A response that took longer is reported as very slow. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_after: Option<Duration>,
}

impl HttpListener {
    /// Address to listen on.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("0.0.0.0")
    }

    /// Whether requests to `below`, a path below `path`, are answered as health checks, so that what they carry is lost.
    pub fn hides(&self, below: &str) -> bool {
        let path = self.path.as_deref().unwrap_or("/").trim_end_matches('/');
        let whole = format!("{path}/{}", below.trim_start_matches('/'));
        let health = self.health_path.as_deref().unwrap_or("/health");
        let rest = whole.trim_end_matches('/').strip_prefix(health);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What the schema cannot say, as `(path below spec, sentence)` pairs.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut findings = Vec::new();
        let mut refuse = |field: &str, sentence: &str| {
            findings.push((format!("http.{field}"), sentence.to_owned()));
        };
        if self.hides("") {
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
        let limit = |limit: Option<Duration>, default| limit.map_or(default, |d| d.0.as_millis());
        if limit(self.degraded_after, 1000) > limit(self.down_after, 10_000) {
            refuse("degradedAfter", "must not be longer than downAfter");
        }
        findings
    }
}

/// HTTP Basic credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// Name of the account.
    #[schemars(length(min = 1, max = 255))]
    pub username: String,
    /// Its password.
    pub password: SecretValue,
}

/// Methods of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestMethod {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl RequestMethod {
    /// As it is written in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            RequestMethod::Get => "GET",
            RequestMethod::Post => "POST",
            RequestMethod::Put => "PUT",
            RequestMethod::Patch => "PATCH",
            RequestMethod::Delete => "DELETE",
        }
    }
}
