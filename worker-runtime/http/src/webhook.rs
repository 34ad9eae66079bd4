//! Signed deliveries, as the Standard Webhooks specification (version 1) has them: `webhook-id`, `webhook-timestamp`, and in
//! `webhook-signature` one `v1,` signature for each live secret, over `<id>.<timestamp>.<body>`. Receivers verify them with
//! the libraries that exist for it in many languages.

use crate::signature::{Encoding, Signed};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::{SystemTime, UNIX_EPOCH};

/// Id of a delivery: the same when it is repeated.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");
/// Time of signing, in seconds since 1970.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// Signatures, separated by spaces.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What secrets of this scheme begin with; base64 follows.
pub const PREFIX: &str = "whsec_";
/// Bytes that a secret has at least.
const SHORTEST: usize = 24;

/// A secret that is none of this scheme. Says nothing of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signing secret is `whsec_` and at least {SHORTEST} bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one"
)]
pub struct BadSecret;

/// The key in a secret such as `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
///
/// # Errors
/// It has another form.
pub fn signing_key(secret: &str) -> Result<Vec<u8>, BadSecret> {
    let encoded = secret.trim().strip_prefix(PREFIX).ok_or(BadSecret)?;
    let key = BASE64_STANDARD.decode(encoded).map_err(|_| BadSecret)?;
    match key.len() >= SHORTEST {
        true => Ok(key),
        false => Err(BadSecret),
    }
}

/// The headers of a delivery that is signed `now` with each of `keys`; without any, its id alone.
pub fn headers(id: &str, now: SystemTime, body: &[u8], keys: &[Vec<u8>]) -> HeaderMap {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let timestamp = seconds.to_string();
    let signed = Signed {
        id: Some(id),
        timestamp: Some(&timestamp),
        body,
    };
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| format!("v1,{}", signed.sign(key, Encoding::Base64)))
        .collect();
    let mut headers = HeaderMap::new();
    let signatures = signatures.join(" ");
    for (name, text) in [(ID, id), (TIMESTAMP, &timestamp), (SIGNATURE, &signatures)] {
        if keys.is_empty() && name != ID {
            continue;
        }
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::time::Duration;

    /// One case of the published vectors.
    #[derive(Deserialize)]
    struct Vector {
        name: String,
        secrets: Vec<String>,
        id: String,
        timestamp: u64,
        body: String,
        signature: String,
    }

    #[test]
    fn signatures_are_those_of_the_published_vectors() {
        let text = include_str!("../../../docs/webhook-vectors.json");
        let vectors: Vec<Vector> = serde_json::from_str(text).unwrap();
        assert!(vectors.len() >= 4);
        assert!(vectors.iter().any(|vector| vector.secrets.len() == 2));
        for vector in vectors {
            let keys: Vec<Vec<u8>> = vector
                .secrets
                .iter()
                .map(|secret| signing_key(secret).unwrap())
                .collect();
            let now = UNIX_EPOCH + Duration::from_millis(vector.timestamp * 1000 + 999);
            let headers = headers(&vector.id, now, vector.body.as_bytes(), &keys);
            assert_eq!(headers[ID], vector.id, "{}", vector.name);
            assert_eq!(headers[TIMESTAMP], vector.timestamp.to_string());
            assert_eq!(headers[SIGNATURE], vector.signature, "{}", vector.name);
            let signed = Signed {
                id: Some(&vector.id),
                timestamp: Some(&vector.timestamp.to_string()),
                body: vector.body.as_bytes(),
            };
            for key in &keys {
                let verified = signed.verify(
                    &vector.signature,
                    "v1,",
                    Encoding::Base64,
                    std::slice::from_ref(key),
                    Duration::from_secs(300),
                    now,
                );
                assert_eq!(verified, Ok(()), "{}: by either secret", vector.name);
            }
        }
    }

    #[test]
    fn a_secret_of_another_form_is_refused_and_not_shown() {
        for secret in [
            "",
            "change-me",
            "whsec_",
            "whsec_short",
            "whsec_not base64 but long enough to be a key",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert_eq!(signing_key(secret), Err(BadSecret), "{secret}");
        }
        assert!(signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").is_ok());
    }
}
