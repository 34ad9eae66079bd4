//! Signatures of requests: HMAC with SHA-256 (RFC 2104) over the body, or over `<id>.<timestamp>.<body>`, so that whoever
//! records a request can neither change it nor send it again later. Verified against two secrets while one is replaced.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hex digits; read in either case.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Id of the delivery.
    pub id: Option<&'a str>,
    /// Time of signing, in seconds since 1970, as it is written in the request.
    pub timestamp: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// Why a signature is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is by none of the secrets, or there is none.
    #[error("the signature is missing or wrong")]
    Wrong,
    /// It was made too long ago, or in the future.
    #[error("the time of signing is too far from ours")]
    Stale,
}

impl Signed<'_> {
    fn digest(&self, secret: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length"));
        for part in [self.id, self.timestamp].into_iter().flatten() {
            mac.update(part.as_bytes());
            mac.update(b".");
        }
        mac.update(self.body);
        mac.finalize().into_bytes().to_vec()
    }

    /// The signature.
    pub fn sign(&self, secret: &[u8], encoding: Encoding) -> String {
        let digest = self.digest(secret);
        match encoding {
            Encoding::Base64 => BASE64_STANDARD.encode(digest),
            Encoding::Hex => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Whether one of `given` (separated by spaces, each after `prefix`) is by one of `secrets`, and the time of signing
    /// is within `tolerance` of `now`. Takes as long for a wrong signature as for a right one.
    ///
    /// # Errors
    /// What is not right.
    pub fn verify(
        &self,
        given: &str,
        prefix: &str,
        encoding: Encoding,
        secrets: &[impl AsRef<[u8]>],
        tolerance: Duration,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        let given: Vec<String> = given
            .split_ascii_whitespace()
            .filter_map(|one| one.strip_prefix(prefix))
            .map(|one| match encoding {
                Encoding::Hex => one.to_ascii_lowercase(),
                Encoding::Base64 => one.to_owned(),
            })
            .take(4)
            .collect();
        let mut right = false;
        let secrets = secrets.iter().map(AsRef::as_ref);
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            let expected = self.sign(secret, encoding);
            for one in &given {
                right |= bool::from(expected.as_bytes().ct_eq(one.as_bytes()));
            }
        }
        if !right {
            return Err(SignatureError::Wrong);
        }
        let Some(timestamp) = self.timestamp else {
            return Ok(());
        };
        let seconds: u64 = timestamp
            .trim()
            .parse()
            .map_err(|_| SignatureError::Stale)?;
        let signed = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let signed = signed.ok_or(SignatureError::Stale)?;
        let apart = now
            .duration_since(signed)
            .unwrap_or_else(|early| early.duration());
        match apart <= tolerance {
            true => Ok(()),
            false => Err(SignatureError::Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// RFC 4231, test cases 1 and 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        for (secret, body, expected) in [
            (
                vec![0x0b; 20],
                "Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe".to_vec(),
                "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ] {
            let signed = Signed {
                id: None,
                timestamp: None,
                body: body.as_bytes(),
            };
            assert_eq!(signed.sign(&secret, Encoding::Hex), expected);
        }
    }

    #[test]
    fn either_of_two_secrets_is_right_and_nothing_else() {
        let signed = Signed {
            id: Some("d1"),
            timestamp: Some("1700000000"),
            body: b"{}",
        };
        let secrets = ["new".to_owned(), "old".to_owned()];
        let verify = |given: &str, now: u64| {
            signed.verify(given, "v1,", Encoding::Base64, &secrets, MINUTES, at(now))
        };
        for secret in ["new", "old"] {
            let signature = signed.sign(secret.as_bytes(), Encoding::Base64);
            assert_eq!(verify(&format!("v1,{signature}"), 1_700_000_000), Ok(()));
            assert_eq!(
                verify(&format!("v1,AAAA v1,{signature}"), 1_700_000_300),
                Ok(())
            );
            assert_eq!(
                verify(&format!("v1,{signature}"), 1_699_999_699),
                Err(SignatureError::Stale)
            );
            assert_eq!(
                verify(&format!("v1,{signature}"), 1_700_000_301),
                Err(SignatureError::Stale)
            );
            assert_eq!(
                verify(&signature, 1_700_000_000),
                Err(SignatureError::Wrong)
            );
        }
        let other = signed.sign(b"other", Encoding::Base64);
        assert_eq!(
            verify(&format!("v1,{other}"), 1_700_000_000),
            Err(SignatureError::Wrong)
        );
        assert_eq!(verify("", 1_700_000_000), Err(SignatureError::Wrong));
        let nothing = signed.verify(
            "v1,",
            "v1,",
            Encoding::Base64,
            &[String::new()],
            MINUTES,
            at(0),
        );
        assert_eq!(
            nothing,
            Err(SignatureError::Wrong),
            "an empty secret signs nothing"
        );
        let moved = Signed {
            body: b"[]",
            ..signed
        };
        let signature = format!("v1,{}", signed.sign(b"new", Encoding::Base64));
        let moved = moved.verify(
            &signature,
            "v1,",
            Encoding::Base64,
            &secrets,
            MINUTES,
            at(1_700_000_000),
        );
        assert_eq!(moved, Err(SignatureError::Wrong));
    }
}
