//! TLS towards a service that a worker connects to: broker, state store, or a server that it calls.

use super::secret::SecretRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS settings of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    /// Secret whose key `ca.crt` holds the private certificate authority (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

/// TLS settings of `https` URLs that a worker calls. Read when the worker starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallTls {
    /// Secret whose key `ca.crt` holds the private certificate authority (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
    /// Secret with our own certificate, shown to a server that asks for one: keys `tls.crt` and `tls.key` (PEM), as in a
    /// Secret of type `kubernetes.io/tls`. Default: none is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret_ref: Option<SecretRef>,
}
