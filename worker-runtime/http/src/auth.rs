//! HTTP Basic (RFC 7617), compared in constant time.

use crate::answer::Answer;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Whether the request carries this user name and password. Takes as long for a wrong password as for a right one.
pub fn credentials_match(headers: &HeaderMap, username: &str, password: &str) -> bool {
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, token)| BASE64_STANDARD.decode(token.trim()).ok());
    let Some(given) = given else {
        return false;
    };
    equal(&given, format!("{username}:{password}").as_bytes())
}

/// Whether two secrets are equal; tells nothing by the time it takes.
pub fn equal(given: &[u8], expected: &[u8]) -> bool {
    // Digests have one length, so the comparison does not tell how long the secret is.
    let (given, expected) = (Sha256::digest(given), Sha256::digest(expected));
    expected.as_slice().ct_eq(given.as_slice()).into()
}

/// 401 with the challenge.
pub fn unauthorized() -> Answer {
    let text = "User name or password is missing or wrong.";
    Answer::error(StatusCode::UNAUTHORIZED, text).with(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"vumi\", charset=\"UTF-8\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_credentials_pass() {
        for (header, expected) in [
            (Some("Basic YWRhOmxvdmUlbGFjZQ=="), true),
            (Some("basic YWRhOmxvdmUlbGFjZQ=="), true),
            (Some("Basic YWRhOndyb25n"), false),
            (Some("Basic YWRhOg=="), false),
            (Some("Bearer YWRhOmxvdmUlbGFjZQ=="), false),
            (Some("Basic %%%"), false),
            (Some("Basic"), false),
            (None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(text) = header {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(text));
            }
            let passed = credentials_match(&headers, "ada", "love%lace");
            assert_eq!(passed, expected, "{header:?}");
        }
    }
}
