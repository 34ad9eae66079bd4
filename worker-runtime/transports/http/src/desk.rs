//! One transport's desk: what every request goes through, how long it waits, and how a reply reaches its caller.

use crate::engine::{Declaration, Inbound};
use crate::pending::{Finished, Opened, Pending, Place};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use vumi_api::shared::BasicAuth;
use vumi_core::codes::{self, Code};
use vumi_core::error::WorkError;
use vumi_core::message::{Actor, FailureClass, UserMessage, derived_id};
use vumi_core::outcome::Refusal;
use vumi_core::reasons::{self, Reason};
use vumi_core::state::Person;
use vumi_core::status::{StatusLevel, StatusReport};
use vumi_core::worker::{Taken, Traffic, WorkerContext};
use vumi_http::{Answer, Head, Method, Reply, Request, Service, StatusCode};

/// Key in `transport_metadata` that names the reply queue of the replica that holds the request.
const HOLDER: &str = "vumi_holder";
/// How long a request may wait for the broker.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a repeat looks whether its request was answered by another replica.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a caller may take to read their answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// A late response is forgiven when none was late for so long.
const FORGIVEN: Duration = match cfg!(test) {
    true => Duration::from_millis(500),
    false => Duration::from_secs(60),
};
/// Answers that took longer are reported as slow, and as very slow.
const SLOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What requests and replies share.
pub(crate) struct Desk {
    pub(crate) declaration: Box<dyn Declaration>,
    pub(crate) cx: Arc<WorkerContext>,
    pub(crate) path: String,
    pub(crate) health_path: String,
    pub(crate) auth: Option<BasicAuth>,
    pub(crate) request_timeout: Duration,
    pub(crate) pending: Arc<Pending>,
    /// Requests that may still be published.
    pub(crate) intake: TaskTracker,
    /// When the last response was late, if that is its last status.
    pub(crate) late: Mutex<Option<Instant>>,
}

/// `path` is `root` or below it.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[async_trait]
impl Service for Desk {
    fn by_head(&self, head: &Head) -> Option<Answer> {
        if is_below(&head.path, &self.health_path) {
            return Some(self.health(&head.method));
        }
        if !is_below(&head.path, &self.path) {
            return Some(Answer::error(
                StatusCode::NOT_FOUND,
                "There is nothing here.",
            ));
        }
        if let Some(auth) = &self.auth {
            match self.cx.secrets().resolve(&auth.password) {
                Ok(password)
                    if vumi_http::credentials_match(&head.headers, &auth.username, &password) => {}
                Ok(_) => return Some(vumi_http::unauthorized()),
                Err(error) => {
                    tracing::error!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "cannot check credentials");
                    return Some(Answer::refusal(&error));
                }
            }
        }
        let methods = self.declaration.methods();
        (!methods.contains(&head.method)).then(|| not_allowed(methods))
    }

    async fn answer(&self, request: Request) -> Reply {
        let intake = self.intake.token();
        let started = Instant::now();
        self.cx.traffic(Traffic::Inbound);
        let Inbound {
            mut message,
            provider_id,
        } = match self.declaration.inbound(&request) {
            Ok(inbound) => inbound,
            Err(answer) => return (*answer).into(),
        };
        drop(request);
        let repeatable = provider_id.is_some();
        if let Some(id) = provider_id {
            message.set_message_id(&derived_id(&["inbound", self.cx.transport_name(), &id]));
        }
        let id = message.message_id().to_owned();
        if !self.declaration.holds() {
            // The answer follows from the id, and so is the first one.
            return match self.publish(message, repeatable).await {
                Ok(_) => {
                    self.report_time(started.elapsed());
                    self.declaration.accepted(&id).into()
                }
                Err(error) => self.refuse(&error),
            };
        }
        message
            .transport_metadata_mut()
            .insert(HOLDER.into(), self.cx.reply_queue().into());
        match self.pending.open(&id) {
            Opened::First(mut place) => {
                let again = repeatable.then(|| message.clone());
                let published = self.publish(message, repeatable).await;
                drop(intake);
                match published {
                    Ok(Taken::Now) => place.accepted(),
                    Ok(before) => {
                        return match (first_answer(&before), again) {
                            (Some(first), _) => first.into(),
                            (None, Some(again)) => self.wait_again(place, again, started).await,
                            (None, None) => self.wait(place, started).await,
                        };
                    }
                    // The confirmation was lost, but the message was not: the reply is here.
                    Err(error) => {
                        return place
                            .reply
                            .try_recv()
                            .unwrap_or_else(|_| self.refuse(&error));
                    }
                }
                self.wait(place, started).await
            }
            Opened::Repeat(place) => {
                drop(intake);
                self.wait(place, started).await
            }
            Opened::TooEarly => {
                let text = "The same request is being taken over; please try again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(1).into()
            }
        }
    }
}

impl Desk {
    /// Number of held requests; 503 once the intake is closed, so that load balancers go elsewhere.
    fn health(&self, method: &Method) -> Answer {
        const METHODS: &[Method] = &[Method::GET, Method::HEAD];
        if !METHODS.contains(method) {
            return not_allowed(METHODS);
        }
        let status = if self.cx.closing().is_cancelled() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        Answer::json(status, &json!({"pending_requests": self.pending.len()}))
    }

    async fn publish(&self, message: UserMessage, repeatable: bool) -> Result<Taken, WorkError> {
        let limit = ACCEPT_TIMEOUT.min(self.request_timeout);
        if repeatable {
            let id = message.message_id().to_owned();
            return self.cx.accept_once(message, &id, Bytes::new(), limit).await;
        }
        let taken = self.cx.accept_within(message, limit).await;
        taken.map(|()| Taken::Now)
    }

    /// Waits for the reply to a request that was taken over before, and whose reply may come to another replica.
    async fn wait_again(&self, place: Place, message: UserMessage, started: Instant) -> Reply {
        place.accepted();
        let told = async {
            loop {
                tokio::time::sleep(ASK_AGAIN).await;
                if let Ok(before) = self.publish(message.clone(), true).await
                    && let Some(first) = first_answer(&before)
                {
                    return first;
                }
            }
        };
        tokio::select! {
            reply = self.wait(place, started) => reply,
            first = told => first.into(),
        }
    }

    fn refuse(&self, error: &WorkError) -> Reply {
        tracing::warn!(worker = self.cx.worker_name(), code = %error.code, reason = %error, "request refused");
        Answer::refusal(error).into()
    }

    /// Waits for the reply, up to the request's deadline.
    async fn wait(&self, mut place: Place, started: Instant) -> Reply {
        let left = self.request_timeout.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, &mut place.reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                let text = "The service stopped before a reply arrived; please try again.";
                let answer = Answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
                answer.retry_after(1).into()
            }
            Err(_) => {
                let limit = self.request_timeout;
                let text = format!("No reply that could be delivered arrived within {limit:?}.");
                let answer = Answer::error(StatusCode::GATEWAY_TIMEOUT, &text);
                self.report_response(StatusLevel::Down, reasons::NO_RESPONSE, text);
                answer.into()
            }
        }
    }

    /// Gives `message` to the caller who waits for it; says what became of it.
    pub(crate) async fn deliver(
        &self,
        message: &UserMessage,
        request: &str,
    ) -> Result<(), Refusal> {
        let closed = |text: &str| {
            Refusal::new(
                FailureClass::Window,
                codes::SESSION_CLOSED,
                text,
                Actor::Nobody,
            )
        };
        let answer = self.declaration.reply(message);
        let id = message.message_id();
        let (written, age) = match self.pending.finish(request, id, &answer) {
            Finished::Repeated => return Ok(()),
            Finished::Answered => return Err(closed("The request is answered.")),
            Finished::NotPending => {
                self.leave_unanswered(request, codes::SESSION_CLOSED).await;
                return Err(closed(
                    "The request is answered, timed out, or its caller is gone.",
                ));
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
            self.leave_unanswered(request, codes::SESSION_CLOSED).await;
            return Err(closed(
                "The caller went away before the answer was written.",
            ));
        }
        if self.declaration.has_ids() {
            let person = message.to_addr().map(Person::new);
            self.cx.answered(request, answer.kept(), person).await;
        }
        self.cx.traffic(Traffic::Outbound);
        self.report_time(age);
        Ok(())
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
        if self.declaration.has_ids() {
            self.cx
                .answered(request, unanswered(code).kept(), None)
                .await;
        }
    }

    fn report_time(&self, took: Duration) {
        let (slow, very_slow) = SLOW;
        let (level, reason, text) = if took > very_slow {
            let text = format!("A response took longer than {very_slow:?}.");
            (StatusLevel::Down, reasons::VERY_SLOW_RESPONSE, text)
        } else if took > slow {
            let text = format!("A response took longer than {slow:?}.");
            (StatusLevel::Degraded, reasons::SLOW_RESPONSE, text)
        } else {
            (
                StatusLevel::Ok,
                reasons::RESPONSE_SENT,
                "Responses are sent in time.".into(),
            )
        };
        self.report_response(level, reason, text);
    }

    fn report_response(&self, level: StatusLevel, reason: Reason, text: String) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        *late = (level != StatusLevel::Ok).then(Instant::now);
        self.report("response", level, reason, text);
    }

    /// Takes a bad `response` status back when no response was late for a while: without requests there is no other
    /// word that would. Runs until it is dropped.
    pub(crate) async fn forgive_lateness(&self) {
        loop {
            tokio::time::sleep(FORGIVEN / 10).await;
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            if late.is_some_and(|since| since.elapsed() >= FORGIVEN) {
                *late = None;
                let text = format!("No response was late for {FORGIVEN:?}.");
                self.report("response", StatusLevel::Ok, reasons::NO_LATE_RESPONSE, text);
            }
        }
    }

    pub(crate) fn report(&self, component: &str, level: StatusLevel, reason: Reason, text: String) {
        self.cx
            .report(StatusReport::new(component, level, reason, text));
    }

    /// The reply queue to forward to: another replica of this transport holds the request, and nobody repeated it here.
    pub(crate) fn holder_elsewhere(&self, message: &UserMessage) -> Option<String> {
        if self.pending.holds(message.in_reply_to()?) {
            return None;
        }
        let holder = message.transport_metadata()?.get(HOLDER)?.as_str()?;
        // Never to a queue that is not ours, whatever a message says.
        let ours = format!("{}.reply.", self.cx.transport_name());
        let elsewhere = holder.starts_with(&ours) && holder != self.cx.reply_queue();
        elsewhere.then(|| holder.to_owned())
    }
}

/// What a caller gets whose reply will not come.
fn unanswered(code: Code) -> Answer {
    Answer::coded_error(StatusCode::BAD_GATEWAY, code)
}

/// What a repeat of a request is answered at once; none if it waits for the reply.
fn first_answer(taken: &Taken) -> Option<Answer> {
    match taken {
        Taken::Now => None,
        Taken::Before(first) => Answer::from_kept(first),
        Taken::Unanswered(code) => Some(unanswered(*code)),
    }
}

fn not_allowed(methods: &[Method]) -> Answer {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let names = names.join(", ");
    let text = format!("Use one of these methods: {names}.");
    let answer = Answer::error(StatusCode::METHOD_NOT_ALLOWED, &text);
    match names.parse() {
        Ok(allow) => answer.with(http::header::ALLOW, allow),
        Err(_) => answer,
    }
}
