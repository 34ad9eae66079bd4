//! What Redis means by an error: what ends by trying again, and what someone must cure. The sentences are the server's
//! own; they name commands and keys' types, never values.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// An error, by what the link does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is of no use any more: another one is needed.
    Lost(String),
    /// The server takes no writes: memory or disk is full.
    Full(String),
    /// User or password are wrong, or the user may not do it.
    Refused(String),
    /// It should not happen.
    Odd(String),
}

/// Codes of a server that cannot serve us, but may soon, perhaps at another address.
const ELSEWHERE: [&str; 5] = [
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
];

impl Trouble {
    /// Reads the kind of error and, where one kind has several meanings, the server's code.
    pub(super) fn of(error: &RedisError) -> Self {
        let text = text(error);
        let code = error.code().unwrap_or_default();
        match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
                Trouble::Refused(text)
            }
            _ if matches!(code, "WRONGPASS" | "NOAUTH" | "NOPERM") => Trouble::Refused(text),
            _ if matches!(code, "OOM" | "MISCONF") => Trouble::Full(text),
            _ if ELSEWHERE.contains(&code) => Trouble::Lost(text),
            // A script that met a write error passes it on inside its own.
            _ if text.contains("OOM command not allowed") || text.contains("MISCONF") => {
                Trouble::Full(text)
            }
            _ if ELSEWHERE
                .iter()
                .any(|code| text.contains(&format!("-{code} "))) =>
            {
                Trouble::Lost(text)
            }
            ErrorKind::Io
            | ErrorKind::MasterNameNotFoundBySentinel
            | ErrorKind::EmptySentinelList => Trouble::Lost(text),
            ErrorKind::Server(_) | ErrorKind::Extension => Trouble::Odd(text),
            _ => Trouble::Lost(text),
        }
    }

    /// As the engine sees it.
    pub(super) fn error(self) -> WorkError {
        match self {
            Trouble::Lost(text) => unreachable(&text),
            Trouble::Full(text) => WorkError::new(
                ErrorClass::Connect,
                codes::STATE_FULL,
                format!("Redis takes no writes: {text}"),
            ),
            Trouble::Refused(text) => WorkError::new(
                ErrorClass::Auth,
                codes::STATE_REFUSED,
                format!("Redis refuses: {text}"),
            ),
            Trouble::Odd(text) => WorkError::new(
                ErrorClass::Bug,
                codes::STATE_UNREADABLE,
                format!("Redis answers: {text}"),
            ),
        }
    }
}

/// Redis cannot be reached: try again.
pub(super) fn unreachable(text: &str) -> WorkError {
    WorkError::new(
        ErrorClass::Connect,
        codes::STATE_UNREACHABLE,
        format!("Redis: {text}"),
    )
}

/// Something is stored in a way that we did not write.
pub(super) fn unreadable(what: &str) -> WorkError {
    WorkError::new(
        ErrorClass::Bug,
        codes::STATE_UNREADABLE,
        format!("Redis holds {what} that cannot be read"),
    )
}

/// The server's sentence, or the system's. Not the error's own text: that begins with the kind, which says less.
fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_string(),
    }
}
