//! Which broker a worker uses. Default: the Secret `vumi-broker` of the same namespace (K5).

use super::secret::SecretRef;
use super::tls::ClientTls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The broker of one worker. The Secret holds `connection_string`, or `host`, `port`, `username`, `password` and
/// optionally `vhost`: the layout of the RabbitMQ cluster operator works as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerRef {
    /// Secret with address and credentials.
    pub secret_ref: SecretRef,
    /// Virtual host. Default: the Secret's, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub vhost: Option<String>,
    /// How queues are declared. All workers on a virtual host have the same profile. Default `vumi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<BrokerProfile>,
    /// TLS settings. With them, or with an `amqps` URL, the connection is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// The broker's management API, which the operator alone reads. Default: that of the broker's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<BrokerManagement>,
}

/// Where the management API of a broker is. The user is that of the broker's Secret, and needs the tag `monitoring`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BrokerManagement {
    /// URL without `/api`, such as `https://rabbitmq.example.net:15671`. Default: the broker's host, with `http` and port 15672, or
    /// with `https` and port 15671 where the connection to the broker is encrypted. A private certificate authority is that of
    /// `tls`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^https?://[^@]+$"))]
    pub url: String,
}

impl BrokerRef {
    /// The broker of a worker on a cluster whose manifest names none: that of the Secret `vumi-broker` (K5).
    pub fn usual() -> Self {
        Self {
            secret_ref: SecretRef {
                name: "vumi-broker".into(),
            },
            vhost: None,
            profile: None,
            tls: None,
            management: None,
        }
    }

    /// Name of the Secret with a private certificate authority, if there is one.
    pub fn authority(&self) -> Option<&str> {
        let authority = self.tls.as_ref()?.ca_secret_ref.as_ref()?;
        Some(&authority.name)
    }

    /// Names of the Secrets that whoever connects to it reads, each once.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let own = self.secret_ref.name.as_str();
        let authority = self.authority().filter(move |name| *name != own);
        std::iter::once(own).chain(authority)
    }
}

/// How the queues of a virtual host are declared, and so what outlives a node of the broker (S1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BrokerProfile {
    /// Classic queues, declared as Vumi declares them: old and new workers share them. A queue lives on one node.
    #[default]
    Vumi,
    /// Quorum queues on a virtual host of their own, RabbitMQ 4.0 or newer: every queue is kept by a majority of the nodes.
    Quorum,
}

impl BrokerProfile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Vumi, Self::Quorum];

    /// As it is written in manifests and URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vumi => "vumi",
            Self::Quorum => "quorum",
        }
    }
}
