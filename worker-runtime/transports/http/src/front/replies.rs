//! How a reply reaches whoever waits for it, here or at another replica.

use super::Front;
use crate::pending::Finished;
use std::time::Duration;
use vumi_core::codes::{self, Code};
use vumi_core::error::{ErrorClass, WorkError};
use vumi_core::holding::HOLDER;
use vumi_core::message::{Actor, FailureClass, UserMessage};
use vumi_core::outcome::Refusal;
use vumi_core::state::Person;
use vumi_core::telemetry::HttpSeen;
use vumi_core::worker::Traffic;
use vumi_http::{Answer, StatusCode};

/// How long a caller may take to read their answer.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

impl Front {
    /// Whether a message answers a request that is, or was, held.
    pub(crate) fn is_for_a_request(&self, message: &UserMessage) -> bool {
        let answers = message.in_reply_to().is_some_and(|id| !id.is_empty());
        let metadata = message.transport_metadata();
        let named = metadata.is_some_and(|metadata| metadata.contains_key(HOLDER));
        // An application may have dropped the name; what waits here is known without it.
        let held = || {
            named
                || self
                    .pending
                    .holds(message.in_reply_to().unwrap_or_default())
        };
        self.provider.holds() && answers && (!self.provider.sends() || held())
    }

    /// Gives `message` to the caller who waits for it; why it could not, if so.
    pub(crate) async fn deliver(
        &self,
        message: &UserMessage,
        request: &str,
    ) -> Result<Option<Refusal>, WorkError> {
        let id = message.message_id();
        let answer = match self.provider.reply(message) {
            Ok(answer) => answer,
            Err(error) => {
                self.refuse_reply(message, request, error.code).await;
                return match error.class {
                    ErrorClass::BadInput => {
                        tracing::warn!(worker = self.cx.worker_name(), message_id = id, code = %error.code, reason = %error, "a reply cannot be written");
                        let (class, who) = (FailureClass::Content, Actor::Campaign);
                        Ok(Some(Refusal::new(class, error.code, error.text, who)))
                    }
                    _ => Err(error),
                };
            }
        };
        let (written, age) = match self.pending.finish(request, id, &answer) {
            Finished::Repeated => return Ok(None),
            Finished::Answered => return Ok(Some(self.closed("The request is answered."))),
            Finished::NotPending => {
                let why = "The request is answered, timed out, or its caller is gone.";
                return self.gone(message, request, why).await.map(Some);
            }
            Finished::Handed(written, age) => (written, age),
        };
        let deadline = tokio::time::Instant::now() + WRITE_TIMEOUT;
        let mut reached = false;
        for receipt in written {
            reached |= matches!(tokio::time::timeout_at(deadline, receipt).await, Ok(Ok(())));
        }
        self.pending.written(request, id, reached);
        if !reached {
            let why = "The caller went away before the answer was written.";
            return self.gone(message, request, why).await.map(Some);
        }
        self.settle(self.provider.replied(message), false).await;
        if self.provider.has_ids() {
            let person = message.to_addr().map(Person::new);
            self.cx
                .answered(request, answer.kept_or_gone(), person)
                .await;
        }
        self.cx.traffic(Traffic::Outbound);
        self.report_time(age);
        Ok(None)
    }

    /// That a reply came too late.
    fn closed(&self, text: &str) -> Refusal {
        self.cx.http(HttpSeen::LateReply);
        let (class, code) = (FailureClass::Window, codes::SESSION_CLOSED);
        Refusal::new(class, code, text, Actor::Nobody)
    }

    /// Nobody waits for a reply any more; the provider may keep it for when its user comes again.
    async fn gone(
        &self,
        message: &UserMessage,
        request: &str,
        why: &str,
    ) -> Result<Refusal, WorkError> {
        self.leave_unanswered(request, codes::SESSION_CLOSED).await;
        Ok(self.closed(match self.provider.late(message).await? {
            true => "The network did not wait for it; its user reads it on dialling again in time.",
            false => why,
        }))
    }

    /// Ends the wait for a reply that is refused: none will come.
    pub(crate) async fn refuse_reply(&self, message: &UserMessage, request: &str, code: Code) {
        let (answer, id) = (unanswered(code), message.message_id());
        match self.pending.finish(request, id, &answer) {
            Finished::Handed(..) => self.pending.written(request, id, false),
            Finished::NotPending => {}
            Finished::Repeated | Finished::Answered => return,
        }
        self.leave_unanswered(request, code).await;
    }

    /// Whoever repeats a request whose reply cannot be delivered is told so, unless it was answered before.
    async fn leave_unanswered(&self, request: &str, code: Code) {
        if self.provider.has_ids() {
            let answer = unanswered(code).kept_or_gone();
            self.cx.answered(request, answer, None).await;
        }
    }
}

/// What a caller gets whose reply will not come.
pub(super) fn unanswered(code: Code) -> Answer {
    Answer::coded_error(StatusCode::BAD_GATEWAY, code)
}
