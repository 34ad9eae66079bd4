//! Answers to requests, and the word that an answer was written.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::sync::oneshot;
use vumi_core::codes::{self, Code};
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::state::first_seen::MAX_ANSWER;

/// Content type of plain answers.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Content type of answers for machines.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The class of a status as metrics name it: `2xx`, `3xx`, `4xx` or `5xx`.
pub fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// One HTTP answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers; `Content-Length` and `Date` are added by the server.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// A `text/plain` answer in UTF-8.
    pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, TEXT, body.into())
    }

    /// A JSON answer, `application/json`.
    pub fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, JSON, body.to_string().into())
    }

    /// The answer to a request that failed: the status's name in snake_case and a sentence for people.
    pub fn error(status: StatusCode, sentence: &str) -> Self {
        let name = status.canonical_reason().unwrap_or("error");
        let name = name.to_ascii_lowercase().replace(' ', "_");
        Self::named_error(status, &name, sentence)
    }

    /// As [`Self::error`], with a registered code for a name.
    pub fn coded_error(status: StatusCode, code: Code) -> Self {
        Self::named_error(status, code.name, code.meaning)
    }

    /// The one shape of all errors.
    fn named_error(status: StatusCode, name: &str, sentence: &str) -> Self {
        let body = serde_json::json!({"error": name, "message": sentence});
        Self::json(status, &body)
    }

    fn new(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        Self {
            status,
            headers,
            body,
        }
    }

    /// The answer with one more header.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The answer with `Retry-After` in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// As it is kept for whoever asks the same again: status, headers and body. Of one that is too long, the headers but
    /// the content type are left out; none of one that still is.
    pub fn kept(&self) -> Option<Bytes> {
        let all = |_: &HeaderName| true;
        let kind = |name: &HeaderName| name == CONTENT_TYPE;
        let kept = self.written(all);
        let kept = match kept.len() > MAX_ANSWER {
            true => self.written(kind),
            false => kept,
        };
        (kept.len() <= MAX_ANSWER).then(|| kept.into())
    }

    /// The same where the answer cannot be made again: in the place of one that is too long, an error that says so.
    pub fn kept_or_gone(&self) -> Bytes {
        self.kept().unwrap_or_else(|| {
            let text = "This request was answered before; the answer was too long to be kept.";
            let gone = Self::error(StatusCode::GONE, text);
            gone.written(|_| true).into()
        })
    }

    /// As HTTP writes it: a line with the status, a line for each header, an empty line, the body.
    fn written(&self, has: impl Fn(&HeaderName) -> bool) -> Vec<u8> {
        let mut kept = format!("{}\n", self.status.as_u16()).into_bytes();
        for (name, value) in self.headers.iter().filter(|(name, _)| has(name)) {
            kept.extend_from_slice(name.as_str().as_bytes());
            kept.extend_from_slice(b": ");
            kept.extend_from_slice(value.as_bytes());
            kept.push(b'\n');
        }
        kept.push(b'\n');
        kept.extend_from_slice(&self.body);
        kept
    }

    /// Reads what [`Self::kept`] wrote; none for anything else, and for nothing.
    pub fn from_kept(kept: &Bytes) -> Option<Self> {
        let mut at = 0;
        let mut line = || {
            let rest = kept.get(at..)?;
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            at += end + 1;
            Some(&rest[..end])
        };
        let status = std::str::from_utf8(line()?).ok()?;
        let status = StatusCode::from_u16(status.parse().ok()?).ok()?;
        let mut headers = HeaderMap::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let colon = header.iter().position(|byte| *byte == b':')?;
            let value = header.get(colon + 2..)?;
            let name = HeaderName::from_bytes(&header[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(Self {
            status,
            headers,
            body: kept.slice(at..),
        })
    }

    /// What a caller gets when their message could not be taken: the status of the error's class (413 for a message
    /// that is too large), its code and the code's sentence. The error's own text stays in our logs, because it may
    /// name our hosts and queues.
    pub fn refusal(error: &WorkError) -> Self {
        let status = match error.code {
            codes::MESSAGE_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::from_u16(error.class.http_status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        let answer = Self::coded_error(status, error.code);
        match error.class {
            ErrorClass::Throttled(Some(wait)) => answer.retry_after(wait.as_secs().max(1)),
            ErrorClass::BadInput | ErrorClass::RemotePermanent | ErrorClass::Bug => answer,
            _ => answer.retry_after(5),
        }
    }
}

/// Tells whether an answer reached the caller's socket; an error if the caller was gone.
pub type Written = oneshot::Receiver<()>;

/// An answer, and whom to tell once it is written.
#[derive(Debug)]
pub struct Reply {
    pub(crate) answer: Answer,
    pub(crate) written: Option<oneshot::Sender<()>>,
    /// Its request is no traffic.
    pub(crate) uncounted: bool,
}

impl Reply {
    /// An answer with a receiver that resolves when its last byte was handed to the operating system, and fails when
    /// the connection ended before.
    pub fn watched(answer: Answer) -> (Self, Written) {
        let (sender, receiver) = oneshot::channel();
        let reply = Self {
            answer,
            written: Some(sender),
            uncounted: false,
        };
        (reply, receiver)
    }
}

impl Reply {
    /// The answer to a request that is no traffic, such as a load balancer's.
    pub fn uncounted(answer: Answer) -> Self {
        Self {
            uncounted: true,
            ..answer.into()
        }
    }

    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        self.answer.status
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            written: None,
            uncounted: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_answered() {
        let answers = [
            Answer::text(StatusCode::OK, "héllo\nworld"),
            Answer::text(StatusCode::OK, ""),
            Answer::json(StatusCode::BAD_GATEWAY, &serde_json::json!({"a": 1})),
            Answer::text(StatusCode::OK, "FB")
                .with(
                    HeaderName::from_static("freeflow"),
                    HeaderValue::from_static("FB"),
                )
                .with(
                    HeaderName::from_static("x-name"),
                    HeaderValue::from_bytes(b"a: \xe9").unwrap(),
                ),
            Answer {
                status: StatusCode::NO_CONTENT,
                headers: HeaderMap::new(),
                body: Bytes::new(),
            },
        ];
        for answer in answers {
            assert_eq!(Answer::from_kept(&answer.kept_or_gone()), Some(answer));
        }
        assert_eq!(Answer::from_kept(&Bytes::new()), None);
        let large = HeaderValue::from_str(&"h".repeat(MAX_ANSWER)).unwrap();
        let plain = Answer::text(StatusCode::OK, "as before");
        let headed = plain
            .clone()
            .with(HeaderName::from_static("x-large"), large);
        assert_eq!(Answer::from_kept(&headed.kept_or_gone()), Some(plain));
        let long = Answer::text(StatusCode::OK, "x".repeat(MAX_ANSWER));
        assert_eq!(long.kept(), None);
        let kept = Answer::from_kept(&long.kept_or_gone()).map(|answer| answer.status);
        assert_eq!(
            kept,
            Some(StatusCode::GONE),
            "it is said that it was answered"
        );
    }
}
