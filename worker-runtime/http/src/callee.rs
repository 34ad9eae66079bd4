//! Who is called: what is counted and said of a provider or an endpoint, whoever calls it.

use crate::answer::{Answer, status_class};
use crate::client::{Call, CallError, Caller};
use std::time::{Duration, Instant};
use vumi_core::codes;
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::reasons::{self, Reason};
use vumi_core::status::{StatusLevel, StatusReport};
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::{Traffic, WorkerContext};

/// A component whose status tells how calls go.
#[derive(Clone, Copy, Debug)]
pub struct Callee {
    /// Its name, in statuses and in sentences.
    name: &'static str,
    answered: Reason,
    unreachable: Reason,
    credentials: Reason,
    throttles: Reason,
    lost: Reason,
    failed: Reason,
    refuses: Reason,
    /// What is written about it cannot be carried out.
    misconfigured: Reason,
}

/// The provider of a transport.
pub const PROVIDER: Callee = Callee {
    name: "provider",
    answered: reasons::PROVIDER_ANSWERED,
    unreachable: reasons::PROVIDER_UNREACHABLE,
    credentials: reasons::PROVIDER_CREDENTIALS,
    throttles: reasons::PROVIDER_THROTTLES,
    lost: reasons::PROVIDER_LOST,
    failed: reasons::PROVIDER_FAILED,
    refuses: reasons::PROVIDER_FAILED,
    misconfigured: reasons::DESCRIPTION_FAILED,
};

/// The endpoint to which an application relays.
pub const ENDPOINT: Callee = Callee {
    name: "endpoint",
    answered: reasons::ENDPOINT_ANSWERED,
    unreachable: reasons::ENDPOINT_UNREACHABLE,
    credentials: reasons::ENDPOINT_CREDENTIALS,
    throttles: reasons::ENDPOINT_THROTTLES,
    lost: reasons::ENDPOINT_LOST,
    failed: reasons::ENDPOINT_FAILED,
    refuses: reasons::ENDPOINT_REFUSES,
    misconfigured: reasons::ENDPOINT_REFUSES,
};

impl Callee {
    /// Calls it, counts the call, and says so if there is no answer.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub async fn ask(
        &self,
        cx: &WorkerContext,
        caller: &dyn Caller,
        call: Call,
    ) -> Result<Answer, WorkError> {
        let began = Instant::now();
        let called = caller.call(call).await;
        count(cx, &called, began.elapsed());
        let answer = called
            .map_err(WorkError::from)
            .inspect_err(|error| self.report(cx, error))?;
        cx.traffic(Traffic::Outbound);
        Ok(answer)
    }

    /// Says what its answer came to.
    pub fn judged<T>(&self, cx: &WorkerContext, judged: &Result<T, WorkError>) {
        match judged {
            Ok(_) => {
                let text = format!("The {} takes messages.", self.name);
                let level = StatusLevel::Ok;
                cx.report(StatusReport::new(self.name, level, self.answered, text));
            }
            Err(error) => self.report(cx, error),
        }
    }

    fn report(&self, cx: &WorkerContext, error: &WorkError) {
        let (level, reason) = match error.class {
            ErrorClass::Connect => (StatusLevel::Down, self.unreachable),
            ErrorClass::Auth => (StatusLevel::Down, self.credentials),
            ErrorClass::Config => (StatusLevel::Down, self.misconfigured),
            ErrorClass::BadInput => (StatusLevel::Degraded, self.misconfigured),
            ErrorClass::Throttled(_) => (StatusLevel::Degraded, self.throttles),
            ErrorClass::Timeout => (StatusLevel::Degraded, self.lost),
            ErrorClass::RemotePermanent => (StatusLevel::Degraded, self.refuses),
            _ => (StatusLevel::Degraded, self.failed),
        };
        let text = error.text.as_str();
        cx.report(StatusReport::new(self.name, level, reason, text));
    }

    /// The error of an answer that is neither a yes nor a no; `code` is what it said.
    pub fn error(&self, class: ErrorClass, code: &str) -> WorkError {
        let (registered, text) = match class {
            ErrorClass::Auth => (codes::PEER_CREDENTIALS, "refuses our credentials"),
            ErrorClass::Throttled(_) => (codes::PEER_THROTTLED, "asks to slow down"),
            ErrorClass::Timeout => (
                codes::PEER_TIMEOUT,
                "does not know what became of the message",
            ),
            _ => (codes::PEER_FAILED, "failed and did not take the message"),
        };
        let text = format!("the {} {text} (it says {code})", self.name);
        let mut error = WorkError::new(class, registered, text);
        error.provider_code = Some(code.to_owned());
        error
    }
}

fn count(cx: &WorkerContext, called: &Result<Answer, CallError>, took: Duration) {
    let result = match called {
        Ok(answer) => status_class(answer.status),
        Err(CallError::Unreachable(_)) => "failed",
        Err(CallError::Lost(_)) => "timeout",
    };
    cx.http(HttpSeen::Request {
        direction: Traffic::Outbound,
        result,
        took,
    });
}
