//! References to Secrets. A plain value is for `vumi run` only; the CRD refuses it (K11).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rule that refuses plain values (K11). It stands in the CRD; offline it is evaluated only for manifests that are
/// meant for a cluster.
pub const CLUSTER_ONLY_RULE: &str = "!has(self.value)";

/// A Secret of the resource's own namespace, as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One key of a Secret in the resource's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A confidential value: a reference to a Secret, or (for `vumi run` only) the value itself.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": CLUSTER_ONLY_RULE, "message": "a plain value is for `vumi run` only; use secretKeyRef"},
    {
        "rule": "has(self.secretKeyRef) || has(self.value)",
        "message": "say where the secret is kept: secretKeyRef: {name: …, key: …}",
    },
    {
        "rule": "!(has(self.secretKeyRef) && has(self.value))",
        "message": "give secretKeyRef or value, not both",
    },
]))]
pub struct SecretValue {
    /// Where the value is kept. `vumi run` reads the same Secret from a file beside the manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// The value itself; for `vumi run` only, refused on a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub value: Option<String>,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue")
            .field("secret_key_ref", &self.secret_key_ref)
            .field("value", &self.value.as_ref().map(|_| "***"))
            .finish()
    }
}
