//! The closed set of error classes that decides everything: retry, park, event, HTTP answer, log level, exit code.

use crate::codes::{self, Code};
use crate::message::{Actor, FailureClass, Fate, FateState};
use std::time::Duration;

/// What kind of error it is, and so what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The manifest is wrong; an edit is needed.
    Config,
    /// Credentials were refused.
    Auth,
    /// The peer cannot be reached.
    Connect,
    /// The peer asks us to slow down; with the waiting time if it gave one.
    Throttled(Option<Duration>),
    /// The peer did not answer in time.
    Timeout,
    /// The peer failed and may succeed later.
    RemoteTemporary,
    /// The peer refused for good.
    RemotePermanent,
    /// The input is malformed or impossible.
    BadInput,
    /// No route, queue or address for it.
    Unroutable,
    /// Our own mistake, panics included.
    Bug,
}

/// What the engine does with a message whose handling failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again in its lane, up to the retry and hold limits.
    Retry,
    /// Give up at once: nack event (outbound) or parking (inbound, event).
    GiveUp,
    /// Try again up to three times, then park.
    RetryThenPark,
    /// Park at once.
    Park,
}

impl ErrorClass {
    /// The one table: what happens to a message.
    pub fn disposition(self) -> Disposition {
        match self {
            ErrorClass::Connect
            | ErrorClass::Throttled(_)
            | ErrorClass::Timeout
            | ErrorClass::RemoteTemporary
            | ErrorClass::Auth => Disposition::Retry,
            ErrorClass::RemotePermanent | ErrorClass::Unroutable => Disposition::GiveUp,
            ErrorClass::BadInput | ErrorClass::Config => Disposition::Park,
            ErrorClass::Bug => Disposition::RetryThenPark,
        }
    }

    /// Status code that an HTTP peer gets for a request that failed so.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorClass::BadInput => 400,
            ErrorClass::Timeout => 504,
            ErrorClass::RemotePermanent | ErrorClass::RemoteTemporary => 502,
            ErrorClass::Connect
            | ErrorClass::Throttled(_)
            | ErrorClass::Unroutable
            | ErrorClass::Auth
            | ErrorClass::Config => 503,
            ErrorClass::Bug => 500,
        }
    }

    /// Metric label and log field.
    pub fn label(self) -> &'static str {
        match self {
            ErrorClass::Config => "config",
            ErrorClass::Auth => "auth",
            ErrorClass::Connect => "connect",
            ErrorClass::Throttled(_) => "throttled",
            ErrorClass::Timeout => "timeout",
            ErrorClass::RemoteTemporary => "remote_temporary",
            ErrorClass::RemotePermanent => "remote_permanent",
            ErrorClass::BadInput => "bad_input",
            ErrorClass::Unroutable => "unroutable",
            ErrorClass::Bug => "bug",
        }
    }

    /// The class with this label; [`Self::Throttled`] without its time.
    pub fn labelled(label: &str) -> Option<Self> {
        let all = [
            ErrorClass::Config,
            ErrorClass::Auth,
            ErrorClass::Connect,
            ErrorClass::Throttled(None),
            ErrorClass::Timeout,
            ErrorClass::RemoteTemporary,
            ErrorClass::RemotePermanent,
            ErrorClass::BadInput,
            ErrorClass::Unroutable,
            ErrorClass::Bug,
        ];
        all.into_iter().find(|class| class.label() == label)
    }

    /// Process exit code when a command ends with such an error: 1 runtime, 2 validation, 3 environment.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorClass::Config | ErrorClass::BadInput => 2,
            ErrorClass::Auth | ErrorClass::Connect => 3,
            _ => 1,
        }
    }

    /// Failure class of a message's fate when it ends so (R11).
    pub fn failure_class(self) -> FailureClass {
        match self {
            ErrorClass::Config | ErrorClass::Bug => FailureClass::Ours,
            ErrorClass::Auth => FailureClass::Credential,
            ErrorClass::Connect
            | ErrorClass::Timeout
            | ErrorClass::RemoteTemporary
            | ErrorClass::RemotePermanent => FailureClass::Provider,
            ErrorClass::Throttled(_) => FailureClass::Throttle,
            ErrorClass::BadInput => FailureClass::Content,
            ErrorClass::Unroutable => FailureClass::Route,
        }
    }

    /// Who must act when a message ends so (R11).
    pub fn who_acts(self) -> Actor {
        match self {
            ErrorClass::Config | ErrorClass::Auth | ErrorClass::Unroutable | ErrorClass::Bug => {
                Actor::Operator
            }
            ErrorClass::Connect
            | ErrorClass::Timeout
            | ErrorClass::RemoteTemporary
            | ErrorClass::RemotePermanent => Actor::Provider,
            ErrorClass::BadInput => Actor::Campaign,
            ErrorClass::Throttled(_) => Actor::Nobody,
        }
    }
}

/// Implemented by every crate's error enum.
pub trait Classify: std::error::Error {
    /// The class that decides what happens.
    fn class(&self) -> ErrorClass;
    /// The registered code, explained by `vumi explain CODE`.
    fn code(&self) -> Code;
}

/// An error as the engine sees it: class, registered code, a sentence, and the provider's own code if there is one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct WorkError {
    /// What happens next.
    pub class: ErrorClass,
    /// Registered code.
    pub code: Code,
    /// What was wrong, where, and what to do. Never contains message content, addresses or secrets.
    pub text: String,
    /// The peer's own code; data, never a label.
    pub provider_code: Option<String>,
}

impl WorkError {
    /// An error with a registered code and a sentence.
    pub fn new(class: ErrorClass, code: Code, text: impl Into<String>) -> Self {
        Self {
            class,
            code,
            text: text.into(),
            provider_code: None,
        }
    }

    /// What was wrong, its code, and what to do about it.
    pub fn advice(&self) -> String {
        let fix = self.code.fix.trim_end_matches('.');
        format!("{} ({}); {fix}", self.text, self.code.name)
    }

    /// Failure class of a message that ends so. That an answer was lost is nobody's fault but ours.
    pub fn failure_class(&self) -> FailureClass {
        match self.code == codes::FATE_UNKNOWN {
            true => FailureClass::Ours,
            false => self.class.failure_class(),
        }
    }

    /// Who must act when a message ends so.
    pub fn who_acts(&self) -> Actor {
        match self.code == codes::FATE_UNKNOWN {
            true => Actor::Operator,
            false => self.class.who_acts(),
        }
    }

    /// The fate of a message in `state` because of it. The provider's own code stands before ours.
    pub fn fate(&self, state: FateState, attempt: u32) -> Fate {
        let code = self.provider_code.as_deref().unwrap_or(self.code.name);
        Fate {
            state,
            class: self.failure_class().as_str().to_owned(),
            code: code.to_owned(),
            text: self.text.clone(),
            who: self.who_acts().as_str().to_owned(),
            attempt,
            is_final: state == FateState::Failed,
        }
    }
}

impl<E: Classify> From<E> for WorkError {
    fn from(error: E) -> Self {
        Self::new(error.class(), error.code(), error.to_string())
    }
}

/// An error of a library and what caused it, in one line. What it says of its cause already is not said again.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
