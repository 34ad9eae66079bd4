//! Which broker a worker uses. Default: the Secret `vumi-broker` of the same namespace (K5).

use super::secret::SecretRef;
use super::tls::ClientTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker of one worker. The Secret holds `connection_string`, or `host`, `port`, `username`, `password` and
/// optionally `vhost`: the layout of the RabbitMQ cluster operator works as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerRef {
    /// Secret with address and credentials.
    pub secret_ref: SecretRef,
    /// Virtual host. Default: the Secret's, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub vhost: Option<String>,
    /// TLS settings. With them, or with an `amqps` URL, the connection is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}
