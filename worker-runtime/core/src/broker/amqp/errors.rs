//! What the broker means by an error: which of them someone must cure, and which end by trying again.
//! The sentences are the broker's own; they name queues and users, never passwords.

use crate::codes;
use crate::error::{ErrorClass, WorkError};
use lapin::ErrorKind;

/// An error of one channel or connection, by what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The connection or channel is gone: try again.
    Lost(String),
    /// The queue or exchange does not exist.
    Missing(String),
    /// Someone else holds the queue exclusively: wait.
    Held(String),
    /// The queue exists, and the node that has it is away: wait.
    Down(String),
    /// The queue or exchange exists with other properties: someone must act (R1).
    Differs(String),
    /// The user has no permission: someone must act.
    Denied(String),
    /// An exclusive consumer was not exclusive (R1).
    FenceIgnored,
}

impl Trouble {
    /// Reads the reply code and, where one code has two meanings, the broker's sentence.
    pub(super) fn of(error: &lapin::Error) -> Self {
        let ErrorKind::ProtocolError(protocol) = error.kind() else {
            return Trouble::Lost(error.to_string());
        };
        let text = protocol.get_message().to_string();
        match protocol.get_id() {
            403 if text.contains("exclusive use") => Trouble::Held(text),
            403 => Trouble::Denied(text),
            404 if text.contains("is down or inaccessible")
                || text.contains("process is stopped")
                || text.contains("due to timeout") =>
            {
                Trouble::Down(text)
            }
            404 => Trouble::Missing(text),
            405 => Trouble::Held(text),
            406 if text.contains("inequivalent arg") => Trouble::Differs(text),
            _ => Trouble::Lost(text),
        }
    }
}

/// Whether a refused connection is about user, password or vhost.
pub(super) fn is_refusal(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(e) if matches!(e.get_id(), 403 | 530))
}

/// The trouble with a queue as the engine and the commands see it.
pub(super) fn work_error((trouble, queue): (Trouble, String)) -> WorkError {
    let (class, code, text) = match trouble {
        Trouble::Lost(text) => (ErrorClass::Connect, codes::BROKER_UNREACHABLE, text),
        Trouble::Missing(text) => (ErrorClass::Unroutable, codes::ROUTE_NO_QUEUE, text),
        Trouble::Held(text) => (ErrorClass::RemoteTemporary, codes::BROKER_UNREACHABLE, text),
        Trouble::Down(text) => (ErrorClass::Connect, codes::BROKER_QUEUE_DOWN, text),
        Trouble::Differs(text) => (ErrorClass::Config, codes::BROKER_QUEUE_TYPE, text),
        Trouble::Denied(text) => (ErrorClass::Auth, codes::BROKER_REFUSED, text),
        Trouble::FenceIgnored => (
            ErrorClass::Config,
            codes::BROKER_FENCE,
            codes::BROKER_FENCE.meaning.to_owned(),
        ),
    };
    WorkError::new(class, code, format!("queue {queue:?}: {text}"))
}
