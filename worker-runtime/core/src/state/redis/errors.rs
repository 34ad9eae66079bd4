//! What Redis means by an error: what ends by trying again, and what someone must cure. The sentences are the server's
//! own; they name commands and keys' types, never values.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use redis::{ErrorKind, RedisError};

/// An error, by what the link does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection is of no use any more: another one is needed.
    Lost(String),
    /// The server takes no writes: memory or disk is full, or too few replicas follow.
    Full(String),
    /// User or password are wrong, or the user may not do it.
    Refused(String),
    /// It should not happen.
    Odd(String),
}

/// Codes of a server that cannot serve us, but may soon, perhaps at another address.
const ELSEWHERE: [&str; 5] = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "BUSY"];
/// Codes of a server that takes no writes for now.
const NO_WRITES: [&str; 3] = ["OOM", "MISCONF", "NOREPLICAS"];

impl Trouble {
    /// Reads the kind of error and, where one kind has several meanings, the server's code.
    pub(super) fn of(error: &RedisError) -> Self {
        let text = text(error);
        // Before version 7 a script passes on what it met inside an error of its own.
        let says = |code: &&str| error.code() == Some(code) || text.contains(&format!("-{code} "));
        if ["WRONGPASS", "NOAUTH", "NOPERM"].iter().any(says) {
            return Trouble::Refused(text);
        }
        if NO_WRITES.iter().any(says) {
            return Trouble::Full(text);
        }
        if ELSEWHERE.iter().any(says) {
            return Trouble::Lost(text);
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Trouble::Refused(text),
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
                Trouble::Odd(text)
            }
            _ => Trouble::Lost(text),
        }
    }

    /// As it is while connecting: whatever is odd may pass.
    pub(super) fn while_connecting(error: &RedisError) -> WorkError {
        match Self::of(error) {
            Trouble::Odd(text) => unreachable(&text),
            trouble => trouble.error(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_means() {
        let of = |code: &str, detail: &str| {
            let error = redis::make_extension_error(code.into(), Some(detail.into()));
            let error = Trouble::of(&error).error();
            (error.class, error.code)
        };
        let full = (ErrorClass::Connect, codes::STATE_FULL);
        assert_eq!(
            of("OOM", "command not allowed when used memory > 'maxmemory'."),
            full
        );
        assert_eq!(of("MISCONF", "Errors writing to the AOF file"), full);
        assert_eq!(of("NOREPLICAS", "Not enough good replicas to write."), full);
        let before_7 = "Error running script: @user_script: 9: -OOM command not allowed when";
        assert_eq!(of("ERR", before_7), full);
        let lost = (ErrorClass::Connect, codes::STATE_UNREACHABLE);
        assert_eq!(
            of("READONLY", "You can't write against a read only replica."),
            lost
        );
        assert_eq!(
            of("LOADING", "Redis is loading the dataset in memory"),
            lost
        );
        let refused = (ErrorClass::Auth, codes::STATE_REFUSED);
        assert_eq!(of("NOPERM", "this user has no permissions"), refused);
        let odd = (ErrorClass::Bug, codes::STATE_UNREADABLE);
        assert_eq!(of("WRONGTYPE", "Operation against a key"), odd);
    }
}
